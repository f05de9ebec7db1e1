"""scikit-learn's own checks of estimators, all of them, with networks so small that they take seconds."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparserl.errors import ConfigError
from sparserl.estimators import SparseAutoencoder, SparseFeatureSelector, SparseMLPClassifier, SparseRBM
from sparserl.estimators.feature_selection import SELECTIONS
from sparserl.ranges import ranges_of

ESTIMATORS = [
    SparseAutoencoder((8,), max_iter=2),
    SparseRBM(8, n_iter=1, batch_size=32),
    *(SparseFeatureSelector(1, method=method, epochs=2, hidden_layer_sizes=(8,), density=0.4) for method in SELECTIONS),
    SparseMLPClassifier((16,), max_iter=12, batch_size=32, learning_rate_init=0.05),
]


@parametrize_with_checks(ESTIMATORS)
def test_a_check(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", [SparseAutoencoder, SparseFeatureSelector, SparseMLPClassifier, SparseRBM])
def test_every_number_has_a_range_that_is_checked(kind: Any) -> None:
    hints = typing.get_type_hints(kind)
    names = [one.name for one in dataclasses.fields(kind) if is_numeric(hints[one.name])]
    assert len(names) >= 5
    for name in names:
        for value in (math.nan, -1, 1e30):
            given = (value,) if typing.get_origin(hints[name]) is tuple else value
            if value not in ranges_of(kind)[name]:
                with pytest.raises(ConfigError, match=f"^{name} must"):
                    kind(**{name: given})._checked()


def is_numeric(hint: Any) -> bool:
    return hint in (int, float) or any(map(is_numeric, typing.get_args(hint)))


def test_every_selection_is_a_method() -> None:
    assert typing.get_args(typing.get_type_hints(SparseFeatureSelector)["method"]) == tuple(SELECTIONS)
