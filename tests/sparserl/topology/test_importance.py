"""Criteria by importance: one event of SpaceNet and 8-slot layers worked by hand, then the dense oracle and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from oracle.dense_topology import importance_growth, mask_of, topology_of
from support.layers import ints
from support.plans import BOTH, plan_rewire

from sparserl.errors import TopologyError
from sparserl.topology import block_scores
from sparserl.topology.criteria import DROP, GROW, connection_importance
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import Constraint, Importance, LayerView, SparseTopology

RNG = np.random.default_rng


# --- drop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "slots"),
    [
        (0.0, []),
        (0.12, []),  # int(0.96)
        (0.125, [3]),
        (0.25, [0, 3]),  # the lower of two equals
        (0.375, [0, 3, 6]),
        (0.5, [0, 3, 6, 7]),
        (0.99, [0, 1, 3, 4, 5, 6, 7]),
    ],
)
def test_the_least_important_of_8_slots_go_whatever_their_weight(fraction: float, slots: list[int]) -> None:
    importance = Importance(np.array([1.0, 6.0, 9.0, 0.0, 5.0, 7.0, 1.0, 2.0]), np.ones(2), np.ones(4))
    weights = np.array([9.0, 0.0, 0.1, -9.0, 0.0, 0.2, 8.0, 8.0], np.float32)
    view = LayerView(SparseTopology(2, 4, np.arange(8)), weights, importance=importance)
    dropped = connection_importance(view, fraction)
    assert dropped.tolist() == slots
    assert dropped.dtype == np.int64


# --- grow -------------------------------------------------------------------------------------------

# Products [[2, 0, 6, 4], [3, 0, 9, 6]]; connections 0, 3 and 6, of which the event dropped some.
A_OUT, A_IN = np.array([2.0, 3.0], np.float32), np.array([1.0, 0.0, 3.0, 2.0], np.float32)
OLD = SparseTopology(2, 4, ints(0, 3, 6))


def grow(importance: Importance, topology: SparseTopology, kept: np.ndarray, count: int) -> list[int]:
    view = LayerView(topology, np.ones(topology.nnz, np.float32), importance=importance)
    grown = GROW["neuron_importance"].choose(view, kept, count, RNG(0))
    assert grown.dtype == np.int64
    return grown.tolist()


@pytest.mark.parametrize(
    ("kept", "count", "grown"),
    [
        ([0, 3, 6], 0, []),
        ([0, 3, 6], 1, [2]),  # 6 twice: the lower position
        ([0, 3, 6], 2, [2, 7]),
        ([0, 3, 6], 3, [2, 4, 7]),
        ([0, 3, 6], 4, [1, 2, 4, 7]),  # 0 twice; a product of 0 may grow
        ([0, 3, 6], 5, [1, 2, 4, 5, 7]),
        ([0, 3], 1, [2]),  # 9 at position 6 is the highest, but just dropped
        ([0, 3], 5, [1, 2, 4, 5, 7]),
        ([0, 3], 6, [1, 2, 4, 5, 6, 7]),  # nothing else is free
        ([3], 5, [1, 2, 4, 5, 7]),
        ([3], 6, [0, 1, 2, 4, 5, 7]),  # of the dropped 0 and 6 the lower position, not the higher product
        ([3], 7, [0, 1, 2, 4, 5, 6, 7]),
        ([], 5, [1, 2, 4, 5, 7]),
        ([], 7, [0, 1, 2, 3, 4, 5, 7]),
        ([], 8, list(range(8))),
    ],
)
@pytest.mark.parametrize("block", [1, 4, 7, 8, 1 << 20])
def test_growth_by_neuron_importance_of_8_slots(
    monkeypatch: pytest.MonkeyPatch, block: int, kept: list[int], count: int, grown: list[int]
) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", block)
    assert grow(Importance(np.ones(3), A_OUT, A_IN), OLD, ints(*kept), count) == grown


@pytest.mark.parametrize("kept", [[0, 3, 6], [0, 3], []])
def test_no_more_grows_than_is_free(kept: list[int]) -> None:
    free = 8 - len(kept)
    with pytest.raises(TopologyError, match=f"^cannot choose {free + 1} of {free} free positions$"):
        grow(Importance(np.ones(3), A_OUT, A_IN), OLD, ints(*kept), free + 1)


def test_before_anything_is_measured_the_lowest_positions_grow() -> None:
    nothing = Importance(np.zeros(3), np.zeros(2), np.zeros(4))
    assert grow(nothing, OLD, ints(0, 3, 6), 2) == [1, 2]
    assert grow(nothing, OLD, ints(3, 6), 3) == [1, 2, 4]  # not 0, which was just dropped


@pytest.mark.parametrize(
    ("outputs", "inputs", "best"),
    [
        ([1e-30, 2e-30], [1e-30, 3e-30], [3, 1, 2, 0]),  # in single precision all are 0: squares of small gradients
        ([2.0, 2.0 + 2**-22], [1.0 + 2**-22, 1.0 + 2**-23], [2, 3, 0, 1]),  # ... positions 0 and 3 are equal
    ],
)
def test_products_are_compared_in_double_precision(outputs: list[float], inputs: list[float], best: list[int]) -> None:
    sides = (np.array(side, np.float32) for side in (outputs, inputs))
    importance = Importance(np.empty(0), *sides)
    for count in range(1, 5):
        assert grow(importance, SparseTopology(2, 2, ints()), ints(), count) == sorted(best[:count])


@pytest.mark.parametrize("block", [1, 3, 7, 20, 1 << 20])
def test_growth_by_neuron_importance_is_the_dense_argsort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", block)
    rng = RNG(block)
    for _ in range(60):
        n_out, n_in = rng.integers(1, 9, 2)
        outputs, inputs = rng.integers(0, 4, n_out).astype(np.float32), rng.integers(0, 4, n_in).astype(np.float32)
        topology = topology_of(rng.random((n_out, n_in)) < rng.random())
        kept = topology.flat[rng.random(topology.nnz) < rng.random()]
        kept_mask = mask_of(SparseTopology(n_out, n_in, kept))
        dropped = mask_of(topology) & ~kept_mask
        count = int(rng.integers(0, n_out * n_in - kept.size + 1))
        found = grow(Importance(np.ones(topology.nnz), outputs, inputs), topology, kept, count)
        assert found == importance_growth(outputs, inputs, kept_mask, dropped, count)


def test_growth_by_neuron_importance_never_holds_all_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", 10_000)
    rng = RNG(0)
    n_out, n_in = 2000, 1000
    topology = SparseTopology(n_out, n_in, np.sort(rng.choice(n_out * n_in, 2000, replace=False)))
    outputs, inputs = rng.random(n_out), rng.random(n_in)
    tracemalloc.start()
    grown = grow(Importance(np.ones(2000), outputs, inputs), topology, topology.flat, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000  # all products take 16,000,000
    product = np.outer(outputs, inputs).ravel()
    product[topology.flat] = -1
    assert set(grown) == set(np.argsort(-product)[:100].tolist())


# --- SpaceNet's event -------------------------------------------------------------------------------


def spacenet_view() -> LayerView:
    """Connections 0, 2, 3, 5 and 7 of a 2 x 4 layer; an earlier task owns the first, and reserved input 0."""
    return LayerView(
        SparseTopology(2, 4, ints(0, 2, 3, 5, 7)),
        np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32),
        constraint=Constraint(np.array([True, *[False] * 4]), np.ones(2, bool), np.array([False, True, True, True])),
        importance=Importance(
            np.array([0.0, 7.0, 1.0, 2.0, 9.0]), np.array([8.0, 11.0]), np.array([0.0, 2.0, 7.0, 10.0])
        ),
    )


def test_one_event_of_spacenet() -> None:
    # int(.5 * 4) = 2 go: positions 3 (importance 1) and 5 (2); the frozen 0 is not counted and not in question.
    # Free of closed inputs, of 2 and 7 and of what just went: 1 (8 * 2 = 16) and 6 (11 * 7 = 77).
    rule = RewireRule("connection_importance", "neuron_importance", 0.5)
    change = plan_rewire(rule, spacenet_view(), 1, RNG(0))
    assert change.new.flat.tolist() == [0, 1, 2, 6, 7]
    assert change.source.tolist() == [0, -1, 1, -1, 4]
    # With int(.25 * 4) = 1 only 3 goes, and 6 takes its place.
    rule = RewireRule("connection_importance", "neuron_importance", 0.25)
    assert plan_rewire(rule, spacenet_view(), 1, RNG(0)).new.flat.tolist() == [0, 2, 5, 6, 7]


@pytest.mark.parametrize("keep_regrown", [True, False])
def test_what_just_went_comes_back_only_where_nothing_else_is_free(keep_regrown: bool) -> None:
    # int(.8 * 4) = 3 go: 3, 5 and 2. Open and free: 1 and 6, then 2, 3 and 5 of which the lowest position is first.
    rule = RewireRule("connection_importance", "neuron_importance", 0.8, keep_regrown=keep_regrown)
    change = plan_rewire(rule, spacenet_view(), 1, RNG(0))
    assert change.new.flat.tolist() == [0, 1, 2, 6, 7]
    assert change.source.tolist() == [0, -1, 1 if keep_regrown else -1, -1, 4]


def test_one_event_of_afaf() -> None:
    # 3 and 5 go as above. Free are 1 (8 * 2 = 16), 3 (8 * 10 = 80), 5 (11 * 2 = 22) and 6 (77): 3 comes back, with 6.
    for keep_regrown in (True, False):
        rule = RewireRule("connection_importance", "neuron_importance_any", 0.5, keep_regrown=keep_regrown)
        change = plan_rewire(rule, spacenet_view(), 1, RNG(0))
        assert change.new.flat.tolist() == [0, 2, 3, 6, 7]
        assert change.source.tolist() == [0, 1, 2 if keep_regrown else -1, -1, 4]


# --- who measures -----------------------------------------------------------------------------------


BY_NEURONS = {"neuron_importance", "neuron_importance_any"}


def test_which_criteria_need_importances() -> None:
    assert {name for name, rule in DROP.items() if rule.needs_importance} == {"connection_importance"}
    assert {name for name, rule in GROW.items() if rule.needs_importance} == BY_NEURONS


@pytest.mark.parametrize(("drop", "grow"), BOTH)
def test_a_rule_needs_what_either_criterion_needs(drop: str, grow: str) -> None:
    needs = drop == "connection_importance" or grow in BY_NEURONS
    assert RewireRule(drop, grow).needs_importance is needs


@pytest.mark.parametrize(
    ("drop", "grow"), [("connection_importance", "random"), ("weight_magnitude", "neuron_importance")]
)
def test_importances_that_nobody_measured_are_refused(drop: str, grow: str) -> None:
    view = LayerView(OLD, np.ones(3, np.float32))
    with pytest.raises(TopologyError, match="needs a learner that measures it, such as SpaceNet") as refused:
        plan_rewire(RewireRule(drop, grow, 0.5), view, 1, RNG(0))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["connections", "outputs", "inputs"])
def test_an_importance_that_is_not_finite_is_refused(part: str, bad: float) -> None:
    parts = {"connections": np.ones(2), "outputs": np.ones(2), "inputs": np.ones(4)}
    parts[part][1] = bad
    view = LayerView(SparseTopology(2, 4, np.array([0, 3])), np.ones(2, np.float32), importance=Importance(**parts))
    with pytest.raises(TopologyError, match="an importance is NaN or infinite"):
        DROP["connection_importance"].choose(view, 0.5)
    with pytest.raises(TopologyError, match="an importance is NaN or infinite"):
        GROW["neuron_importance"].choose(view, view.topology.flat, 2, np.random.default_rng(0))
