"""Feature selection for scikit-learn: what a method sums up, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError
from sparserl.estimators import SparseFeatureSelector
from sparserl.estimators.feature_selection import SELECTIONS, surviving_strength
from sparserl.metrics.inputs import input_attribution
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology, TopologyChange

X = np.random.default_rng(0).normal(size=(120, 10)).astype(np.float32)
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


def strong(n_relevant: int) -> np.ndarray:
    """Features of which the first ones vary together, the others by themselves and less."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(300, 2)) @ rng.normal(size=(2, n_relevant))
    return np.hstack([common * 3, rng.normal(size=(300, 12 - n_relevant)) * 0.5])


@pytest.mark.parametrize(("method", "epochs"), [("wast", 10), ("quickselection", 100)])
def test_an_autoencoder_finds_what_varies_most(method: str, epochs: int) -> None:
    wide: dict[str, Any] = {"hidden_layer_sizes": (40,), "density": 0.3, "scaling": "all_features"}
    own = SparseFeatureSelector(4, method=method, epochs=epochs, random_state=0, **wide)
    assert own.fit(strong(4)).get_support(indices=True).tolist() == [0, 1, 2, 3]
    assert own.feature_importances_.shape == (12,)


def test_strength_of_what_an_event_left() -> None:
    """Hidden x inputs [.4 0 -.2; 0 .1 .3]: (1, 1) goes, (0, 1) grows with a weight that does not count."""
    old = SparseTopology(2, 3, np.array([0, 2, 4, 5]))
    change = exchange(old, np.array([2]), np.array([1]))
    np.testing.assert_allclose(surviving_strength(change, torch.tensor([0.4, 9.0, -0.2, 0.3])), [0.4, 0.0, 0.5])


def test_no_training_after_the_last_event_of_quickselection_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[int, np.ndarray]] = []

    def noted(change: TopologyChange, values: torch.Tensor) -> Any:
        events.append((change.new.nnz, found := surviving_strength(change, values)))
        return found

    monkeypatch.setattr("sparserl.estimators.feature_selection.surviving_strength", noted)
    own = fitted("quickselection", epochs=4)
    assert [nnz for nnz, _ in events] == [48, 48, 48]
    np.testing.assert_array_equal(own.feature_importances_, events[-1][1])
    events.clear()
    assert fitted("quickselection", epochs=1).feature_importances_.sum() > 0
    assert events == []


@pytest.mark.parametrize("method", SELECTIONS)
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
        ({"method": "attribution", "error_share": 0.5}, "error_share 0.5 is of wast, and has no effect on attribution"),
        ({"method": "wast", "hidden_layer_sizes": (8, 8)}, r"needs one hidden layer, e.g. 200, got \(8, 8\)"),
        ({"scaling": "all"}, "unknown scaling 'all'; valid: all_features, each_feature, none, range"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
    ],
)
def test_what_cannot_be_met_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        fitted(**{"method": "attribution", **changes})
