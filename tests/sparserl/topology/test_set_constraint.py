"""What a learner brings: it is asked before every event, an event obeys what it says, and it may plan its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.layers import ints, one_layer, random_layer, sparse, weights

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule, exchange
from sparserl.topology.structure import Constraint, Importance, LayerView


def asking(asked: list[LayerView]) -> Callable[[LayerView], LayerView]:
    """A constraint that changes nothing and remembers what it was shown."""

    def shown(view: LayerView) -> LayerView:
        asked.append(view)
        return view

    return shown


# --- when it is asked -------------------------------------------------------------------------------


def test_the_learner_is_asked_once_before_every_event() -> None:
    layer = random_layer(0)
    rule = RewireRule(drop_fraction=0.2, update_interval=3, last_update=5, shrink_at_end=True)
    evolver = one_layer(layer, rule)
    asked: list[LayerView] = []
    evolver.set_constraint("net.0", asking(asked))
    assert asked == []
    at: list[tuple[int, str]] = []
    for update in range(1, 12):
        evolver.begin_update(update)
        before = layer.topology
        events = evolver.end_update("net")
        assert len(asked) == len(events)  # 1 and 4 rewire, 7 shrinks; no question between events
        if update == 5:
            events = [evolver.allocate("net.0", 3)]
        if update == 6:
            events = [evolver.rewire("net.0")]
        at += [(event.update, event.kind) for event in events]
        assert [view.topology for view in asked] == [before] * len(events)
        assert all(view.values.size == before.nnz for view in asked)
        asked.clear()
    assert at == [(1, "rewire"), (4, "rewire"), (5, "allocate"), (6, "rewire"), (7, "shrink")]


def test_each_layer_has_a_constraint_of_its_own_and_the_last_one_counts() -> None:
    layers = {name: random_layer(seed) for seed, name in enumerate(("a", "b", "c"))}
    evolver = TopologyEvolver({"net": layers}, RewireRule(), seed=0)
    first, a, b = [], [], []  # type: list[LayerView], list[LayerView], list[LayerView]
    evolver.set_constraint("a", asking(first))
    evolver.set_constraint("a", asking(a))
    evolver.set_constraint("b", asking(b))
    evolver.begin_update(1)
    assert len(evolver.end_update("net")) == 3  # c has none
    assert first == []
    assert [view.topology.flat.tolist() for view in a] == [random_layer(0).topology.flat.tolist()]
    assert [view.topology.flat.tolist() for view in b] == [random_layer(1).topology.flat.tolist()]


def test_a_constraint_that_adds_nothing_changes_nothing() -> None:
    plain, constrained = random_layer(0), random_layer(0)
    rule = RewireRule("signed_magnitude", "random", 0.3, update_interval=1)
    for layer, evolver in ((plain, one_layer(plain, rule)), (constrained, one_layer(constrained, rule))):
        if layer is constrained:
            evolver.set_constraint("net.0", lambda view: view)
        evolver.allocate("net.0", 4, "xavier")
        for update in range(1, 4):
            evolver.begin_update(update)
            evolver.end_update("net")
    assert constrained.topology.flat.tolist() == plain.topology.flat.tolist()
    assert constrained.values.tolist() == plain.values.tolist()


def test_a_constraint_of_an_unknown_layer_is_refused() -> None:
    with pytest.raises(KeyError):
        one_layer(random_layer(0), None).set_constraint("net.1", lambda view: view)


# --- events obey it ---------------------------------------------------------------------------------

# Connections 0, 1, 4 and 6, |w| in order: 4, 0, 1, 6. The first two are frozen, input 3 is closed.
WEIGHTS = {0: -0.2, 1: 0.3, 4: 0.1, 6: 4.0}


def constrain(view: LayerView) -> LayerView:
    constraint = Constraint(np.isin(view.topology.flat, [0, 4]), np.ones(2, bool), np.array([True, True, True, False]))
    return dataclasses.replace(view, constraint=constraint)


def constrained(rule: RewireRule | None) -> tuple[SparseLinear, TopologyEvolver]:
    layer = sparse(2, 4, list(WEIGHTS), list(WEIGHTS.values()))
    evolver = one_layer(layer, rule)
    evolver.set_constraint("net.0", constrain)
    return layer, evolver


def test_a_rewire_on_the_clock_obeys_the_learner() -> None:
    # int(.5 * 2) = 1 of what is not frozen: position 1. Free in the open block: 1, 2 and 5.
    layer, evolver = constrained(RewireRule("weight_magnitude", "random", 0.5))
    evolver.begin_update(1)
    (event,) = evolver.end_update("net")
    (new,) = set(layer.topology.flat.tolist()) - {0, 4, 6}
    assert new in {1, 2, 5}
    assert weights(layer) == pytest.approx({0: -0.2, 4: 0.1, 6: 4.0, new: 0.0})
    assert event == TopologyEvent(1, "net.0", "rewire", 4, 8, grown=1, dropped=1, explored=4 + (new != 1))


def test_a_rewire_now_obeys_the_learner_whatever_the_clock_says() -> None:
    rule = RewireRule("weight_magnitude", "random", 0.9, first_update=1000)
    layer, evolver = constrained(rule)
    evolver.begin_update(3)
    assert evolver.end_update("net") == []
    for _ in range(20):
        event = evolver.rewire("net.0")
        assert (event.update, event.kind, event.nnz, event.grown, event.dropped) == (3, "rewire", 4, 1, 1)
        assert set(layer.topology.flat.tolist()) <= {0, 1, 2, 4, 5, 6}
        assert (weights(layer)[0], weights(layer)[4]) == pytest.approx((-0.2, 0.1))
    assert evolver.events[-1].explored == 6
    assert evolver.grown_total == evolver.dropped_total == {"net.0": 20}
    evolver.begin_update(1000)
    assert len(evolver.end_update("net")) == 1  # the clock is as it was


def test_a_shrink_obeys_the_learner() -> None:
    layer, evolver = constrained(RewireRule("weight_magnitude", "random", 0.5, last_update=0, shrink_at_end=True))
    evolver.begin_update(1)
    assert evolver.end_update("net") == [TopologyEvent(1, "net.0", "shrink", 3, 8, grown=0, dropped=1, explored=4)]
    assert weights(layer) == pytest.approx({0: -0.2, 4: 0.1, 6: 4.0})


def test_an_allocation_obeys_the_learner() -> None:
    layer, evolver = constrained(None)
    with pytest.raises(TopologyError, match=r"^cannot choose 3 of 2 free positions$"):
        evolver.allocate("net.0", 3)
    event = evolver.allocate("net.0", 2)
    assert event == TopologyEvent(0, "net.0", "allocate", 6, 8, grown=2, dropped=0, explored=6)
    assert weights(layer) == pytest.approx({**WEIGHTS, 2: 0.0, 5: 0.0})


def test_a_learner_measures_what_a_criterion_needs() -> None:
    # The least important go, whatever their weight: int(.5 * 4) = 2, positions 4 and 6.
    # Products [[8, 2, 6, 4], [4, 1, 3, 2]]; free but for those: 2 and 3 are best.
    layer = sparse(2, 4, list(WEIGHTS), list(WEIGHTS.values()))
    evolver = one_layer(layer, RewireRule("connection_importance", "neuron_importance", 0.5))
    importance = Importance(np.array([5.0, 4.0, 3.0, 2.0]), np.array([2.0, 1.0]), np.array([4.0, 1.0, 3.0, 2.0]))
    with pytest.raises(TopologyError, match="needs a learner that measures it"):
        evolver.rewire("net.0")
    evolver.set_constraint("net.0", lambda view: dataclasses.replace(view, importance=importance))
    evolver.rewire("net.0")
    assert weights(layer) == pytest.approx({0: -0.2, 1: 0.3, 2: 0.0, 3: 0.0})


def test_a_change_that_the_learner_planned() -> None:
    # Positions 1 and 4 go, 3 and 5 grow; the constraint is of plans, and this one is made.
    layer, evolver = constrained(None)
    followed: list[Any] = []
    evolver.follow("net.0", lambda change, grown_values: followed.append((change, grown_values)))
    evolver.begin_update(8)
    change = exchange(layer.topology, ints(1, 2), ints(3, 5))
    event = evolver.apply("net.0", change, "prune", np.array([7.0, 8.0], np.float32))
    assert event == TopologyEvent(8, "net.0", "prune", 4, 8, grown=2, dropped=2, explored=6)
    assert evolver.events[1:] == [event]
    assert (evolver.grown_total, evolver.dropped_total) == ({"net.0": 2}, {"net.0": 2})
    assert weights(layer) == pytest.approx({0: -0.2, 3: 7.0, 5: 8.0, 6: 4.0})
    assert [(seen is change, values.tolist()) for seen, values in followed] == [(True, [7.0, 8.0])]
    evolver.apply("net.0", exchange(layer.topology, ints(), ints(1)), "back")
    assert weights(layer) == pytest.approx({0: -0.2, 1: 0.0, 3: 7.0, 5: 8.0, 6: 4.0})
    assert evolver.events[-1].explored == 6


def test_without_a_rule_nothing_is_rewired() -> None:
    layer = random_layer(0)
    evolver = one_layer(layer, None)
    with pytest.raises(TopologyError, match="can only be rewired by a rule") as refused:
        evolver.rewire("net.0")
    assert "\n" not in str(refused.value)
    assert [event.kind for event in evolver.events] == ["initial"]


# --- off the clock ----------------------------------------------------------------------------------


def test_a_stopped_group_changes_only_when_asked_to_and_by_the_rule_that_is_given() -> None:
    layers = {name: {f"{name}.0": random_layer(seed)} for seed, name in enumerate(("a", "b"))}
    evolver = TopologyEvolver(layers, RewireRule(update_interval=1), seed=0)
    evolver.stop("a")
    for update in (1, 2):
        evolver.begin_update(update)
        assert [event.layer for group in ("a", "b") for event in evolver.end_update(group)] == ["b.0"]
    assert evolver.rewire("a.0", RewireRule(drop_fraction=0.5)).dropped == 10
    again = TopologyEvolver(layers, RewireRule(update_interval=1), seed=0)
    again.load_state_dict(evolver.state_dict())
    again.begin_update(3)
    assert again.end_update("a") == []


def test_pruning_cannot_be_stopped_half_way() -> None:
    rule = RewireRule(density_schedule="cubic", last_update=9)
    evolver = one_layer(random_layer(0), rule, goals={"net.0": 4})
    with pytest.raises(TopologyError, match="pruned by a schedule"):
        evolver.stop("net")
