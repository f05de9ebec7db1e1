"""The restricted Boltzmann machine for scikit-learn: both ways through it, scaling, and that it is the learner's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.rbm import RBMLearner
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError
from sparserl.estimators import SparseRBM
from sparserl.layers.convert import to_dense
from sparserl.topology.config import TopologyConfig

RNG = np.random.default_rng(0)
X = (RNG.random(size=(60, 7)) < 0.3).astype(np.float64)
SMALL: dict[str, Any] = {"n_components": 5, "density": 0.4, "n_iter": 2, "batch_size": 20, "random_state": 0}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def test_both_ways_are_products_of_the_same_weights() -> None:
    own = SparseRBM(**SMALL, scaling="none").fit(X)
    weights = to_dense(own.network_[0]).weight.detach().numpy()
    hidden = sigmoid(X @ weights.T + own.network_[0].bias.detach().numpy())
    np.testing.assert_allclose(own.transform(X), hidden, rtol=1e-5)
    visible = sigmoid(hidden @ weights + own.network_.visible_bias.detach().numpy())
    np.testing.assert_allclose(own.inverse_transform(hidden), visible, rtol=1e-5)
    assert own.score(X) == pytest.approx(-np.square(visible - X).mean())


def test_it_trains_as_the_learner_does() -> None:
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    sequence = table_sequence(Table("X", X.astype(np.float32), None), scaling="range", test_share=0.0, seed=seed)
    config = FitLearnerConfig(hidden=(5,), optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=20)
    learner = RBMLearner(sequence, config, TopologyConfig("set", 0.4, output_layer="sparse"), seed=seed)
    list(learner.train())
    own = SparseRBM(**SMALL).fit(X)
    for name, tensor in learner.network.state_dict().items():
        np.testing.assert_array_equal(own.network_.state_dict()[name], tensor)
    assert own.loss_curve_[-1] == pytest.approx(-own.score(X), rel=0.1)  # with draws, and before the last step


def test_features_are_brought_to_the_unit_range_and_back() -> None:
    scaled = np.hstack([3.0 * X - 7.0, np.full((60, 1), 4.0)])
    own, plain = SparseRBM(**SMALL).fit(scaled), SparseRBM(**SMALL).fit(np.hstack([X, np.zeros((60, 1))]))
    np.testing.assert_allclose(own.transform(scaled), plain.transform(np.hstack([X, np.zeros((60, 1))])), rtol=1e-4)
    back = own.inverse_transform(own.transform(scaled))
    assert (back[:, :7] > -7.0).all()
    assert (back[:, :7] < -4.0).all()
    assert (back[:, 7] == 4.0).all()
    assert own.score(scaled) == pytest.approx(plain.score(np.hstack([X, np.zeros((60, 1))])), rel=1e-4)


def test_training_makes_samples_more_likely() -> None:
    first, later = (SparseRBM(**{**SMALL, "n_iter": passes}).fit(X).score(X) for passes in (1, 60))
    assert later > first


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scaling": "none"}, r"an RBM needs features in \[0, 1\], and one is -4"),
        ({"n_components": 0}, "n_components must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"density": 1.0}, "moves connections, and all exist"),
        ({"scaling": "each"}, "unknown scaling 'each'; valid: none, range"),
    ],
)
def test_what_cannot_be_met_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SparseRBM(**{**SMALL, **changes}).fit(X - 4.0)
