"""The conductor: when events fall, what they report, and new weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import assert_sound_change
from support.layers import one_layer, random_layer, recorder, sparse

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import TopologyChange
from sparserl.topology.values import NEW_VALUE, NORMAL, SIGNED

# --- clock ------------------------------------------------------------------------------------------


def test_ds_td3_over_a_million_updates() -> None:
    """925 rewirings at updates 2, 1002, ..., 924002 of both groups, one shrink at 925002, then nothing."""
    groups: dict[str, dict[str, SparseLinear]] = {
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
    assert set(NEW_VALUE) == {"zero", "uniform", "xavier", "sparse_fan_in", "sparse_xavier", *SIGNED, *NORMAL}
    with pytest.raises(TopologyError, match="unknown new value 'unifrm'; did you mean 'uniform'"):
        one_layer(sparse(2, 4, [0]), RewireRule(), new_value="unifrm")


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(TopologyError, match="two layers share a name"):
        TopologyEvolver({"a": {"x": sparse(2, 4, [0])}, "b": {"x": sparse(2, 4, [1])}}, None, seed=0)


def test_layers_of_two_groups_that_were_frozen_at_the_end_are_pruned_when_they_are_trained_again() -> None:
    layers = {group: random_layer(seed) for seed, group in enumerate("ab")}
    goals = {f"{group}.0": layer.nnz // 2 for group, layer in layers.items()}
    config = TopologyConfig(method="gmp", density=0.5, first_update=1, last_update=3, update_interval=1)
    groups = {group: {f"{group}.0": layer} for group, layer in layers.items()}
    evolver, again = (TopologyEvolver(groups, config.rule(), seed=0, goals=goals) for _ in range(2))
    for layer in layers.values():
        layer.requires_grad_(False)
    for update in range(1, 7):
        evolver.begin_update(update)
        assert [evolver.end_update(group) for group in layers] == [[], []]
    again.load_state_dict(evolver.state_dict())
    assert again.state_dict()["passed_by"] == ["a.0", "b.0"]
    for layer in layers.values():
        layer.requires_grad_(True)
    again.begin_update(7)
    assert [event.nnz for group in layers for event in again.end_update(group)] == list(goals.values())
    assert "passed_by" not in again.state_dict()
