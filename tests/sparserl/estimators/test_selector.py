"""Feature selection for scikit-learn: what a method sums up, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError
from sparserl.estimators import SparseFeatureSelector
from sparserl.metrics.inputs import input_attribution
from sparserl.topology.config import TopologyConfig

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 10)).astype(np.float32)
Y = np.where(X[:, 3] + X[:, 8] > 0, "yes", "no")
SMALL: dict[str, Any] = {"hidden_layer_sizes": (12,), "density": 0.4, "epochs": 3, "random_state": 0}


def fitted(method: str, n_features: int = 2, **changes: Any) -> SparseFeatureSelector:
    return SparseFeatureSelector(n_features, method=method, **{**SMALL, **changes}).fit(X, Y)


def test_attribution_is_summed_over_passes() -> None:
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    table = Table("X", X, (Y == "yes").astype(np.int64), ("no", "yes"))
    sequence = table_sequence(table, scaling="each_feature", test_share=0.0, seed=seed)
    config, topology = FitLearnerConfig(hidden=(12,), epochs=3), TopologyConfig("set", 0.4, output_layer="sparse")
    learner = FitLearner(sequence, config, topology, seed=seed)
    total = np.zeros(10)
    for step in learner.train():
        if step.batch + 1 == step.batches:
            total += input_attribution(learner.network, sequence.tasks[0].train.take(slice(None))[0])
    np.testing.assert_allclose(fitted("attribution").feature_importances_, total, rtol=1e-6)


def test_features_that_matter_are_found() -> None:
    own = fitted("attribution", epochs=150, hidden_layer_sizes=(64,))
    assert own.get_support(indices=True).tolist() == [3, 8]
    np.testing.assert_array_equal(own.transform(X), X[:, [3, 8]])
    assert make_pipeline(own, SVC()).fit(X, Y).score(X, Y) > 0.9


@pytest.mark.parametrize("method", ["attribution"])
def test_the_seed_decides_and_copies_say_the_same(method: str) -> None:
    one, same, other = fitted(method), fitted(method), fitted(method, random_state=1)
    np.testing.assert_array_equal(one.feature_importances_, same.feature_importances_)
    assert not np.array_equal(one.feature_importances_, other.feature_importances_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).get_support(), one.get_support())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"n_features": 11}, "n_features must be at most 10, the features of X, got 11"),
        ({"n_features": 0}, "n_features must be at least 1, got 0"),
        ({"method": "attribute"}, "unknown method 'attribute'; did you mean 'attribution'"),
        ({"scaling": "all"}, "scaling must be"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
    ],
)
def test_what_cannot_be_met_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        fitted(**{"method": "attribution", **changes})
