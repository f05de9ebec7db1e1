"""WAST: what a step gathers, that connections move after it, and that it goes on where it was."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest
from oracle.dense_topology import mask_of
from oracle.wast_twin import Twin
from support.trees import assert_equal_trees

from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.continual.supervised.wast import WASTLearner
from sparserl.errors import ConfigError
from sparserl.layers.convert import to_dense
from sparserl.metrics.inputs import input_strength

CONFIG = FitLearnerConfig(
    hidden=(6,),
    activation="sigmoid",
    noise=0.2,
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    nesterov=True,
    epochs=3,
    batch_size=16,
)
X = np.random.default_rng(0).normal(size=(40, 9)).astype(np.float32) * np.arange(9, dtype=np.float32)


def learner(density: float = 0.3, **changes: object) -> WASTLearner:
    sequence = table_sequence(Table("x", X, None), scaling="all_features", test_share=0.0, seed=0)
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    return WASTLearner(sequence, config, density=density, error_share=0.75, seed=0)


def test_a_step_adds_errors_without_noise_and_present_strengths() -> None:
    own = learner()
    first, last = own.network
    before = [layer.topology.flat.copy() for layer in (first, last)]
    seen: list[np.ndarray] = []
    own.network.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().numpy()))
    assert own.evolver is not None
    strengths: list[np.ndarray] = []
    own.evolver.before_event = lambda: strengths.append(input_strength(first))
    next(iter(own.train()))
    x = own._batch(own._order()[:16]).x.numpy()
    np.testing.assert_allclose(own.importance.inputs, 0.75 * np.abs(x - seen[0]).mean(0) + 0.25 * strengths[0], 1e-6)
    assert [layer.nnz for layer in (first, last)] == [17, 17]
    for layer, old in zip((first, last), before, strict=True):
        assert np.setdiff1d(layer.topology.flat, old).size == int(0.3 * 17)


@pytest.mark.parametrize("density", [0.3, 0.8])
def test_it_is_the_masked_dense_twin(density: float) -> None:
    own = learner(density)
    layers = list(own.network)
    parameters = [parameter for layer in map(to_dense, layers) for parameter in layer.parameters()]
    twin = Twin(
        [parameter.detach().double().numpy().copy() for parameter in parameters],
        [mask_of(layer.topology) for layer in layers],
        error_share=0.75,
    )
    training = own.train()
    for _ in range(9):
        x = own._batch(own._order()[own.batch * 16 : (own.batch + 1) * 16]).x
        noisy = own._noisy(x)
        next(training)
        twin.step(x.double().numpy(), noisy.double().numpy())
        for layer, mask, weights in zip(layers, twin.masks, twin.parameters[::2], strict=True):
            np.testing.assert_array_equal(mask_of(layer.topology), mask)
            np.testing.assert_allclose(to_dense(layer).weight.detach().numpy(), weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(own.importance.inputs, twin.importances[0], rtol=1e-5)
        np.testing.assert_allclose(own.importance.outputs, twin.importances[1], rtol=1e-5)


def test_it_goes_on_where_it_was() -> None:
    whole, half = learner(), learner()
    list(whole.train())
    list(islice(half.train(), 4))
    rest = learner()
    rest.load_state_dict(half.state_dict())
    list(rest.train())
    assert_equal_trees(rest.state_dict(), whole.state_dict())


def test_connections_gather_at_features_of_large_variance() -> None:
    """The standard deviation of feature k is k times that of feature 1; feature 0 is always 0 but for the mean."""
    own = learner(epochs=40)
    list(own.train())
    degree = np.bincount(own.network[0].topology.inputs, minlength=9)
    assert degree[6:].sum() > 2 * degree[:3].sum()
    assert set(np.argsort(-own.importance.inputs)[:3]) == {6, 7, 8}


def test_what_it_cannot_train_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"importance of features needs one hidden layer, e.g. 200, got \(6, 5\)"):
        learner(hidden=(6, 5))
    with pytest.raises(ConfigError, match="moves connections, and all exist"):
        learner(density=1.0)
