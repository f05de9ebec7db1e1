"""Importance of features to an autoencoder: worked by hand, then against sums over dense matrices."""

from __future__ import annotations

import numpy as np
from support.layers import random_layer, sparse

from sparserl.continual.supervised.reconstruction_importance import ReconstructionImportance
from sparserl.layers.convert import to_dense
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule

RULE = RewireRule("connection_importance", "neuron_importance", drop_fraction=0.3, update_interval=1)
X = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
RECONSTRUCTION = np.array([[0.5, 0.2, 1.0], [2.0, 0.2, 1.0]])


def of(first: SparseLinear, last: SparseLinear) -> tuple[TopologyEvolver, ReconstructionImportance]:
    evolver = TopologyEvolver({"network": {"first": first, "last": last}}, RULE, seed=0)
    return evolver, ReconstructionImportance(evolver, "first", "last", 0.9)


def connections(layer: SparseLinear) -> set[tuple[int, int]]:
    topology = layer.topology
    return set(zip(topology.outputs.tolist(), topology.inputs.tolist(), strict=True))


def hand_worked() -> tuple[SparseLinear, SparseLinear]:
    """Hidden x inputs [.4 0 -.2; 0 .1 .3], and its transpose."""
    return sparse(2, 3, [0, 2, 4, 5], [0.4, -0.2, 0.1, 0.3]), sparse(3, 2, [0, 3, 4, 5], [0.4, 0.1, -0.2, 0.3])


def test_an_event_worked_by_hand() -> None:
    """Of .286, .19, .019, .285 the third connection goes; of the free places, (0, 1) has .19 and (1, 0) .715."""
    first, last = hand_worked()
    evolver, importance = of(first, last)
    evolver.begin_update(1)
    importance.add(X, RECONSTRUCTION)
    np.testing.assert_allclose(importance.inputs, [0.715, 0.19, 0.95])
    np.testing.assert_allclose(importance.outputs, [0.715, 0.19, 0.95])
    view = importance._of_first(first.view())
    assert view.importance is not None
    np.testing.assert_allclose(view.importance.connections, [0.286, 0.19, 0.019, 0.285], rtol=1e-6)
    evolver.end_update("network")
    assert connections(first) == {(0, 0), (0, 2), (1, 2), (1, 0)}
    assert connections(last) == {(0, 0), (2, 0), (2, 1), (0, 1)}


def test_importances_add_up_over_batches_and_come_back() -> None:
    first, last = random_layer(1), random_layer(2, n_out=7, n_in=6)
    _, importance = of(first, last)
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(5, 7)), rng.normal(size=(5, 7))) for _ in range(3)]
    for x, reconstruction in batches:
        importance.add(x, reconstruction)
    error = sum(np.abs(x - reconstruction).mean(axis=0) for x, reconstruction in batches)
    weights = [to_dense(layer).weight.detach().abs().double().numpy() for layer in (first, last)]
    np.testing.assert_allclose(importance.inputs, 0.9 * error + 0.1 * 3 * weights[0].sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(importance.outputs, 0.9 * error + 0.1 * 3 * weights[1].sum(axis=1), rtol=1e-6)
    _, restored = of(random_layer(1), random_layer(2, n_out=7, n_in=6))
    restored.load_state_dict(importance.state_dict())
    for one in (importance, restored):
        one.add(*batches[0])
    np.testing.assert_array_equal(importance.inputs, restored.inputs)
    np.testing.assert_array_equal(importance.outputs, restored.outputs)


def test_connections_gather_at_features_that_cannot_be_reconstructed() -> None:
    first = sparse(4, 10, list(range(0, 40, 5)), [0.1] * 8)
    last = sparse(10, 4, list(range(0, 40, 5)), [0.1] * 8)
    evolver, importance = of(first, last)
    x = np.zeros((1, 10))
    x[0, 7] = 1.0
    for update in range(1, 9):
        evolver.begin_update(update)
        for layer in (first, last):
            layer.values.data.fill_(0.1)
        importance.add(x, np.zeros((1, 10)))
        evolver.end_update("network")
    for layer, neurons in ((first, first.topology.inputs), (last, last.topology.outputs)):
        assert np.bincount(neurons, minlength=10)[7] == 4
        assert layer.nnz == 8
