"""What follows the connections of a layer, the state of optimizers above all."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.layers import ints, one_layer, random_layer, recorder, sparse

from sparserl.errors import TopologyError
from sparserl.topology.event import Follower
from sparserl.topology.moments import MOMENTS, OptimizerMoments
from sparserl.topology.rewire import RewireRule, exchange
from sparserl.topology.structure import FloatArray, TopologyChange


def test_followers_run_in_order_after_the_layer() -> None:
    layer = random_layer(3)
    evolver = one_layer(layer, RewireRule("weight_magnitude", "random", 0.5))
    log: list[tuple[str, bool]] = []

    def follower(name: str) -> Follower:
        def follow(change: TopologyChange, grown_values: float | FloatArray) -> None:
            del grown_values
            log.append((name, layer.topology is change.new))

        return follow

    evolver.follow("net.0", follower("first"))
    evolver.follow("net.0", follower("second"))
    evolver.begin_update(1)
    evolver.end_update("net")
    assert log == [("first", True), ("second", True)]


def test_a_follower_of_an_unknown_layer_is_refused() -> None:
    with pytest.raises(KeyError):
        one_layer(sparse(2, 4, [0]), None).follow("net.1", lambda change, grown_values: None)


OPTIMIZERS: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=2e-4),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
}


@pytest.mark.parametrize("keep_regrown", [True, False])
@pytest.mark.parametrize("moments", [name for name, rule in MOMENTS.items() if not rule.own_clocks])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_optimizer_state_follows_its_connections(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], moments: str, keep_regrown: bool
) -> None:
    layer = random_layer(2)
    parameter = layer.values
    optimizer = make([parameter])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        layer.values.grad = torch.randn(20, generator=generator)
        optimizer.step()
    before = {name: copy.deepcopy(state) for name, state in optimizer.state[layer.values].items()}
    values = layer.values.detach().clone().numpy()
    evolver = one_layer(layer, RewireRule("weight_magnitude", "random", 0.4, keep_regrown=keep_regrown))
    changes: list[TopologyChange] = []
    evolver.follow("net.0", OptimizerMoments(optimizer, layer.values, moments))
    evolver.follow("net.0", recorder(changes))
    evolver.begin_update(1)
    evolver.end_update("net")

    assert layer.values is parameter
    assert layer.values.grad is None
    (change,) = changes
    survivors = change.source >= 0
    assert 0 < (~survivors).sum() <= 8
    assert layer.values.detach().numpy()[survivors].tobytes() == values[change.source[survivors]].tobytes()
    assert layer.values.detach().numpy()[~survivors].tolist() == [0.0] * change.grown
    after = optimizer.state[layer.values]
    assert set(after) == set(before)
    per_connection = 0
    for name, old in before.items():
        new = after[name]
        if not torch.is_tensor(old) or old.dim() == 0:
            assert new == old
            continue
        per_connection += 1
        kept = old.numpy()[change.source[survivors]]
        assert new.dtype == old.dtype
        assert new.numpy()[survivors].tobytes() == kept.tobytes()
        fill = 0.0 if moments == "zero" else sum(kept.tolist()) / len(kept)
        np.testing.assert_allclose(new.numpy()[~survivors], fill, rtol=1e-5, atol=1e-9)
    assert per_connection >= 1
    layer.values.grad = torch.ones(20)
    optimizer.step()  # shapes fit


def test_optimizer_state_of_a_shrunken_layer() -> None:
    layer = sparse(2, 4, [0, 2, 5, 7], [0.1, 3.0, -0.2, 4.0])
    optimizer = torch.optim.Adam([layer.values])
    layer.values.grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
    optimizer.step()
    follow = OptimizerMoments(optimizer, layer.values)
    change = exchange(layer.topology, ints(0, 2), ints())
    layer.apply_change(change)
    follow(change, 0.0)
    assert optimizer.state[layer.values]["exp_avg"].tolist() == pytest.approx([0.2, 0.4])
    assert optimizer.state[layer.values]["step"] == 1


def test_an_optimizer_that_has_not_stepped_has_nothing_to_follow() -> None:
    layer = sparse(2, 4, [0, 2, 5, 7])
    optimizer = torch.optim.Adam([layer.values])
    OptimizerMoments(optimizer, layer.values)(exchange(layer.topology, ints(0), ints(1)), 0.0)
    assert not optimizer.state.get(layer.values)


def test_the_mean_of_no_survivors_is_zero() -> None:
    layer = sparse(2, 4, [0, 2])
    optimizer = torch.optim.Adam([layer.values])
    layer.values.grad = torch.ones(2)
    optimizer.step()
    OptimizerMoments(optimizer, layer.values, "mean")(exchange(layer.topology, ints(0, 1), ints(3, 4)), 0.0)
    assert optimizer.state[layer.values]["exp_avg"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("shape", [(5,), (4, 1), (1, 4), (1,)])
def test_optimizer_state_of_an_odd_shape_is_refused(shape: tuple[int, ...]) -> None:
    layer = sparse(2, 4, [0, 2, 5, 7])
    optimizer = torch.optim.SGD([layer.values], lr=0.1)
    optimizer.state[layer.values]["odd"] = torch.zeros(shape)
    with pytest.raises(TopologyError, match=r"keeps 'odd' of shape .* not per connection"):
        OptimizerMoments(optimizer, layer.values)(exchange(layer.topology, ints(0), ints(1)), 0.0)
