"""Growth where nothing ever was: sets worked by hand, uniformity, cost, and who remembers what was explored."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from support.layers import ints
from support.plans import plan_rewire

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.criteria import GROW
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

RNG = np.random.default_rng
choose = GROW["random_unfired"].choose


def seen(*explored: int, constraint: Constraint | None = None) -> LayerView:
    """A 2 x 4 layer with connections 1 and 6 that once had others."""
    topology = SparseTopology(2, 4, ints(1, 6))
    return LayerView(topology, np.ones(2, np.float32), constraint=constraint, explored=ints(*explored))


@pytest.mark.parametrize(
    ("explored", "count", "certain", "possible"),
    [
        ([1, 6], 0, [], []),
        ([1, 6], 3, [], [0, 2, 3, 4, 5, 7]),
        ([1, 6], 6, [0, 2, 3, 4, 5, 7], []),
        ([0, 1, 4, 6, 7], 2, [], [2, 3, 5]),
        ([0, 1, 4, 6, 7], 3, [2, 3, 5], []),
        ([0, 1, 4, 6, 7], 4, [2, 3, 5], [0, 4, 7]),
        ([0, 1, 4, 6, 7], 6, [2, 3, 5, 0, 4, 7], []),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, [], [0, 2, 3, 4, 5, 7]),
    ],
)
def test_unfired_positions_come_first(explored: list[int], count: int, certain: list[int], possible: list[int]) -> None:
    for seed in range(20):
        grown = choose(seen(*explored), ints(1, 6), count, RNG(seed))
        assert grown.dtype == np.int64
        assert grown.tolist() == sorted(set(grown.tolist()))
        assert grown.size == count
        assert set(certain) <= set(grown.tolist()) <= set(certain) | set(possible)


def test_what_was_just_dropped_has_been_fired() -> None:
    # Position 1 goes; 2, 3 and 5 were never there.
    for seed in range(20):
        assert choose(seen(0, 1, 4, 6, 7), ints(6), 1, RNG(seed)).item() in {2, 3, 5}
    assert 1 in {int(p) for seed in range(40) for p in choose(seen(*range(8)), ints(6), 2, RNG(seed))}


@pytest.mark.parametrize(("explored", "count"), [([0, 1, 6], 2), ([0, 1, 2, 3, 4, 6], 4)])
def test_every_set_is_as_likely(explored: list[int], count: int) -> None:
    rng, draws = RNG(1), 3000
    found = Counter(tuple(choose(seen(*explored), ints(1, 6), count, rng).tolist()) for _ in range(draws))
    # Two of {2, 3, 4, 5, 7}; and 5 and 7 with two of {0, 2, 3, 4}.
    sets = 10 if count == 2 else 6
    assert len(found) == sets
    expected = draws / sets
    assert sum((n - expected) ** 2 / expected for n in found.values()) < 28  # 9 degrees of freedom: p < 0.001


@pytest.mark.parametrize(
    ("open_out", "open_in", "count", "certain", "possible"),
    [
        ((True, False), (True, True, True, True), 2, [2, 3], []),
        ((True, False), (True, True, True, True), 3, [0, 2, 3], []),
        ((True, True), (True, False, False, True), 1, [], [3]),
        ((True, True), (True, False, False, True), 3, [3], [0, 4, 7]),
    ],
)
def test_closed_neurons_get_nothing(
    open_out: tuple[bool, ...], open_in: tuple[bool, ...], count: int, certain: list[int], possible: list[int]
) -> None:
    constraint = Constraint(np.zeros(2, bool), np.array(open_out), np.array(open_in))
    for seed in range(10):
        grown = choose(seen(0, 1, 4, 6, 7, constraint=constraint), ints(1, 6), count, RNG(seed)).tolist()
        assert len(grown) == count
        assert set(certain) <= set(grown) <= set(certain) | set(possible)


@pytest.mark.parametrize("explored", [[1, 6], [0, 1, 4, 6, 7]])
def test_more_than_is_free_is_refused(explored: list[int]) -> None:
    with pytest.raises(TopologyError, match=r"^cannot choose 7 of 6 free positions$"):
        choose(seen(*explored), ints(1, 6), 7, RNG(0))


def test_nothing_remembered_is_refused() -> None:
    view = LayerView(SparseTopology(2, 4, ints(1, 6)), np.ones(2, np.float32))
    with pytest.raises(TopologyError, match="needs the positions that were ever connected"):
        choose(view, ints(1, 6), 1, RNG(0))


def test_a_large_layer_costs_what_was_explored() -> None:
    rng = RNG(0)
    topology = random_topology(2**14, 2**14, 1000, rng)
    view = LayerView(topology, rng.standard_normal(1000).astype(np.float32), explored=topology.flat)
    tracemalloc.start()
    change = plan_rewire(RewireRule("weight_magnitude", "random_unfired", 0.3), view, 1, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # of 268 million positions
    assert (change.grown, change.dropped) == (300, 300)


# --- who remembers ------------------------------------------------------------------------------------


def test_which_growth_needs_the_explored() -> None:
    assert {name for name, rule in GROW.items() if rule.needs_explored} == {"random_unfired"}
    assert RewireRule(grow="random_unfired").needs_explored
    assert not RewireRule(grow="random").needs_explored


@pytest.mark.parametrize("grow", ["random", "random_unfired"])
def test_the_evolver_shows_it_only_where_it_is_needed(grow: str) -> None:
    layer = SparseLinear(SparseTopology(2, 4, ints(0, 3, 5)), bias=False)
    evolver = TopologyEvolver({"net": {"net.0": layer}}, RewireRule("weight_magnitude", grow, 0.5), seed=0)
    shown: list[LayerView] = []
    evolver.set_constraint("net.0", lambda view: [shown.append(view), view][1])  # type: ignore[func-returns-value,list-item,return-value]
    evolver.rewire("net.0")
    explored = shown[0].explored
    assert (None if explored is None else explored.tolist()) == ([0, 3, 5] if grow == "random_unfired" else None)


def test_each_event_explores_as_much_as_it_grows_until_all_is_explored() -> None:
    layer = SparseLinear(random_topology(5, 6, 10, RNG(0)), bias=False)
    evolver = TopologyEvolver(
        {"net": {"net.0": layer}}, RewireRule("weight_magnitude", "random_unfired", 0.6, update_interval=1), seed=0
    )
    explored = []
    for update in range(1, 7):
        evolver.begin_update(update)
        (event,) = evolver.end_update("net")
        assert (event.nnz, event.grown) == (10, 6)
        explored.append(event.explored)
    assert explored == [16, 22, 28, 30, 30, 30]
