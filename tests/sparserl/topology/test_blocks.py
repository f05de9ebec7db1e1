"""Blocks within which connections may grow: 4 x 6 worked by hand; random layers are in test_constraint.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.layers import ints, one_layer, random_layer

from sparserl.errors import TopologyError
from sparserl.topology import block_scores
from sparserl.topology.budget import BUDGET
from sparserl.topology.criteria import GROW
from sparserl.topology.free_positions import OpenPositions, n_open
from sparserl.topology.plan import plan_allocation
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import Constraint, Importance, LayerView, SparseTopology

RNG = np.random.default_rng
Blocks = tuple[tuple[np.ndarray, np.ndarray], ...]

# Outputs 0 and 2 may have inputs 0, 1 and 2, outputs 1 and 3 inputs 3 and 4; nobody has input 5.
BLOCKS: Blocks = ((ints(0, 2), ints(0, 1, 2)), (ints(1, 3), ints(3, 4)))
ALLOWED = [0, 1, 2, 9, 10, 12, 13, 14, 21, 22]
KEPT = [0, 5, 10, 22]  # 5 lies in no block
FREE = [1, 2, 9, 12, 13, 14, 21]
# The gradient, since each sample is one input alone; outside of the blocks it is largest.
GRADIENT = [[1, 5, 3, 9, 9, 9], [9, 9, 9, 4, 5, 9], [2, 2, 5, 9, 9, 9], [9, 9, 9, 6, 1, 9]]


def layer(kept: list[int], blocks: Blocks | None = BLOCKS, closed: tuple[int, ...] = ()) -> LayerView:
    topology = SparseTopology(4, 6, ints(*kept))
    constraint = Constraint(np.zeros(topology.nnz, bool), np.ones(4, bool), ~np.isin(np.arange(6), closed), blocks)
    return LayerView(
        topology,
        np.ones(topology.nnz, np.float32),
        ((np.eye(6), np.array(GRADIENT, float)),),
        constraint,
        Importance(np.ones(topology.nnz), np.array([1.0, 2, 3, 4]), np.array([3.0, 1, 2, 1, 5, 9])),
        np.union1d(topology.flat, ints(2, 12)),
    )


def test_positions_are_numbered_row_by_row_of_all_blocks() -> None:
    room = OpenPositions.of(layer(KEPT))
    assert room.size == 10
    numbers = dict(zip(ALLOWED, range(10), strict=True))
    assert room.numbers(np.arange(24)).tolist() == [numbers.get(position, -1) for position in range(24)]
    assert room.outside(np.arange(10)).tolist() == ALLOWED
    assert room.inside(ints(*KEPT)).tolist() == [0, 4, 9]


def test_closed_neurons_stay_closed_within_blocks() -> None:
    room = OpenPositions.of(layer([], closed=(1, 3, 4)))  # outputs 1 and 3 have no input left
    assert room.outside(np.arange(room.size)).tolist() == [0, 2, 12, 14]
    assert OpenPositions.of(layer([], closed=(0, 1, 2, 3, 4))).size == 0


def test_what_lies_outside_takes_no_room() -> None:
    assert n_open(layer(KEPT), ints(*KEPT)) == 7
    assert n_open(layer([], blocks=()), ints()) == 0
    assert n_open(layer([], blocks=None), ints()) == 24


@pytest.mark.parametrize("entries", [1, 4, 1 << 20])
@pytest.mark.parametrize("grow", GROW)
def test_growth_fills_the_blocks_and_no_more(monkeypatch: pytest.MonkeyPatch, grow: str, entries: int) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", entries)
    for count in range(len(FREE) + 1):
        grown = GROW[grow].choose(layer(KEPT), ints(*KEPT), count, RNG(count))
        assert (grown.size, grown.dtype) == (count, np.int64)
        assert grown.tolist() == sorted(set(grown.tolist()) & set(FREE))
    with pytest.raises(TopologyError, match=r"^cannot choose 8 of 7 free positions$"):
        GROW[grow].choose(layer(KEPT), ints(*KEPT), 8, RNG(0))


@pytest.mark.parametrize("entries", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    ("grow", "order"),
    [
        ("gradient", [21, 1, 14, 9, 2, 12, 13]),  # 6, 5, 5, 4, 3, 2, 2
        ("cosine", [21, 14, 1, 9, 2]),  # the same over the length of the row: 6/19, 5/16.6, 5/16.7, 4/19.1, 3/16.7
        ("neuron_importance", [12, 14, 21, 13, 2, 9, 1]),  # 9, 6, 4, 3, 2, 2, 1
    ],
)
def test_the_best_of_all_blocks(monkeypatch: pytest.MonkeyPatch, grow: str, order: list[int], entries: int) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", entries)
    for count in range(1, len(order) + 1):
        grown = GROW[grow].choose(layer(KEPT), ints(*KEPT), count, RNG(0))
        assert grown.tolist() == sorted(order[:count])


@pytest.mark.parametrize("grow", ["paths", "paths_soft"])
def test_a_path_that_leads_out_of_a_block_does_not_count(grow: str) -> None:
    # Output 2 shares input 0 with output 0, whose other inputs are 1 and 5: paths lead to 13, and to 17 of no block.
    kept = [0, 1, 5, 12]
    grown = GROW[grow].choose(layer(kept), ints(*kept), 2, RNG(0)).tolist()
    assert 13 in grown
    assert set(grown) <= set(ALLOWED) - set(kept)


def test_chance_is_uniform_over_all_blocks() -> None:
    rng, view = RNG(0), layer(KEPT)
    drawn = [GROW["random"].choose(view, ints(*KEPT), 1, rng).item() for _ in range(2100)]
    counts = np.bincount(drawn, minlength=24)[FREE]
    assert counts.sum() == 2100
    assert abs(counts - 300).max() < 80  # five standard deviations


def test_layers_that_share_a_budget_count_the_room_of_blocks() -> None:
    # Of 12, three survivors and one would have 9 and 3; but 8 positions of the first are free after the drop.
    view, other = layer(KEPT), layer([3, 4], blocks=None)
    assert BUDGET["survivors"].grown([view, other], [ints(0), ints(0)], [4, 8]) == [8, 4]


def test_outputs_that_share_inputs_grow_as_one() -> None:
    old = SparseTopology(4, 3, ints(1, 4, 6, 9), pairs=2)
    blocks = (ints(0, 1), ints(0, 1)), (ints(2, 3), ints(2))
    open_neurons = Constraint(np.zeros(4, bool), np.ones(4, bool), np.ones(3, bool), blocks)
    view = LayerView(old, np.ones(4, np.float32), constraint=open_neurons)
    assert plan_allocation(view, 4, RNG(0)).new.flat.tolist() == [0, 1, 3, 4, 6, 8, 9, 11]
    with pytest.raises(TopologyError, match=r"^cannot choose 3 of 2 free positions$"):
        plan_allocation(view, 6, RNG(0))
    split = replace(open_neurons, blocks=((ints(0, 1, 2), ints(0)), (ints(3), ints(1))))
    with pytest.raises(TopologyError, match=r"^outputs 2 to 3 share their inputs: give a block all of them or none$"):
        plan_allocation(replace(view, constraint=split), 2, RNG(0))


def test_an_evolver_grows_within_the_blocks_of_a_learner() -> None:
    layer = random_layer(0)
    n_out, n_in = layer.topology.n_out, layer.topology.n_in
    halves = tuple(
        (half, np.flatnonzero(np.arange(n_in) % 2 == index))
        for index, half in enumerate(np.array_split(np.arange(n_out), 2))
    )
    evolver = one_layer(layer, RewireRule(drop_fraction=0.3, update_interval=1))

    def constrain(view: LayerView) -> LayerView:
        flags = [np.zeros(view.topology.nnz, bool), np.ones(n_out, bool), np.ones(n_in, bool)]
        return replace(view, constraint=Constraint(*flags, halves))

    evolver.set_constraint("net.0", constrain)
    before = layer.topology.flat
    assert evolver.allocate("net.0", 3).grown == 3
    for update in (1, 2, 3):
        evolver.begin_update(update)
        (event,) = evolver.end_update("net")
        assert event.grown == event.dropped > 0
    output, column = np.divmod(np.setdiff1d(layer.topology.flat, before), n_in)
    assert output.size > 0
    assert ((output >= len(halves[0][0])) == (column % 2 == 1)).all()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (((ints(0, 2), ints(0)), (ints(1, 2), ints(1))), "output 2 is in two blocks: give one block all inputs"),
        (((ints(2, 0), ints(0)),), r"outputs of block 0 must be strictly increasing, got \[2, 0\]"),
        (((ints(0), ints(0)), (ints(1), ints(3, 3))), r"inputs of block 1 must be strictly increasing, got \[3, 3\]"),
        (((ints(0, 4), ints(0)),), r"outputs of block 0 must be in \[0, 3\], got 4"),
        (((ints(0), ints(-1, 2)),), r"inputs of block 0 must be in \[0, 5\], got -1"),
    ],
)
def test_blocks_that_are_none_are_refused(blocks: Blocks, message: str) -> None:
    with pytest.raises(TopologyError, match=f"^{message}"):
        layer([], blocks)
