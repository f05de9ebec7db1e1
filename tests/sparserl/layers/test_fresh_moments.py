"""Moments `fresh`: each connection has its own count of Adam's steps, which begins when it grows."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import MaskedMLP
from support.layers import ints, one_layer, random_layer, recorder, sparse
from support.tasks import blobs
from torch import nn

from sparserl import sparsify
from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import FusedAdam, state_from_tree, state_tree
from sparserl.topology.config import TopologyConfig
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, exchange, random_topology
from sparserl.topology.structure import TopologyChange


def stepped(layer: SparseLinear, optimizer: torch.optim.Optimizer, gradient: list[float]) -> list[float]:
    before = layer.values.detach().clone()
    layer.values.grad = torch.tensor(gradient)
    optimizer.step()
    moved: list[float] = (layer.values.detach() - before).tolist()
    return moved


def test_a_grown_connection_moves_as_a_first_step_does() -> None:
    # Adam's first step is -lr g / |g|. With the clock of the others, at 10, the same moments of .1 g and .001 g^2 are
    # corrected by 1 - .9^11 = .6862 and 1 - .999^11 = .010945 alone: .1 / .6862 / sqrt(.001 / .010945) = .4821.
    for moments, expected in (("fresh", -0.01), ("zero", -0.01 * 0.1 / 0.686189 / math.sqrt(0.001 / 0.0109452))):
        layer = sparse(1, 4, [0, 1], [1.0, 2.0])
        optimizer = FusedAdam([layer.values], lr=0.01, eps=0.0)
        for _ in range(10):
            stepped(layer, optimizer, [1.0, 1.0])
        change = exchange(layer.topology, ints(0), ints(3))
        layer.apply_change(change)
        OptimizerMoments(optimizer, layer.values, moments)(change, 0.0)
        survivor, grown = stepped(layer, optimizer, [1.0, 5.0])
        assert survivor == pytest.approx(-0.01, rel=1e-4)
        assert grown == pytest.approx(expected, rel=1e-4)
        assert optimizer.state[layer.values]["step"].tolist() == ([11.0, 1.0] if moments == "fresh" else 11.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("thread_counts")
def test_equal_clocks_step_bit_for_bit_as_one_does(dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(40_000, generator=generator, dtype=dtype)
    ours, theirs = ([nn.Parameter(first.clone()), nn.Parameter(first[:7].clone())] for _ in range(2))
    a, b = (FusedAdam(group, lr=0.1, weight_decay=0.2) for group in (ours, theirs))
    for step in range(6):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
            q.grad = p.grad.clone()
        if step == 2:
            a.state[ours[0]]["step"] = a.state[ours[0]]["step"].expand(first.numel()).clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert torch.equal(a.state[p]["exp_avg_sq"], b.state[q]["exp_avg_sq"])
    assert a.state[ours[0]]["step"].tolist() == [6.0] * first.numel()
    assert a.state[ours[1]]["step"] == 6.0


def test_trained_with_events_it_equals_the_masked_dense_twin_with_a_matrix_of_clocks() -> None:
    torch.manual_seed(0)
    layers = [SparseLinear(random_topology(6, 5, 12, np.random.default_rng(0))), nn.Linear(6, 3)]
    mlp = SparseMLP(layers)
    optimizer = FusedAdam(mlp.parameters(), lr=1e-2)
    twin = MaskedMLP(mlp, mlp.activations, lr=1e-2)
    changes: list[TopologyChange] = []
    evolver = one_layer(layers[0], RewireRule("weight_magnitude", "random", 0.4, update_interval=3))  # type: ignore[arg-type]
    evolver.follow("net.0", OptimizerMoments(optimizer, mlp[0].values, "fresh"))
    evolver.follow("net.0", recorder(changes))
    for update in range(1, 12):
        x = torch.randn(8, 5)
        for network in (mlp, twin):
            network(x).square().sum().backward()
        evolver.begin_update(update)
        optimizer.step()
        optimizer.zero_grad()
        twin.step()
        if evolver.end_update("net"):
            twin.apply(0, changes[-1], 0.0, fresh=True)
        torch.testing.assert_close(mlp[0].values.detach(), twin.gather(0, twin.weights[0]).detach())
        torch.testing.assert_close(mlp[1].weight.detach(), twin.weights[1].detach())
    assert len(changes) == 4
    clocks = optimizer.state[mlp[0].values]["step"]
    assert clocks.min() < 11
    torch.testing.assert_close(clocks, twin.gather(0, twin.adam[0].t).float())


def test_it_goes_on_from_a_stored_state() -> None:
    found = []
    for stored in (False, True):
        layer = random_layer(0)
        optimizer = FusedAdam([layer.values], lr=0.01)
        stepped(layer, optimizer, [1.0] * 20)
        change = exchange(layer.topology, ints(0, 3), np.setdiff1d(np.arange(42), layer.topology.flat)[:2])
        layer.apply_change(change)
        OptimizerMoments(optimizer, layer.values, "fresh")(change, 0.0)
        stepped(layer, optimizer, [0.5] * 20)
        if stored:
            tree: Any = copy.deepcopy(state_tree(optimizer.state_dict()))
            optimizer = FusedAdam([layer.values], lr=0.01)
            optimizer.load_state_dict(state_from_tree(tree))
        stepped(layer, optimizer, [-0.25] * 20)
        found.append((layer.values.detach().clone(), optimizer.state[layer.values]["step"].clone()))
    assert all(map(torch.equal, *found))
    assert sorted(set(found[0][1].tolist())) == [2.0, 3.0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_another_optimizer_is_refused(kind: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 1))
    before = copy.deepcopy(model.state_dict())
    optimizer = kind(model.parameters(), lr=0.1)
    refusal = rf"moments 'fresh' count the steps of each connection, which \S+{kind.__name__} cannot"
    with pytest.raises(TopologyError, match=refusal):
        sparsify(model, optimizer, density=0.3, method="set", moments="fresh")
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert all(map(torch.equal, model.state_dict().values(), before.values()))


def test_a_classifier_with_another_optimizer_is_refused() -> None:
    topology = TopologyConfig("set", density=0.3, moments="fresh")
    strategy = make_strategy("naive", "classifier", MethodOptions())
    with pytest.raises(TopologyError, match=r"which torch\.optim\.rmsprop\.RMSprop cannot: use .*optimizer adam"):
        SupervisedLearner(blobs(), strategy, LearnerConfig(hidden=(12,), optimizer="rmsprop"), topology, seed=0)


def test_it_serves_a_model_of_the_user_s() -> None:
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 1))
    optimizer = FusedAdam(model.parameters())
    training = sparsify(model, optimizer, density=0.3, method="set", moments="fresh", update_interval=2)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
        training.step()
    (layer,) = training.layers.values()
    assert {1.0, 4.0} <= set(optimizer.state[layer.values]["step"].tolist()) <= {1.0, 3.0, 4.0}  # events after 1 and 3


def test_a_step_that_is_torch_s_is_refused_where_clocks_are_many() -> None:
    layer = sparse(1, 4, [0, 1], [1.0, 2.0])
    optimizer = FusedAdam([layer.values], amsgrad=True)
    stepped(layer, optimizer, [1.0, 1.0])
    OptimizerMoments(optimizer, layer.values, "fresh")(exchange(layer.topology, ints(), ints()), 0.0)
    with pytest.raises(TopologyError, match="moments 'fresh' need Adam as it is in the paper"):
        stepped(layer, optimizer, [1.0, 1.0])
