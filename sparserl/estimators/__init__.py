"""Estimators for scikit-learn whose networks are truly sparse: they go into its pipelines, searches and scores."""

from sparserl.estimators.autoencoder import SparseAutoencoder
from sparserl.estimators.classifier import SparseMLPClassifier
from sparserl.estimators.rbm import SparseRBM
from sparserl.estimators.selector import SparseFeatureSelector

__all__ = ["SparseAutoencoder", "SparseFeatureSelector", "SparseMLPClassifier", "SparseRBM"]
