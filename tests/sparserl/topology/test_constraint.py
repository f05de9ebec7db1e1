"""What an event may not touch: 8-slot layers worked by hand for every criterion, then invariants over random layers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from oracle.dense_topology import (
    allowed_by,
    assert_sound_change,
    drop_of,
    fisher_saliencies,
    gradient_growth,
    importance_growth,
    mask_of,
    topology_of,
)
from support.layers import ints
from support.plans import BOTH, go_together, plan_rewire, plan_shrink

from sparserl.errors import TopologyError
from sparserl.topology import block_scores
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.rewire import RewireRule, remap
from sparserl.topology.structure import Constraint, Importance, LayerView, SparseTopology

RNG = np.random.default_rng
OPEN = (True, True, True, True)


# --- what is frozen stays ---------------------------------------------------------------------------


def frozen_at(slots: list[int], values: list[float]) -> LayerView:
    """A layer of one output whose connections all exist; |value| is also the importance of a connection."""
    frozen = np.zeros(len(values), bool)
    frozen[slots] = True
    return LayerView(
        SparseTopology(1, len(values), np.arange(len(values))),
        np.array(values, np.float32),
        constraint=Constraint(frozen, np.ones(1, bool), np.ones(len(values), bool)),
        importance=Importance(np.abs(values), np.ones(1), np.ones(len(values))),
    )


# |w| in order: slot 6, 1, then 4 and 5 as equals, 2, 0, 3, 7. Slots 6 and 1 are frozen, so 6 connections may go.
MIXED = [0.5, -0.1, 0.3, -0.7, 0.2, -0.2, 0.0, 0.9]


@pytest.mark.parametrize("name", ["weight_magnitude", "connection_importance"])
@pytest.mark.parametrize(
    ("fraction", "slots"),
    [
        (0.0, []),
        (0.16, []),  # int(0.96); of all 8 it would be one
        (0.17, [4]),  # int(1.02)
        (0.34, [4, 5]),  # int(2.04)
        (0.5, [2, 4, 5]),  # of all 8 it would be four
        (0.99, [0, 2, 3, 4, 5]),  # int(5.94)
    ],
)
def test_the_lowest_of_what_is_not_frozen(name: str, fraction: float, slots: list[int]) -> None:
    dropped = DROP[name].choose(frozen_at([1, 6], MIXED), fraction)
    assert dropped.tolist() == slots
    assert dropped.dtype == np.int64


@pytest.mark.parametrize(
    ("fraction", "slots"),
    [
        # Without slots 1 and 4: -5 -3 2 4 6 8, f = 2, q = 3 of n = 6.
        (0.05, [0, 5, 6]),  # v[int(1.9)] = -3, v[int(3.15)] = 4
        (0.25, [0, 5, 6]),  # v[int(1.5)] = -3, v[int(3.75)] = 4
        (0.5, [0, 5, 6, 7]),  # v[int(1.0)] = -3, v[int(4.5)] = 6
        (0.9, [0, 2, 3, 5, 6, 7]),  # v[int(.2)] = -5, v[min(5, int(5.7))] = 8
    ],
)
def test_sets_rule_sees_only_what_is_not_frozen(fraction: float, slots: list[int]) -> None:
    view = frozen_at([1, 4], [4.0, -1.5, 8.0, -5.0, 1.0, 2.0, -3.0, 6.0])
    dropped = DROP["signed_magnitude"].choose(view, fraction)
    assert dropped.tolist() == slots
    assert dropped.dtype == np.int64


@pytest.mark.parametrize("name", DROP)
def test_a_layer_that_is_all_frozen_loses_nothing(name: str) -> None:
    view = frozen_at(list(range(8)), MIXED)
    n_out, n_in = view.topology.n_out, view.topology.n_in
    view = replace(view, samples=((np.ones((n_in, 1)), np.ones((n_out, 1))),))
    assert view.droppable.tolist() == []
    assert DROP[name].choose(view, 0.9).tolist() == []
    assert DROP[name].choose(view, 0.9).dtype == np.int64
    shrunk = plan_shrink(RewireRule(name, "random", 0.9), view, 1)
    assert shrunk.source.tolist() == list(range(8))


@pytest.mark.parametrize(("drop", "grow"), BOTH)
def test_a_rewire_of_a_layer_that_is_all_frozen_changes_nothing(drop: str, grow: str) -> None:
    view = growing(OPEN[:2], OPEN, [0, 3, 6], frozen=True)
    change = plan_rewire(RewireRule(drop, grow, 0.9), view, 1, RNG(0))
    assert (change.new.flat.tolist(), change.source.tolist()) == ([0, 3, 6], [0, 1, 2])


def test_droppable_slots() -> None:
    view = frozen_at([1, 6], MIXED)
    assert view.droppable.tolist() == [0, 2, 3, 4, 5, 7]
    assert LayerView(view.topology, view.values).droppable.tolist() == list(range(8))
    assert LayerView(SparseTopology(1, 1, ints()), np.empty(0)).droppable.tolist() == []


def test_a_shrink_counts_what_is_not_frozen() -> None:
    change = plan_shrink(RewireRule("weight_magnitude", "random", 0.5), frozen_at([1, 6], MIXED), 1)
    assert change.source.tolist() == [0, 1, 3, 6, 7]
    assert (change.grown, change.dropped) == (0, 3)


# --- closed neurons get nothing ---------------------------------------------------------------------

# dW = dy x^T = [[1, 5, 2, 0], [3, 4, 6, 2]]; products of importances [[2, 6, 10, 4], [1, 3, 5, 2]].
X = np.array([[1.0, 3.0], [5.0, 4.0], [2.0, 6.0], [0.0, 2.0]], np.float32)
DY = np.eye(2, dtype=np.float32)
A_OUT, A_IN = np.array([2.0, 1.0], np.float32), np.array([1.0, 3.0, 5.0, 2.0], np.float32)


def growing(open_out: tuple[bool, ...], open_in: tuple[bool, ...], flat: list[int], frozen: bool = False) -> LayerView:
    topology = SparseTopology(2, 4, ints(*flat))
    return LayerView(
        topology,
        np.ones(topology.nnz, np.float32),
        ((X, DY),),
        Constraint(np.full(topology.nnz, frozen), np.array(open_out), np.array(open_in)),
        Importance(np.ones(topology.nnz), A_OUT, A_IN),
        np.union1d(topology.flat, ints(2, 6)),
    )


BLOCKS: list[tuple[Any, ...]] = [
    (OPEN[:2], OPEN, [0, 5], [1, 2, 3, 4, 6, 7]),
    ((True, False), OPEN, [0, 5], [1, 2, 3]),
    ((False, True), OPEN, [0, 5], [4, 6, 7]),
    (OPEN[:2], (False, True, False, True), [0, 5], [1, 3, 7]),
    (OPEN[:2], (True, True, True, False), [], [0, 1, 2, 4, 5, 6]),
    ((False, True), (True, False, False, True), [0, 5], [4, 7]),
    ((True, False), (False, False, True, False), [0, 1, 3], [2]),
    ((True, False), (False, True, False, False), [1, 6], []),  # full
    ((False, False), OPEN, [0, 5], []),
    (OPEN[:2], (False, False, False, False), [0, 5], []),
    ((False, False), (False, False, False, False), [], []),
]


@pytest.mark.parametrize("grow", GROW)
@pytest.mark.parametrize("block", [1, 4, 1 << 20])
@pytest.mark.parametrize(("open_out", "open_in", "kept", "free"), BLOCKS)
def test_growth_fills_the_open_block_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
    grow: str,
    block: int,
    open_out: tuple[bool, ...],
    open_in: tuple[bool, ...],
    kept: list[int],
    free: list[int],
) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", block)
    view = growing(open_out, open_in, kept)
    for count in range(len(free) + 1):
        grown = GROW[grow].choose(view, ints(*kept), count, RNG(count))
        assert set(grown.tolist()) <= set(free)
        assert grown.tolist() == sorted(set(grown.tolist()))
        assert (grown.size, grown.dtype) == (count, np.int64)
    with pytest.raises(TopologyError) as refused:
        GROW[grow].choose(view, ints(*kept), len(free) + 1, RNG(0))
    assert str(refused.value) == f"cannot choose {len(free) + 1} of {len(free)} free positions"


@pytest.mark.parametrize(
    ("grow", "best"),
    [("gradient", [[5], [4, 5], [4, 5, 7]]), ("neuron_importance", [[5], [5, 7], [4, 5, 7]])],
)
def test_the_best_of_the_open_block(grow: str, best: list[list[int]]) -> None:
    # Row 0 and input 2 hold the highest scores of both kinds, and are closed.
    view = growing((False, True), (True, True, False, True), [])
    for count, expected in enumerate(best, 1):
        assert GROW[grow].choose(view, ints(), count, RNG(0)).tolist() == expected


@pytest.mark.parametrize("grow", GROW)
def test_growth_writes_to_nothing_that_it_is_shown(grow: str) -> None:
    view, kept = growing((True, False), (True, True, False, True), [0, 1, 5]), ints(0, 5)
    before = copy.deepcopy((view, kept))
    GROW[grow].choose(view, kept, 2, RNG(0))
    assert repr((view, kept)) == repr(before)


@pytest.mark.parametrize(("drop", "grow"), BOTH)
def test_a_constraint_that_forbids_nothing_changes_nothing(drop: str, grow: str) -> None:
    rng = RNG(3)
    for seed in range(20):
        n_out, n_in = rng.integers(1, 7, 2)
        topology = topology_of(rng.random((n_out, n_in)) < 0.5)
        values = rng.standard_normal(topology.nnz).astype(np.float32)
        samples = ((rng.standard_normal((n_in, 2)), rng.standard_normal((n_out, 2))),)
        importance = Importance(rng.random(topology.nnz), rng.random(n_out), rng.random(n_in))
        constraint = Constraint(np.zeros(topology.nnz, bool), np.ones(n_out, bool), np.ones(n_in, bool))
        rule = RewireRule(drop, grow, 0.5)
        explored = np.union1d(topology.flat, rng.integers(0, n_out * n_in, 5))
        free = plan_rewire(rule, LayerView(topology, values, samples, None, importance, explored), 1, RNG(seed))
        same = plan_rewire(rule, LayerView(topology, values, samples, constraint, importance, explored), 1, RNG(seed))
        assert same.source.tolist() == free.source.tolist()
        assert same.new.flat.tolist() == free.new.flat.tolist()


# --- invariants -------------------------------------------------------------------------------------


def some_blocks(rng: np.random.Generator, n_out: int, n_in: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Up to three blocks of random neurons; some outputs are in none."""
    owner = rng.integers(0, 4, n_out)
    return tuple((np.flatnonzero(owner == block), np.flatnonzero(rng.random(n_in) < 0.6)) for block in range(3))


