"""CHTs: connections grow where paths of length three lead, scored by CH2-L3n."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracle.dense_topology import mask_of, path_scores
from support.layers import ints
from support.plans import plan_rewire

from sparserl.errors import TopologyError
from sparserl.topology import paths
from sparserl.topology.criteria import GROW
from sparserl.topology.methods import METHODS
from sparserl.topology.paths import scored_by_paths
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

RNG = np.random.default_rng
# Three outputs that read the inputs (a, b), (b, c, d) and (c). With c neighbours in common and d in all, a neuron on
# the path counts (1 + c) / (1 + max(0, d - c - 1)), and c is 1 here: output 1, with d = 3, counts 1, and all others 2.
SMALL = SparseTopology(3, 4, ints(0, 1, 5, 6, 7, 10))
SCORES = {
    2: 1.0 + 2.0,  # output 0, input c: by output 1, which it shares b with; by input b, which c shares output 1 with
    3: 1.0 + 2.0,  # 0, d: by output 1, by input b
    4: 2.0 + 2.0,  # 1, a: by output 0, by input b
    9: 1.0 + 2.0,  # 2, b: by output 1, by input c
    11: 1.0 + 2.0,  # 2, d: by output 1, by input c; and there is no path from output 2 to input a, position 8
}


def scores_of(topology: SparseTopology) -> dict[int, float]:
    """Of free positions alone."""
    present = set(topology.flat.tolist())
    return {
        position: score
        for positions, scores in scored_by_paths(topology)
        for position, score in zip(positions.tolist(), scores.tolist(), strict=True)
        if position not in present
    }


def view(topology: SparseTopology, constraint: Constraint | None = None) -> LayerView:
    return LayerView(topology, np.zeros(topology.nnz), constraint=constraint)


def grown(grow: str, topology: SparseTopology, count: int, seed: int = 0) -> list[int]:
    positions: list[int] = GROW[grow].choose(view(topology), topology.flat, count, RNG(seed)).tolist()
    return positions


def test_the_scores_of_a_small_layer() -> None:
    assert scores_of(SMALL) == SCORES


def test_the_highest_grow_and_the_lower_position_wins() -> None:
    assert [grown("paths", SMALL, count) for count in (0, 1, 2, 4, 5)] == [
        [],
        [4],
        [2, 4],
        [2, 3, 4, 9],
        [2, 3, 4, 9, 11],
    ]
    assert grown("paths", SMALL, 6) == [2, 3, 4, 8, 9, 11]  # only where nothing else is free
    with pytest.raises(TopologyError, match="cannot choose"):
        grown("paths", SMALL, 7)


def test_the_soft_rule_draws_in_proportion_to_scores() -> None:
    draws = 4000
    seen = Counter(grown("paths_soft", SMALL, 1, seed)[0] for seed in range(draws))
    assert set(seen) == set(SCORES)
    for position, score in SCORES.items():
        share = score / 16.0
        assert abs(seen[position] - draws * share) < 5.0 * (draws * share * (1.0 - share)) ** 0.5
    # Without replacement: the second after 4 is one of four of 3 each; those without a path come last.
    pairs = Counter(tuple(grown("paths_soft", SMALL, 2, seed)) for seed in range(400))
    assert max(pairs, key=pairs.__getitem__) in {(2, 4), (3, 4), (4, 9), (4, 11)}
    assert {tuple(grown("paths_soft", SMALL, 5, seed)) for seed in range(20)} == {(2, 3, 4, 9, 11)}


def test_scores_are_of_what_is_left_after_the_drop() -> None:
    weights = np.array([1.0, 1.0, 0.1, 1.0, 1.0, 1.0])  # output 1 loses b
    change = plan_rewire(RewireRule("weight_magnitude", "paths", 0.2), LayerView(SMALL, weights), 1, RNG(0))
    left = SMALL.with_positions(ints(0, 1, 6, 7, 10))
    assert scores_of(left) == {11: 4.0}  # only outputs 1 and 2 have an input in common
    assert change.new.flat.tolist() == [0, 1, 6, 7, 10, 11]


def test_closed_neurons_receive_nothing_but_lead_on() -> None:
    constraint = Constraint(np.zeros(6, bool), np.array([True, False, True]), np.array([True, True, True, False]))
    found = GROW["paths"].choose(view(SMALL, constraint), SMALL.flat, 2, RNG(0))
    assert found.tolist() == [2, 9]
    assert GROW["paths"].choose(view(SMALL, constraint), SMALL.flat, 3, RNG(0)).tolist() == [2, 8, 9]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(0.0, 1.0), st.sampled_from((1, 3, 20, 1 << 20)), st.integers(0, 999)
)
def test_scores_are_those_of_the_dense_formula_in_blocks_of_any_size(
    n_out: int, n_in: int, density: float, block: int, seed: int
) -> None:
    topology = random_topology(n_out, n_in, round(density * n_out * n_in), RNG(seed))
    whole = paths.ROW_BLOCK
    paths.ROW_BLOCK = block
    try:
        found = scores_of(topology)
    finally:
        paths.ROW_BLOCK = whole
    mask = mask_of(topology)
    expected = path_scores(mask)
    wished = {place: expected.ravel()[place] for place in np.flatnonzero(~mask & (expected > 0)).tolist()}
    assert found.keys() == wished.keys()
    assert all(found[place] == pytest.approx(wished[place]) for place in wished)


def test_time_and_memory_follow_paths_not_the_layer() -> None:
    wide = 1_000_000
    topology = SparseTopology(wide, wide, np.sort(RNG(0).choice(wide * 10, 3000, replace=False)).astype(np.int64))
    assert GROW["paths_soft"].choose(view(topology), topology.flat, 50, RNG(0)).size == 50


def test_chts_is_its_parts() -> None:
    rule = METHODS["chts"].rule
    assert rule is not None
    assert (rule.drop, rule.grow, rule.drop_fraction, rule.decay) == ("weight_magnitude", "paths_soft", 0.1, "cosine")
