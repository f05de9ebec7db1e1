"""Drop and grow rules: 8-slot layers worked by hand, then plain-Python and dense oracles, uniformity and memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracle.dense_topology import gradient_growth, magnitude_drop, mask_of, set_drop, topology_of

from sparserl.errors import TopologyError
from sparserl.topology import block_scores
from sparserl.topology.criteria import DROP, GROW, signed_magnitude, weight_magnitude
from sparserl.topology.free_positions import distinct_integers, free_positions
from sparserl.topology.structure import Importance, LayerView, SparseTopology

PROFILE = settings(max_examples=150, deadline=None, derandomize=True, database=None)
# Few distinct magnitudes, so that ties and zeros are common.
WEIGHTS = st.lists(st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=40)
FRACTIONS = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.99])


def full(values: list[float]) -> LayerView:
    """A layer of one output whose connections all exist: slot = position."""
    topology = SparseTopology(1, max(1, len(values)), np.arange(len(values), dtype=np.int64))
    importance = Importance(np.ones(len(values)), np.ones(1), np.ones(topology.n_in))
    return LayerView(topology, np.array(values, np.float32), importance=importance)


# --- drop: weight magnitude -------------------------------------------------------------------------

# |w| in order: slot 6, 1, then 4 and 5 as equals, 2, 0, 3, 7.
MIXED = [0.5, -0.1, 0.3, -0.7, 0.2, -0.2, 0.0, 0.9]


@pytest.mark.parametrize(
    ("fraction", "slots"),
    [
        (0.0, []),
        (0.1, []),  # int(0.8)
        (0.125, [6]),
        (0.25, [1, 6]),
        (0.3, [1, 6]),  # int(2.4)
        (0.375, [1, 4, 6]),  # the lower slot of two equals
        (0.5, [1, 4, 5, 6]),
        (0.625, [1, 2, 4, 5, 6]),
        (0.99, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_weight_magnitude_of_8_slots(fraction: float, slots: list[int]) -> None:
    dropped = weight_magnitude(full(MIXED), fraction)
    assert dropped.tolist() == slots
    assert dropped.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "fraction", "slots"),
    [
        ([2.0] * 8, 0.5, [0, 1, 2, 3]),  # all equal
        ([0.0] * 8, 0.25, [0, 1]),
        ([-1.0, 1.0, -1.0, 1.0], 0.5, [0, 1]),  # sign does not matter
        ([0.7], 0.99, []),
        ([], 0.5, []),
    ],
)
def test_weight_magnitude_at_the_edges(values: list[float], fraction: float, slots: list[int]) -> None:
    assert weight_magnitude(full(values), fraction).tolist() == slots


@PROFILE
@given(values=WEIGHTS, fraction=FRACTIONS)
def test_weight_magnitude_is_the_sorted_prefix(values: list[float], fraction: float) -> None:
    assert weight_magnitude(full(values), fraction).tolist() == magnitude_drop(values, fraction)


# --- drop: SET's per-sign rule ----------------------------------------------------------------------

# f: first smallest |v| of the sorted values; q: one past the last.
# Dropped: all from v[int((1-z) f)] to v[int(min(7, q + z (8-q)))].
PLAIN = [4.0, -1.5, 8.0, -5.0, 1.0, 2.0, -3.0, 6.0]  # sorted -5 -3 -1.5 1 2 4 6 8: f = 3, q = 4
NEGATIVE_FIRST = [3.0, -8.0, 2.0, -1.0, -4.0, 7.0, -6.0, 5.0]  # sorted -8 -6 -4 -1 2 3 5 7: f = 3, q = 4
SYMMETRIC = [-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0]  # smallest |v| twice: f = 3, q = 5
ZEROS = [0.0, 3.0, -3.0, 1.0, -1.0, 2.0, -2.0, 0.0]  # sorted -3 -2 -1 0 0 1 2 3: f = 3, q = 5
POSITIVE = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]  # f = 0, q = 1
NEGATIVE = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]  # f = 7, q = 8
TIES = [-2.0, 1.0, -2.0, 1.0, -2.0, 1.0, -1.0, 3.0]  # sorted -2 -2 -2 -1 1 1 1 3: f = 3, q = 7
TIED_POSITIVE = [5.0, 2.0, 2.0, 2.0, 1.0, 6.0, -1.5, -9.0]  # sorted -9 -1.5 1 2 2 2 5 6: f = 2, q = 3


@pytest.mark.parametrize(
    ("values", "fraction", "dropped"),
    [
        (PLAIN, 0.05, [-1.5, 1, 2]),  # v[int(2.85)] = -1.5, v[int(4.2)] = 2
        (PLAIN, 0.25, [-1.5, 1, 2, 4]),  # v[int(2.25)] = -1.5, v[5] = 4
        (PLAIN, 0.5, [-3, -1.5, 1, 2, 4, 6]),  # v[int(1.5)] = -3, v[6] = 6
        (PLAIN, 0.9, [-5, -3, -1.5, 1, 2, 4, 6, 8]),  # v[int(.3)] = -5, v[7] = 8
        (NEGATIVE_FIRST, 0.05, [-4, -1, 2]),  # v[int(2.85)] = -4, v[int(4.2)] = 2
        (NEGATIVE_FIRST, 0.25, [-4, -1, 2, 3]),  # v[int(2.25)] = -4, v[5] = 3
        (SYMMETRIC, 0.05, [-2, -1, 1, 2]),  # v[int(2.85)] = -2, v[int(5.15)] = 2
        (SYMMETRIC, 0.25, [-2, -1, 1, 2]),  # v[int(2.25)] = -2, v[int(5.75)] = 2
        (SYMMETRIC, 0.5, [-3, -2, -1, 1, 2, 3]),  # v[int(1.5)] = -3, v[int(6.5)] = 3
        (SYMMETRIC, 0.75, SYMMETRIC),  # v[int(.75)] = -4, v[min(7, int(7.25))] = 4
        (ZEROS, 0.05, [-1, 0, 0, 1]),  # v[int(2.85)] = -1, v[int(5.15)] = 1
        (ZEROS, 0.25, [-1, 0, 0, 1]),
        (ZEROS, 0.5, [-2, -1, 0, 0, 1, 2]),
        (POSITIVE, 0.05, [1, 2]),  # v[0] = 1, v[int(1.35)] = 2
        (POSITIVE, 0.25, [1, 2, 3]),  # v[0] = 1, v[int(2.75)] = 3
        (POSITIVE, 0.5, [1, 2, 3, 4, 5]),  # v[int(4.5)] = 5
        (NEGATIVE, 0.05, [-2, -1]),  # v[int(6.65)] = -2, v[min(7, 8)] = -1
        (NEGATIVE, 0.25, [-3, -2, -1]),  # v[int(5.25)] = -3
        (NEGATIVE, 0.5, [-5, -4, -3, -2, -1]),  # v[int(3.5)] = -5
        (TIES, 0.05, sorted(TIES)),  # v[int(2.85)] = -2 takes all three; q = 7 is the last entry already
        (TIED_POSITIVE, 0.05, [-1.5, 1, 2, 2, 2]),  # v[int(1.9)] = -1.5, v[int(3.25)] = 2 and its equals
        (TIED_POSITIVE, 0.5, [-1.5, 1, 2, 2, 2]),  # v[1] = -1.5, v[int(5.5)] = 2
        (TIED_POSITIVE, 0.75, [-9, -1.5, 1, 2, 2, 2, 5]),  # v[int(.5)] = -9, v[int(6.75)] = 5
        ([0.0] * 8, 0.05, [0.0] * 8),
        ([2.0] * 8, 0.05, [2.0] * 8),
        ([-2.0] * 8, 0.5, [-2.0] * 8),
        ([0.7], 0.05, [0.7]),
        ([-0.7, 0.9], 0.3, [-0.7, 0.9]),  # f = 0, q = 1: v[0], v[int(1.3)]
        ([-0.9, 0.7], 0.3, [-0.9, 0.7]),  # f = 1, q = 2: v[int(.7)] = -.9, v[min(1, 2)] = .7
        ([], 0.3, []),
    ],
)
def test_signed_magnitude_of_8_slots(values: list[float], fraction: float, dropped: list[float]) -> None:
    slots = signed_magnitude(full(values), fraction)
    assert sorted(values[slot] for slot in slots) == dropped
    assert slots.tolist() == sorted(set(slots.tolist()))
    assert slots.dtype == np.int64


def test_signed_magnitude_counts_by_sign_on_an_unbalanced_layer() -> None:
    # 900 positive and 100 negative weights: 5 % of each sign and at most one more of each.
    values = [0.001 * i for i in range(1, 901)] + [-0.0015 * i for i in range(1, 101)]
    dropped = [values[slot] for slot in signed_magnitude(full(values), 0.05)]
    positive, negative = [v for v in dropped if v > 0], [v for v in dropped if v < 0]
    assert len(positive) in (45, 46)
    assert len(negative) in (5, 6)
    assert max(positive) < 0.047
    assert min(negative) > -0.0095


@pytest.mark.parametrize("name", DROP)
def test_a_fraction_of_zero_drops_nothing(name: str) -> None:
    for values in (MIXED, PLAIN, ZEROS, POSITIVE, [0.0] * 8, [0.5], []):
        assert DROP[name].choose(full(values), 0.0).tolist() == []


@PROFILE
@given(values=WEIGHTS, fraction=FRACTIONS)
def test_signed_magnitude_is_sets_index_rule(values: list[float], fraction: float) -> None:
    assert signed_magnitude(full(values), fraction).tolist() == set_drop(values, fraction)


@PROFILE
@given(
    values=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-2, 2, width=32)),
    fraction=FRACTIONS,
)
def test_drop_rules_on_any_weights(values: np.ndarray, fraction: float) -> None:
    view = full(values.tolist())
    assert signed_magnitude(view, fraction).tolist() == set_drop(values.tolist(), fraction)
    assert weight_magnitude(view, fraction).tolist() == magnitude_drop(values.tolist(), fraction)
    assert not set(np.flatnonzero(values == 0)) - set(signed_magnitude(view, fraction).tolist())


# --- growing at random ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "occupied", "count", "expected"),
    [
        (8, [0, 2, 3, 5, 6], 3, [1, 4, 7]),  # all that is free
        (8, [], 8, list(range(8))),
        (8, list(range(8)), 0, []),
        (8, [1], 0, []),
        (8, [0, 1, 2, 3, 4, 5, 6], 1, [7]),
        (8, [1, 2, 3, 4, 5, 6, 7], 1, [0]),
        (1, [], 1, [0]),
        (1, [0], 0, []),
    ],
)
def test_free_positions_where_there_is_no_choice(
    size: int, occupied: list[int], count: int, expected: list[int]
) -> None:
    found = free_positions(size, np.array(occupied, np.int64), count, np.random.default_rng(0))
    assert found.tolist() == expected
    assert found.dtype == np.int64


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_random_growth_is_uniform_over_sets(count: int) -> None:
    # 6 of 9 positions are free: 6, 15, 20, 15 or 6 sets of `count`, by drawing or by leaving out.
    topology = SparseTopology(3, 3, np.array([0, 2, 4, 5, 7], np.int64))
    kept, free = np.array([2, 4, 7], np.int64), [0, 1, 3, 5, 6, 8]
    view, rng = LayerView(topology, np.ones(5, np.float32)), np.random.default_rng(12)
    draws = 3000
    seen = Counter(tuple(GROW["random"].choose(view, kept, count, rng).tolist()) for _ in range(draws))
    sets = list(itertools.combinations(free, count))
    assert set(seen) <= set(sets)
    expected = draws / len(sets)
    chi_square = sum((seen[one] - expected) ** 2 / expected for one in sets)
    assert chi_square < 3 * len(sets) + 15  # mean len(sets) - 1; this is past the 1e-5 quantile


def test_distinct_integers_are_uniform_in_a_large_range() -> None:
    # 4,000 of 10,000 drawn 25 times: the counts per tenth of the range, which rejection must not tilt.
    rng = np.random.default_rng(3)
    drawn = [distinct_integers(10_000, 4_000, rng) for _ in range(25)]
    assert all(np.unique(one).size == 4_000 for one in drawn)
    counts = np.histogram(np.concatenate(drawn), bins=10, range=(0, 10_000))[0]
    # Without replacement the variance of a tenth is 25 * 4000 * .1 * .9 * .6 = 5400.
    assert ((counts - 10_000) ** 2).sum() / 5400 < 40


@PROFILE
@given(bound=st.integers(0, 60), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_distinct_integers_are_distinct_sorted_and_in_range(bound: int, data: st.DataObject, seed: int) -> None:
    count = data.draw(st.integers(0, bound))
    drawn = distinct_integers(bound, count, np.random.default_rng(seed)).tolist()
    assert len(drawn) == count
    assert drawn == sorted(set(drawn))
    assert all(0 <= one < bound for one in drawn)


@PROFILE
@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))), data=st.data())
def test_random_growth_avoids_what_is_kept(mask: np.ndarray, data: st.DataObject) -> None:
    kept = topology_of(mask)
    count = data.draw(st.integers(0, int((~mask).sum())))
    view = LayerView(kept, np.zeros(kept.nnz, np.float32))
    grown = GROW["random"].choose(view, kept.flat, count, np.random.default_rng(0)).tolist()
    assert grown == sorted(set(grown))
    assert len(grown) == count
    assert not mask.ravel()[grown].any()


def test_more_than_is_free_is_refused() -> None:
    with pytest.raises(TopologyError, match="cannot choose 4 of 3 free positions"):
        free_positions(8, np.arange(5), 4, np.random.default_rng(0))
    with pytest.raises(TopologyError, match="cannot choose 1 of 0"):
        distinct_integers(0, 1, np.random.default_rng(0))


def test_random_growth_never_enumerates() -> None:
    n_out, n_in = 2**31, 2**20
    rng = np.random.default_rng(0)
    tracemalloc.start()
    flat = free_positions(n_out * n_in, np.empty(0, np.int64), 1000, rng)
    view = LayerView(SparseTopology(n_out, n_in, flat), rng.standard_normal(1000).astype(np.float32))
    grown = GROW["random"].choose(view, flat[::2].copy(), 500, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000  # 2**51 positions; 1,000 connections of 8 bytes
    assert (flat.size, grown.size) == (1000, 500)
    assert np.all(np.diff(grown) > 0)
    assert not set(grown.tolist()) & set(flat[::2].tolist())
    assert flat.max() > 2**50
    assert grown.max() > 2**50
    assert grown.max() < 2**51


# --- growing by gradient ----------------------------------------------------------------------------

# dW = dy x^T for a batch of two: rows of W are outputs.
X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [-1.0, 1.0]], np.float32)  # (4 inputs, 2)
DY = np.array([[1.0, 0.0], [0.0, -2.0]], np.float32)  # (2 outputs, 2)
# dW = [[1, 0, 2, -1], [0, -2, -2, -2]]


def sampled(topology: SparseTopology, *samples: tuple[np.ndarray, np.ndarray]) -> LayerView:
    return LayerView(topology, np.zeros(topology.nnz, np.float32), samples)


@pytest.mark.parametrize(
    ("kept", "count", "grown"),
    [
        ([], 0, []),
        ([], 1, [2]),  # |2| four times: the lowest position
        ([], 3, [2, 5, 6]),
        ([], 4, [2, 5, 6, 7]),
        ([], 5, [0, 2, 5, 6, 7]),  # |1| twice
        ([], 6, [0, 2, 3, 5, 6, 7]),
        ([], 7, [0, 1, 2, 3, 5, 6, 7]),  # a gradient of 0 may grow
        ([], 8, list(range(8))),
        ([2, 5], 1, [6]),
        ([2, 5], 3, [0, 6, 7]),
        ([2, 5, 6, 7], 2, [0, 3]),
        ([2, 5, 6, 7], 4, [0, 1, 3, 4]),
        ([0, 1, 2, 3, 4, 5, 6], 1, [7]),
        (list(range(8)), 0, []),
    ],
)
@pytest.mark.parametrize("block", [1, 4, 8, 1 << 20])
def test_gradient_growth_of_8_slots(
    monkeypatch: pytest.MonkeyPatch, block: int, kept: list[int], count: int, grown: list[int]
) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", block)
    view = sampled(SparseTopology(2, 4, np.array(kept, np.int64)), (X, DY))
    assert GROW["gradient"].needs_gradient
    found = GROW["gradient"].choose(view, np.array(kept, np.int64), count, np.random.default_rng(0))
    assert found.tolist() == grown
    assert found.dtype == np.int64


def test_gradients_of_several_passes_add_up() -> None:
    # The second pass cancels position 2 and raises position 4 to 3.
    view = sampled(
        SparseTopology(2, 4, np.empty(0, np.int64)),
        (X, DY),
        (np.array([[0.0], [0.0], [1.0], [0.0]], np.float32), np.array([[-2.0], [0.0]], np.float32)),
        (np.array([[1.0], [0.0], [0.0], [0.0]], np.float32), np.array([[0.0], [3.0]], np.float32)),
    )
    kept = np.empty(0, np.int64)
    assert GROW["gradient"].choose(view, kept, 1, np.random.default_rng(0)).tolist() == [4]
    assert GROW["gradient"].choose(view, kept, 4, np.random.default_rng(0)).tolist() == [4, 5, 6, 7]


def test_gradient_growth_without_samples_is_refused() -> None:
    view = sampled(SparseTopology(2, 4, np.array([0], np.int64)))
    with pytest.raises(TopologyError, match="needs the update's activations"):
        GROW["gradient"].choose(view, view.topology.flat, 1, np.random.default_rng(0))


@pytest.mark.parametrize("block", [1, 3, 7, 20, 1 << 20])
def test_gradient_growth_is_the_dense_argsort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", block)
    rng = np.random.default_rng(block)
    for _ in range(60):
        n_out, n_in, batch = rng.integers(1, 9, 3)
        # Small integers: products are exact whatever the order of summation, and ties abound.
        samples = [
            (
                rng.integers(-2, 3, (n_in, batch)).astype(np.float32),
                rng.integers(-2, 3, (n_out, batch)).astype(np.float32),
            )
            for _ in range(rng.integers(1, 3))
        ]
        mask = rng.random((n_out, n_in)) < rng.random()
        count = int(rng.integers(0, (~mask).sum() + 1))
        topology = topology_of(mask)
        found = GROW["gradient"].choose(sampled(topology, *samples), topology.flat, count, rng)
        gradient = sum((dy @ x.T for x, dy in samples), np.zeros((n_out, n_in), np.float32))
        assert found.tolist() == gradient_growth(gradient, mask_of(topology), count)


def test_gradient_growth_never_holds_the_dense_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", 10_000)
    rng = np.random.default_rng(0)
    n_out, n_in = 2000, 1000
    topology = SparseTopology(n_out, n_in, np.sort(rng.choice(n_out * n_in, 2000, replace=False)))
    x = rng.standard_normal((n_in, 2)).astype(np.float32)
    dy = rng.standard_normal((n_out, 2)).astype(np.float32)
    tracemalloc.start()
    grown = GROW["gradient"].choose(sampled(topology, (x, dy)), topology.flat, 100, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000  # the dense gradient takes 8,000,000
    score = np.abs(dy @ x.T).ravel()
    score[topology.flat] = -1
    assert set(grown.tolist()) == set(np.argsort(-score)[:100].tolist())


def test_gradients_that_are_nan_choose_nothing() -> None:
    topology = SparseTopology(2, 4, np.array([0, 3, 5, 6]))
    samples = ((np.full((4, 3), np.nan, np.float32), np.ones((2, 3), np.float32)),)
    view = LayerView(topology, np.ones(4, np.float32), samples)
    with pytest.raises(TopologyError, match="holds NaN"):
        GROW["gradient"].choose(view, topology.flat[:2], 2, np.random.default_rng(0))