@st.composite
def constrained(draw: st.DrawFn) -> LayerView:
    topology = topology_of(draw(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6)))))
    sizes = (topology.nnz, topology.n_out, topology.n_in)
    flags = [draw(hnp.arrays(np.bool_, size, fill=st.nothing())) for size in sizes]
    rng = RNG(draw(st.integers(0, 2**32 - 1)))

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape).astype(np.float32)  # exact products, many ties

    return LayerView(
        topology,
        numbers(topology.nnz),
        ((numbers(topology.n_in, 2), numbers(topology.n_out, 2)),),
        Constraint(
            flags[0],
            flags[1] | (rng.random(topology.n_out) < 0.5),
            flags[2] | (rng.random(topology.n_in) < 0.5),
            some_blocks(rng, topology.n_out, topology.n_in) if draw(st.booleans()) else None,
        ),
        Importance(*(np.abs(numbers(size)) for size in sizes)),
        np.union1d(topology.flat, rng.integers(0, topology.size, topology.size // 3)),
    )


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    view=constrained(),
    drop=st.sampled_from(sorted(DROP)),
    grow=st.sampled_from(sorted(GROW)),
    fraction=st.sampled_from([0.05, 0.25, 0.5, 0.9]),
    keep_regrown=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_invariants_of_a_constrained_rewire(
    view: LayerView, drop: str, grow: str, fraction: float, keep_regrown: bool, seed: int
) -> None:
    assume(go_together(drop, grow))
    old, constraint, importance = view.topology, view.constraint, view.importance
    assert constraint is not None
    assert importance is not None
    may_go = [slot for slot in range(old.nnz) if not constraint.frozen[slot]]
    saliencies = np.array(fisher_saliencies(old, view.values, *view.samples[0]))[may_go].tolist()
    chosen = drop_of(drop, view.values[may_go].tolist(), importance.connections[may_go].tolist(), fraction, saliencies)
    dropped = [may_go[i] for i in chosen]
    kept = mask_of(SparseTopology(old.n_out, old.n_in, np.delete(old.flat, dropped)))
    closed = ~allowed_by(constraint)
    free = int((~kept & ~closed).sum())
    rule = RewireRule(drop, grow, drop_fraction=fraction, keep_regrown=keep_regrown)
    if free < len(dropped):  # what went from closed neurons cannot come back
        with pytest.raises(TopologyError, match=f"^cannot choose {len(dropped)} of {free} free positions$"):
            plan_rewire(rule, view, 1, RNG(seed))
        return

    change = plan_rewire(rule, view, 1, RNG(seed))
    assert_sound_change(change)
    change.check_valid()
    assert change.new.nnz == old.nnz
    assert set(np.flatnonzero(constraint.frozen).tolist()) <= set(change.source.tolist())
    now = mask_of(change.new)
    assert now[kept].all()
    grown = now & ~kept
    assert not (grown & closed).any()
    if grow == "gradient":
        ((x, dy),) = view.samples
        assert np.flatnonzero(grown).tolist() == gradient_growth(dy @ x.T, kept | closed, len(dropped))
    if grow in ("neuron_importance", "neuron_importance_any"):
        gone = mask_of(old) & ~kept & (grow == "neuron_importance")
        expected = importance_growth(importance.outputs, importance.inputs, kept | closed, gone, len(dropped))
        assert np.flatnonzero(grown).tolist() == expected

    bits = RNG(seed).integers(0, 2**32, old.nnz, dtype=np.uint32)  # NaN, infinities and subnormals among them
    moved = dict(zip(change.new.flat.tolist(), remap(bits.view(np.float32), change, 7.5).view(np.uint32), strict=True))
    assert all(moved[int(old.flat[slot])] == bits[slot] for slot in np.flatnonzero(constraint.frozen))
