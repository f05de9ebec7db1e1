"""Estimators for scikit-learn whose networks are truly sparse: they go into its pipelines, searches and scores."""

from sparserl.estimators.classifier import SparseMLPClassifier

__all__ = ["SparseMLPClassifier"]
