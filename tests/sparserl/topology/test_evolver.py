"""The conductor: when events fall, who follows them, and that a stored clock goes on as if never stopped."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import assert_sound_change, gradient_growth, mask_of, matrix_of
from support.layers import ints, one_layer, random_layer, sparse

from sparserl.errors import TopologyError
from sparserl.kernels import use_backend
from sparserl.layers import SparseLinear
from sparserl.topology.evolver import Follower, TopologyEvent, TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.moments import MOMENTS, OptimizerMoments
from sparserl.topology.rewire import RewireRule, exchange
from sparserl.topology.structure import FloatArray, SparseTopology, TopologyChange
from sparserl.topology.values import NEW_VALUE

Layers = dict[str, SparseLinear]


def recorder(changes: list[TopologyChange]) -> Follower:
    def follow(change: TopologyChange, grown_values: float | FloatArray) -> None:
        del grown_values
        changes.append(change)

    return follow


# --- clock ------------------------------------------------------------------------------------------


def test_ds_td3_over_a_million_updates() -> None:
    """925 rewirings at updates 2, 1002, ..., 924002 of both groups, one shrink at 925002, then nothing."""
    groups: dict[str, Layers] = {
        "critic": {"critic.0": sparse(2, 4, [0, 3, 5, 6])},
        "actor": {"actor.0": sparse(4, 3, [0, 1, 5, 6, 7, 9, 11])},
    }
    evolver = TopologyEvolver(groups, METHODS["ds_td3"].rule, seed=0)
    at: dict[str, list[int]] = {"critic": [], "actor": []}
    for update in range(1, 1_000_001):
        evolver.begin_update(update)
        if evolver.end_update("critic"):
            at["critic"].append(update)
        if update % 2 == 0 and evolver.end_update("actor"):
            at["actor"].append(update)
    expected = list(range(2, 924_003, 1000))
    assert len(expected) == 925
    assert at == {"critic": [*expected, 925_002], "actor": [*expected, 925_002]}
    for name, nnz in (("critic.0", 4), ("actor.0", 7)):
        events = [event for event in evolver.events if event.layer == name]
        assert [event.kind for event in events] == ["initial", *["rewire"] * 925, "shrink"]
        assert {event.nnz for event in events[:-1]} == {nnz}
        assert all(event.grown == event.dropped > 0 for event in events[1:-1])
        assert events[-1].grown == 0
        assert events[-1].nnz == nnz - events[-1].dropped < nnz
        assert evolver.layers[name].topology.nnz == events[-1].nnz


def events_at(rule: RewireRule, last: int, steps_at: Callable[[int], bool] = lambda update: True) -> list[int]:
    evolver = one_layer(sparse(2, 4, [0, 3, 5, 6]), rule)
    at = []
    for update in range(1, last + 1):
        evolver.begin_update(update)
        if steps_at(update) and evolver.end_update("net"):
            at.append(update)
    return at


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"update_interval": 5}, [1, 6, 11, 16]),
        ({"update_interval": 5, "first_update": 4}, [4, 9, 14, 19]),
        ({"update_interval": 1, "first_update": 17}, [17, 18, 19, 20]),
        ({"update_interval": 100}, [1]),
        ({"update_interval": 5, "last_update": 11}, [1, 6, 11]),
        ({"update_interval": 5, "last_update": 10}, [1, 6]),
        ({"update_interval": 5, "last_update": 10, "shrink_at_end": True}, [1, 6, 11]),
        ({"update_interval": 5, "last_update": 11, "shrink_at_end": True}, [1, 6, 11, 16]),
        ({"update_interval": 5, "last_update": 0}, []),
        ({"update_interval": 5, "last_update": 0, "shrink_at_end": True}, [1]),
    ],
)
def test_when_events_fall(fields: dict[str, Any], expected: list[int]) -> None:
    assert events_at(RewireRule(**fields), 20) == expected


def test_a_delayed_group_changes_at_its_next_step_and_keeps_the_clock() -> None:
    rule = RewireRule(update_interval=5)  # due at 1, 6, 11, 16
    assert events_at(rule, 20, lambda update: update % 2 == 0) == [2, 6, 12, 16]
    assert events_at(rule, 20, lambda update: update % 7 == 0) == [7, 14]  # one event for two that were due
    assert events_at(rule, 20, lambda update: update == 13) == [13]


def test_an_event_happens_once_an_update() -> None:
    evolver = one_layer(sparse(2, 4, [0, 3, 5, 6]), RewireRule(update_interval=1))
    evolver.begin_update(1)
    assert len(evolver.end_update("net")) == 1
    assert evolver.end_update("net") == []


def test_groups_have_clocks_of_their_own() -> None:
    layers = {name: sparse(2, 4, [0, 3, 5, 6]) for name in ("a.0", "a.1", "b.0")}
    groups = {"a": {name: layers[name] for name in ("a.0", "a.1")}, "b": {"b.0": layers["b.0"]}}
    evolver = TopologyEvolver(groups, RewireRule(update_interval=3), seed=0)
    assert list(evolver.layers) == ["a.0", "a.1", "b.0"]
    evolver.begin_update(1)
    assert [event.layer for event in evolver.end_update("a")] == ["a.0", "a.1"]
    evolver.begin_update(2)
    assert evolver.end_update("a") == []
    assert [event.layer for event in evolver.end_update("b")] == ["b.0"]


def test_no_rule_never_changes_anything() -> None:
    layer = sparse(2, 4, [0, 3, 5, 6])
    before = layer.values.detach().clone()
    evolver = one_layer(layer, None)
    for update in range(1, 50):
        evolver.begin_update(update)
        assert evolver.end_update("net") == []
    assert layer.topology.flat.tolist() == [0, 3, 5, 6]
    assert torch.equal(layer.values, before)
    assert [event.kind for event in evolver.events] == ["initial"]


# --- what an event reports --------------------------------------------------------------------------


def test_an_event_of_a_layer_with_one_free_position() -> None:
    # |w| order: slots 1, 3; int(.3 * 7) = 2 go. Free then: positions 1, 3 and 7.
    layer = sparse(2, 4, [0, 1, 2, 3, 4, 5, 6], [4.0, 0.1, -3.0, -0.2, 5.0, 6.0, 7.0])
    evolver = one_layer(layer, RewireRule("weight_magnitude", "random", 0.3))
    initial = TopologyEvent(0, "net.0", "initial", nnz=7, size=8, grown=0, dropped=0, explored=7)
    assert evolver.events == [initial]
    evolver.begin_update(1)
    (event,) = evolver.end_update("net")
    new = set(layer.topology.flat.tolist())
    assert {0, 2, 4, 5, 6} <= new
    assert event == TopologyEvent(1, "net.0", "rewire", nnz=7, size=8, grown=2, dropped=2, explored=7 + (7 in new))
    assert evolver.events == [initial, event]
    assert dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True)) == {
        p: {0: 4.0, 2: -3.0, 4: 5.0, 5: 6.0, 6: 7.0}.get(p, 0.0) for p in new
    }


def test_events_are_taken_once() -> None:
    evolver = one_layer(
        sparse(2, 4, [0, 1, 2, 3, 4], [4.0, 0.1, -3.0, -0.2, 5.0]), RewireRule("weight_magnitude", "random", 0.3)
    )
    assert [event.kind for event in evolver.take_events()] == ["initial"]
    assert evolver.events == evolver.take_events() == []
    evolver.begin_update(1)
    found = evolver.end_update("net")
    assert [event.kind for event in found] == ["rewire"]
    assert evolver.take_events() == found
    assert evolver.take_events() == []


def test_totals_and_explored_positions_add_up_over_events() -> None:
    layer = random_layer(1)
    evolver = one_layer(layer, RewireRule("signed_magnitude", "random", 0.2, update_interval=1, last_update=8))
    changes: list[TopologyChange] = []
    evolver.follow("net.0", recorder(changes))
    first = layer.topology.flat.tolist()
    seen, grown, dropped = set(first), 0, 0
    assert evolver.explored_fraction("net.0") == 20 / 42
    for update in range(1, 11):
        with torch.no_grad():
            layer.values += 0.1 * torch.randn(20, generator=torch.Generator().manual_seed(update))
        evolver.begin_update(update)
        for event in evolver.end_update("net"):
            change = changes[-1]
            assert change.new is layer.topology
            assert_sound_change(change)
            seen |= set(change.new.flat.tolist())
            grown, dropped = grown + change.grown, dropped + change.dropped
            assert (event.nnz, event.grown, event.dropped) == (20, change.grown, change.dropped)
            assert event.explored == len(seen)
    assert len(changes) == 8
    assert (evolver.grown_total, evolver.dropped_total) == ({"net.0": grown}, {"net.0": dropped})
    assert evolver.explored_fraction("net.0") == len(seen) / 42
    assert len(seen) > 20
    assert evolver.initial["net.0"].tolist() == first != layer.topology.flat.tolist()


def test_each_layer_draws_from_the_stream_of_its_name() -> None:
    def topologies(names: list[str], seed: int) -> dict[str, list[int]]:
        layers = {name: random_layer(5) for name in names}
        evolver = TopologyEvolver({"net": layers}, RewireRule("signed_magnitude", "random", 0.3), seed=seed)
        evolver.begin_update(1)
        evolver.end_update("net")
        return {name: layer.topology.flat.tolist() for name, layer in layers.items()}

    alone, together = topologies(["x"], 0), topologies(["first", "x", "y"], 0)
    assert together["x"] == alone["x"]
    assert together["y"] != together["x"] != together["first"]
    assert topologies(["x"], 0) == alone
    assert topologies(["x"], 1) != alone


# --- new weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_regrown", [True, False])
def test_uniform_new_weights_have_the_bound_of_initial_ones(keep_regrown: bool) -> None:
    layer = random_layer(0, 40, 25, 500)
    rule = RewireRule("weight_magnitude", "random", 0.8, keep_regrown=keep_regrown)
    evolver = one_layer(layer, rule, new_value="uniform")
    changes: list[TopologyChange] = []
    fills: list[Any] = []
    evolver.follow("net.0", recorder(changes))
    evolver.follow("net.0", lambda change, grown_values: fills.append(grown_values))
    evolver.begin_update(1)
    evolver.end_update("net")
    grown = layer.values.detach().numpy()[changes[0].source < 0]
    assert grown.tolist() == fills[0].tolist()  # followers see the weights that the layer got
    assert grown.dtype == np.float32
    assert 0.17 < np.abs(grown).max() <= 0.2  # 1 / sqrt(25)
    assert abs(grown.mean()) < 0.03
    assert abs(grown.std() - 0.2 / np.sqrt(3)) < 0.02


def test_new_value_names() -> None:
    assert set(NEW_VALUE) == {"zero", "uniform", "xavier", "sparse_fan_in", "sparse_xavier"}
    with pytest.raises(TopologyError, match="unknown new value 'unifrm'; did you mean 'uniform'"):
        one_layer(sparse(2, 4, [0]), RewireRule(), new_value="unifrm")


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(TopologyError, match="two layers share a name"):
        TopologyEvolver({"a": {"x": sparse(2, 4, [0])}, "b": {"x": sparse(2, 4, [1])}}, None, seed=0)


# --- followers --------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("moments", MOMENTS)
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
    with pytest.raises(TopologyError, match="optimizer state 'odd' of shape"):
        OptimizerMoments(optimizer, layer.values)(exchange(layer.topology, ints(0), ints(1)), 0.0)


# --- growth by gradient -----------------------------------------------------------------------------


def test_gradients_are_captured_only_where_an_event_needs_them() -> None:
    layers = {"a.0": random_layer(0), "b.0": random_layer(1)}
    groups: dict[str, Layers] = {"a": {"a.0": layers["a.0"]}, "b": {"b.0": layers["b.0"]}}
    rule = RewireRule("weight_magnitude", "gradient", 0.3, update_interval=3, last_update=7, shrink_at_end=True)
    evolver = TopologyEvolver(groups, rule, seed=0)
    armed: list[tuple[bool, bool]] = []
    for update in range(1, 13):
        evolver.begin_update(update)
        assert all(layer.activation_pairs == [] for layer in layers.values())
        armed.append((layers["a.0"].capture, layers["b.0"].capture))
        for group, layer in zip(groups, layers.values(), strict=True):
            if layer.capture:
                layer.activation_pairs.append((torch.ones(7, 2), torch.ones(6, 2)))
            if group == "a" or update % 2 == 0:
                events = evolver.end_update(group)
                assert not (events and (layer.capture or layer.activation_pairs))
    # a is due at 1, 4, 7 and shrinks at 10 without gradients; b steps at even updates: due at 1, 4, 7, then it is over.
    a, b = zip(*armed, strict=True)
    assert [update for update, on in enumerate(a, 1) if on] == [1, 4, 7]
    assert [update for update, on in enumerate(b, 1) if on] == [1, 2, 4, 7]
    kinds = [(event.update, event.layer, event.kind) for event in evolver.events[2:]]
    assert kinds == [
        (1, "a.0", "rewire"),
        (2, "b.0", "rewire"),
        (4, "a.0", "rewire"),
        (4, "b.0", "rewire"),
        (7, "a.0", "rewire"),
        (8, "b.0", "shrink"),
        (10, "a.0", "shrink"),
    ]


def test_random_growth_captures_nothing() -> None:
    layer = random_layer(0)
    evolver = one_layer(layer, RewireRule("weight_magnitude", "random", 0.3))
    evolver.begin_update(1)
    assert not layer.capture


def test_growth_by_gradient_without_a_backward_pass_is_refused() -> None:
    evolver = one_layer(random_layer(0), RewireRule("weight_magnitude", "gradient", 0.3))
    evolver.begin_update(1)
    with pytest.raises(TopologyError, match="begin_update"):
        evolver.end_update("net")


def test_growth_follows_the_dense_gradient_of_the_update() -> None:
    """One RigL update of a layer against autograd on its dense twin, the loss made of two passes."""
    layer = random_layer(4)
    evolver = one_layer(layer, RewireRule("weight_magnitude", "gradient", 0.5, keep_regrown=True))
    generator = torch.Generator().manual_seed(1)
    xs = [torch.randn(9, 7, generator=generator) for _ in range(2)]
    old = layer.topology
    dense = torch.from_numpy(matrix_of(old, layer.values.detach().numpy())).requires_grad_()
    sum((x @ dense.T).pow(3).sum() for x in xs).backward()  # type: ignore[union-attr]
    assert dense.grad is not None

    evolver.begin_update(1)
    with use_backend("reference"):
        sum(layer(x).pow(3).sum() for x in xs).backward()
    magnitude = np.abs(layer.values.detach().numpy())
    smallest = sorted(range(20), key=lambda slot: (magnitude[slot], slot))[:10]
    evolver.end_update("net")
    kept = mask_of(SparseTopology(6, 7, np.delete(old.flat, smallest)))
    expected = np.flatnonzero(kept).tolist() + gradient_growth(dense.grad.numpy(), kept, 10)
    assert layer.topology.flat.tolist() == sorted(expected)
    # Nothing is captured between events.
    evolver.begin_update(2)
    with use_backend("reference"):
        layer(xs[0]).sum().backward()
    assert layer.activation_pairs == []


# --- storing the clock ------------------------------------------------------------------------------


class Run:
    """Two groups with optimizers and made-up gradients that depend on the update alone."""

    def __init__(self, seed: int, keep_regrown: bool) -> None:
        self.groups: dict[str, Layers] = {
            "critic": {"critic.0": random_layer(0), "critic.1": random_layer(1)},
            "actor": {"actor.0": random_layer(2)},
        }
        rule = RewireRule(
            "signed_magnitude",
            "random",
            0.3,
            decay="cosine",
            update_interval=3,
            first_update=2,
            last_update=20,
            shrink_at_end=True,
            keep_regrown=keep_regrown,
        )
        self.evolver = TopologyEvolver(self.groups, rule, seed=seed, new_value="uniform")
        self.optimizers = {
            group: torch.optim.Adam([layer.values for layer in layers.values()], lr=0.05)
            for group, layers in self.groups.items()
        }
        for group, layers in self.groups.items():
            for name, layer in layers.items():
                self.evolver.follow(name, OptimizerMoments(self.optimizers[group], layer.values))

    def advance(self, first: int, last: int) -> None:
        for update in range(first, last + 1):
            self.evolver.begin_update(update)
            for group in ["critic"] if update % 2 else ["critic", "actor"]:
                generator = torch.Generator().manual_seed(update)
                for layer in self.groups[group].values():
                    layer.values.grad = torch.randn(layer.nnz, generator=generator)
                self.optimizers[group].step()
                self.evolver.end_update(group)

    def store(self) -> dict[str, Any]:
        return {
            "layers": {name: layer.state_dict() for name, layer in self.evolver.layers.items()},
            "optimizers": {group: optimizer.state_dict() for group, optimizer in self.optimizers.items()},
            "evolver": self.evolver.state_dict(),
        }

    def load(self, stored: dict[str, Any]) -> None:
        for name, state in stored["layers"].items():
            self.evolver.layers[name].load_state_dict(state)  # type: ignore[attr-defined]
        for group, state in stored["optimizers"].items():
            self.optimizers[group].load_state_dict(state)
        self.evolver.load_state_dict(stored["evolver"])

    def everything(self) -> list[Any]:
        evolver = self.evolver
        result: list[Any] = [evolver.update, evolver.grown_total, evolver.dropped_total]
        for group, layers in self.groups.items():
            for name, layer in layers.items():
                state = self.optimizers[group].state[layer.values]
                result += [name, layer.topology.flat.tolist(), layer.values.tolist(), evolver.explored_fraction(name)]
                result += [evolver.initial[name].tolist()]
                result += [state["exp_avg"].tolist(), state["exp_avg_sq"].tolist(), float(state["step"])]
        return result


@pytest.mark.parametrize("keep_regrown", [True, False])
@pytest.mark.parametrize("stop", [1, 2, 5, 11, 20, 22, 25])
def test_a_stored_clock_goes_on_as_if_never_stopped(stop: int, keep_regrown: bool) -> None:
    whole = Run(0, keep_regrown)
    whole.advance(1, stop)
    file = io.BytesIO()
    torch.save(whole.store(), file)
    events_before = len(whole.evolver.events)
    whole.advance(stop + 1, 30)

    file.seek(0)
    resumed = Run(99, keep_regrown)  # another seed: the generators must come from the file
    resumed.load(torch.load(file, weights_only=True))
    assert resumed.evolver.events == []
    resumed.advance(stop + 1, 30)
    assert resumed.everything() == whole.everything()
    assert resumed.evolver.events == whole.evolver.events[events_before:]
    assert (stop >= 25) == (not resumed.evolver.events)


def test_a_stored_clock_does_not_move_with_the_run() -> None:
    run = Run(0, False)
    run.advance(1, 5)
    state = run.evolver.state_dict()
    before = copy.deepcopy(state)
    run.advance(6, 12)
    assert state["generators"] == before["generators"]
    assert (state["update"], state["due"], state["grown_total"]) == (5, before["due"], before["grown_total"])
    for kept in ("explored", "initial"):
        assert all(torch.equal(state[kept][name], before[kept][name]) for name in before[kept])


@pytest.mark.parametrize(
    "groups",
    [
        {"net": ["net.1"]},
        {"net": ["net.0", "net.1"]},
        {"other": ["net.0"]},
        {"net": []},
    ],
)
def test_the_clock_of_another_network_is_refused(groups: dict[str, list[str]]) -> None:
    stored = one_layer(sparse(2, 4, [0, 1]), RewireRule()).state_dict()
    other = TopologyEvolver(
        {group: {name: sparse(2, 4, [0, 1]) for name in names} for group, names in groups.items()},
        RewireRule(),
        seed=0,
    )
    with pytest.raises(TopologyError, match="belongs to a network with other layers"):
        other.load_state_dict(stored)
