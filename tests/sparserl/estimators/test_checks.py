"""scikit-learn's own checks of estimators, all of them, with networks so small that they take seconds."""

from __future__ import annotations

from typing import Any

from sklearn.utils.estimator_checks import parametrize_with_checks

from sparserl.estimators import SparseAutoencoder, SparseFeatureSelector, SparseMLPClassifier, SparseRBM
from sparserl.estimators.feature_selection import SELECTIONS

ESTIMATORS = [
    SparseAutoencoder((8,), max_iter=2),
    SparseRBM(8, n_iter=1, batch_size=32),
    *(SparseFeatureSelector(1, method=method, epochs=2, hidden_layer_sizes=(8,), density=0.4) for method in SELECTIONS),
    SparseMLPClassifier((16,), max_iter=12, batch_size=32, learning_rate_init=0.05),
]


@parametrize_with_checks(ESTIMATORS)
def test_a_check(estimator: Any, check: Any) -> None:
    check(estimator)
