"""Layers that store more connections than passes use: against masked dense matrices, through states, and for use."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import MaskedMLP
from support.layers import ints
from support.tasks import blobs
from support.trees import assert_equal_trees
from torch import nn

from sparserl import sparsify
from sparserl.continual.shared.weight_owners import WeightOwners
from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.errors import ConfigError, TopologyError
from sparserl.export import PolicyLayer
from sparserl.kernels.flops import FlopCounter, counting
from sparserl.layers import SparseLinear, SparseLSTM, SparseMLP
from sparserl.layers.convert import dense_copy, to_dense
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.pruning import pruned
from sparserl.metrics import cost
from sparserl.metrics.inputs import input_degree, input_strength
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import SparseTopology

TOPOLOGY = TopologyConfig("top_kast", density=0.2, update_interval=3)
CONFIG = LearnerConfig(hidden=(30, 20), epochs=4, batch_size=16, learning_rate=0.05)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def by_hand() -> SparseLinear:
    """Positions (0, 1), (0, 2), (1, 0) of 2 x 3 with weights 2, 3, 5; the first and the last are used."""
    topology = SparseTopology(2, 3, ints(1, 2, 3)).with_used(ints(0, 2))
    return SparseLinear.of(topology, torch.tensor([2.0, 3.0, 5.0]), nn.Parameter(torch.tensor([0.5, 0.0])))


def network(dtype: torch.dtype = torch.float32) -> SparseMLP:
    layers = [SparseLinear(random_topology(9, 7, 40, np.random.default_rng(0))), nn.Linear(9, 6)]
    layers += [SparseLinear(random_topology(3, 6, 15, np.random.default_rng(1)))]
    for at, count in ((0, 17), (2, 6)):
        layers[at].begin_use(count)  # type: ignore[operator]  # is sparse
    return SparseMLP(layers).to(dtype)


def test_worked_by_hand() -> None:
    layer, x = by_hand(), torch.tensor([[1.0, 10.0, 100.0]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[20.5, 5.0]]
    y.backward(torch.tensor([[1.0, 2.0]]))
    assert layer.values.grad is not None
    assert layer.values.grad.tolist() == [10.0, 100.0, 2.0]
    assert x.grad is not None
    assert x.grad.tolist() == [[10.0, 2.0, 0.0]]
    assert (layer.nnz, layer.topology.in_use.nnz) == (3, 2)
    assert str(layer) == "SparseLinear(3 -> 2, nnz=3, density=0.5, in use=2)"


def test_thirty_steps_with_events_and_decay_equal_the_masked_dense_twin() -> None:
    mlp = network(torch.float64)
    twin = MaskedMLP(mlp, mlp.activations, lr=1e-2)
    optimizer = FusedAdam(mlp.parameters(), lr=1e-2)
    layers = {"0": mlp[0], "2": mlp[2]}
    rule = RewireRule("weight_magnitude", "random", 0.4, update_interval=4, weight_l2=0.3, backward_factor=2.0)
    evolver = TopologyEvolver({"net": layers}, rule, seed=3, new_value="uniform")  # type: ignore[arg-type]  # evolve
    for key, layer in layers.items():
        evolver.set_optimizer(key, lambda: optimizer)
        evolver.follow(key, OptimizerMoments(optimizer, layer.values))
        evolver.follow(key, lambda change, grown_values, position=int(key): twin.apply(position, change, grown_values))
    in_use = []
    for update in range(1, 31):
        x = torch.randn(12, 7, dtype=torch.float64)
        evolver.begin_update(update)
        optimizer.zero_grad()
        mlp(x).sub(1.0).square().mean().backward()
        twin(x).sub(1.0).square().mean().backward()
        optimizer.step()
        twin.step()
        evolver.after_step("net")
        for position in (0, 2):
            weight, used = twin.weights[position], twin.used[position]
            assert used is not None
            with torch.no_grad():
                weight -= 1e-2 * 0.3 * weight * torch.where(used > 0, 1.0, used.numel() / used.sum())
        evolver.end_update("net")
        in_use.append(mlp[0].topology.in_use.flat.tolist())  # type: ignore[union-attr]  # is sparse
    for position in (0, 2):
        torch.testing.assert_close(
            mlp[position].values.detach(), twin.gather(position, twin.weights[position]).detach()
        )
    x = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(mlp(x), twin(x))
    assert len({tuple(one) for one in in_use}) > 3  # other connections come into use


def test_a_state_holds_what_is_used() -> None:
    layer, other = by_hand(), SparseLinear(SparseTopology(2, 3, ints(0)))
    state = layer.state_dict()
    assert (state["used"].tolist(), state["used"].dtype) == ([0, 2], torch.int32)
    other.load_state_dict(state)
    x = torch.randn(4, 3)
    assert torch.equal(other(x), layer(x))
    assert_equal_trees(dict(other.state_dict()), dict(state))
    all_used = SparseLinear(SparseTopology(2, 3, ints(0, 5)))
    layer.load_state_dict(all_used.state_dict())
    assert layer.topology.used is None
    assert torch.equal(layer(x), all_used(x))


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (torch.tensor([0.0, 2.0]), "whole numbers and never averaged or cast, got torch.float32"),
        (torch.tensor([0, 3], dtype=torch.int32), "a slot in use is none of the 3"),
        (torch.tensor([2, 0], dtype=torch.int32), "strictly increasing"),
    ],
)
def test_states_that_cannot_be_are_refused(used: torch.Tensor, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        by_hand().load_state_dict({**by_hand().state_dict(), "used": used})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_use_the_same(copied: Any) -> None:
    layer, x = by_hand(), torch.randn(4, 3)
    other = copied(layer)
    assert torch.equal(other(x), layer(x))
    other.begin_use(1)
    assert torch.equal(layer(x), by_hand()(x))


def test_what_leaves_training_has_the_connections_in_use_alone() -> None:
    layer = by_hand()
    assert to_dense(layer).weight.tolist() == [[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]]
    exported = PolicyLayer.of(layer)
    assert (exported.values.tolist(), exported.col is not None and exported.col.tolist()) == ([2.0, 5.0], [1, 0])
    assert input_degree(layer).tolist() == [1.0, 1.0, 0.0]
    assert input_strength(layer).tolist() == [5.0, 2.0, 0.0]
    mlp, x = network(), torch.randn(6, 7)
    alone = mlp.used_alone()
    torch.testing.assert_close(alone(x), mlp(x))
    assert [getattr(one, "nnz", None) for one in alone] == [17, None, 6]
    assert alone.used_alone() is alone
    torch.testing.assert_close(dense_copy(mlp)(x), mlp(x))
    smaller = pruned(mlp, 0.3, "global", name="net")
    kept = set(smaller[0].topology.flat.tolist())  # type: ignore[union-attr]  # is sparse
    assert kept <= set(mlp[0].topology.in_use.flat.tolist())  # type: ignore[union-attr]  # likewise


def test_costs_are_of_what_is_stored_and_what_is_multiplied() -> None:
    mlp = network()
    assert cost.connections([mlp]) == 40 + 9 * 6 + 15
    assert cost.params_nonzero([mlp]) == 40 + 9 + 9 * 6 + 6 + 15 + 3
    assert cost.params_used([mlp]) == 17 + 9 + 9 * 6 + 6 + 6 + 3
    assert [one.used for one in cost.layer_costs(mlp)] == [17, 54, 6]
    assert cost.flops_short([(mlp, 1)], 10) == 10 * (4 * (17 + 54 + 6) + 2 * (40 + 54 + 15))
    assert cost.bytes_parameters([mlp]) == 4 * (40 + 9 + 54 + 6 + 15 + 3)
    before = cost.bytes_indices([mlp])
    counter = FlopCounter()
    with counting(counter):
        mlp(torch.randn(10, 7)).sum().backward()
    # Forward and, but for the first layer, toward the input what is used; toward weights what is stored.
    assert counter.total == 2 * 10 * ((17 + 54 + 6) + (54 + 6) + (40 + 54 + 15))
    assert cost.bytes_indices([mlp]) > before > 8 * (10 + 4) + 4 * (40 + 15 + 17 + 6)


def test_a_classifier_goes_on_from_a_state() -> None:
    whole, first, other = (SupervisedLearner(blobs(), Strategy(), CONFIG, TOPOLOGY, seed=0) for _ in range(3))
    steps = list(whole.train())
    training = first.train()
    for _ in range(5):
        next(training)
    other.load_state_dict(copy.deepcopy(first.state_dict()))
    assert len(list(other.train())) == len(steps) - 5
    assert_equal_trees(other.state_dict(), whole.state_dict())
    assert other.evolver is not None
    assert {event.kind for event in other.evolver.events} == {"rewire"}


@pytest.mark.parametrize("method", ["ewc", "replay"])
def test_continual_methods_that_leave_connections_alone_take_it(method: str) -> None:
    strategy = make_strategy(method, "classifier", MethodOptions())
    learner = SupervisedLearner(blobs("task"), strategy, CONFIG, TOPOLOGY, seed=0)
    for _ in range(2):
        assert all(np.isfinite(step.loss) for step in learner.train())
        learner.finish_task()


@pytest.mark.parametrize("initial_topology", ["random", "largest"])
def test_passes_begin_with_the_largest(initial_topology: Any) -> None:
    topology = TopologyConfig("top_kast", density=0.2, initial_topology=initial_topology)
    layers = [*SparseMLP.random([8, 30, 20, 4], topology=topology, seed=0, name="net")]
    if initial_topology == "random":
        layers += [*SparseLSTM.random(5, 9, topology=topology, seed=0, name="lstm").children()]
    for layer in layers:
        values, used = layer.values.detach().abs(), layer.topology.used
        assert (layer.nnz, used.dtype) == (min(layer.topology.size, 2 * used.size), np.int32)
        beside = np.setdiff1d(np.arange(layer.nnz), used)
        assert values[torch.from_numpy(used.astype(np.int64))].min() >= values[torch.from_numpy(beside)].max()


def test_a_model_of_the_user_s_says_how_many_are_used() -> None:
    model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 1))
    training = sparsify(model, torch.optim.Adam(model.parameters()), density=0.1, method="top_kast")
    used = training.layers["0"].topology.in_use.nnz
    assert training.layers["0"].nnz == 2 * used
    assert f"{2 * used}, density {2 * used / 2000:.3g}, {used} in use" in training.summary()


def test_methods_that_give_connections_to_tasks_refuse_it() -> None:
    with pytest.raises(ConfigError, match=r"set topology.backward_factor 1, or another topology method than top_kast"):
        WeightOwners({"0": by_hand()})
