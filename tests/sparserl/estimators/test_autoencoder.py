"""The autoencoder for scikit-learn: what its narrowest layer says, the way back, and that the learner is `fit`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.layers import sparse

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import RECONSTRUCT
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError
from sparserl.estimators import SparseAutoencoder
from sparserl.layers import SparseMLP
from sparserl.topology.config import TopologyConfig

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 2)) @ RNG.normal(size=(2, 8))
SMALL: dict[str, Any] = {"density": 0.4, "max_iter": 2, "batch_size": 30, "random_state": 0}


def test_codes_and_the_way_back_worked_by_hand() -> None:
    """2 -> 3 -> 1 -> 2: relu of (x0, -x1, x0 + x1), then relu of the first minus the second, then (c, 2 c)."""
    own = SparseAutoencoder((3, 1), density=0.5, max_iter=1, random_state=0).fit(X[:, :2])
    layers = [
        sparse(3, 2, [0, 3, 4, 5], [1.0, -1.0, 1.0, 1.0]),
        sparse(1, 3, [0, 1], [1.0, -1.0]),
        sparse(2, 1, [0, 1], [1.0, 2.0]),
    ]
    own.network_ = SparseMLP(layers)
    codes = own.transform(np.array([[3.0, 1.0], [1.0, -2.0], [5.0, -2.0]]))
    assert codes.tolist() == [[3.0], [0.0], [3.0]]
    assert own.inverse_transform(codes).tolist() == [[3.0, 6.0], [0.0, 0.0], [3.0, 6.0]]
    assert own.score(np.array([[3.0, 1.0]])) == -12.5


def test_there_and_back_is_the_network() -> None:
    own = SparseAutoencoder((6, 3, 3, 6), activation="tanh", dropout=0.2, **SMALL).fit(X)
    assert own.transform(X).shape == (90, 3)
    assert own.transform(X.astype(np.float32)).dtype == np.float32
    with own.network_.in_use(), torch.no_grad():
        whole = own.network_(torch.from_numpy(X.astype(np.float32)))
    np.testing.assert_allclose(own.inverse_transform(own.transform(X)), whole, rtol=1e-5)
    assert own.get_feature_names_out().tolist() == [f"sparseautoencoder{index}" for index in range(3)]


def test_it_trains_as_the_learner_does() -> None:
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    sequence = table_sequence(Table("X", X.astype(np.float32), None), scaling="none", test_share=0.0, seed=seed)
    config = FitLearnerConfig(hidden=(5,), epochs=2, batch_size=30, noise=0.3)
    learner = FitLearner(sequence, config, TopologyConfig("set", 0.4, output_layer="sparse"), RECONSTRUCT, seed=seed)
    list(learner.train())
    own = SparseAutoencoder((5,), noise=0.3, **SMALL).fit(X)
    for name, tensor in learner.network.state_dict().items():
        np.testing.assert_array_equal(own.network_.state_dict()[name], tensor)


def test_it_learns_what_samples_have_in_common() -> None:
    longer = {**SMALL, "max_iter": 300, "learning_rate_init": 0.01}
    own = SparseAutoencoder((12,), activation="tanh", early_stopping=True, n_iter_no_change=300, **longer).fit(X)
    assert own.score(X) > -0.2 * X.var()
    assert own.n_iter_ == 300
    assert max(own.validation_scores_) > own.validation_scores_[0]


def test_what_cannot_be_met_is_refused() -> None:
    own = SparseAutoencoder((5,), **SMALL).fit(X)
    with pytest.raises(ConfigError, match="X must have 5 columns, as transform gives, got 8"):
        own.inverse_transform(X)
    with pytest.raises(ConfigError, match="noise must not be negative, got -1"):
        SparseAutoencoder((5,), noise=-1.0, **SMALL).fit(X)
