"""Events as data: changes worked by hand, then the invariants of every rule over random layers."""

from __future__ import annotations

import tracemalloc
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from oracle.dense_topology import (
    assert_sound,
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
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule, exchange, random_topology, remap
from sparserl.topology.structure import Importance, LayerView, SparseTopology

PROFILE = settings(max_examples=120, deadline=None, derandomize=True, database=None)
RNG = np.random.default_rng


def layer(n_out: int, n_in: int, *flat: int) -> SparseTopology:
    return SparseTopology(n_out, n_in, ints(*flat))


# --- exchange and remap -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dropped", "grown", "flat", "source"),
    [
        ([], [], [1, 3, 5, 6], [0, 1, 2, 3]),
        ([1], [0], [0, 1, 5, 6], [-1, 0, 2, 3]),
        ([1], [3], [1, 3, 5, 6], [0, -1, 2, 3]),  # dropped and grown again
        ([0, 3], [2, 7], [2, 3, 5, 7], [-1, 1, 2, -1]),
        ([3, 0], [2, 7], [2, 3, 5, 7], [-1, 1, 2, -1]),
        ([0, 1, 2, 3], [0, 2, 4, 7], [0, 2, 4, 7], [-1, -1, -1, -1]),
        ([1], [2, 4], [1, 2, 4, 5, 6], [0, -1, -1, 2, 3]),
        ([1, 2], [], [1, 6], [0, 3]),
        ([0, 1, 2, 3], [], [], []),
        ([], [0, 2, 4, 7], [0, 1, 2, 3, 4, 5, 6, 7], [-1, 0, -1, 1, -1, 2, 3, -1]),
    ],
)
def test_exchange_of_an_8_slot_layer(dropped: list[int], grown: list[int], flat: list[int], source: list[int]) -> None:
    old = layer(2, 4, 1, 3, 5, 6)
    change = exchange(old, ints(*dropped), ints(*grown))
    assert change.new.flat.tolist() == flat
    assert change.source.tolist() == source
    assert (change.new.n_out, change.new.n_in) == (2, 4)
    assert (change.grown, change.dropped) == (len(grown), len(dropped))
    assert change.old is old
    assert old.flat.tolist() == [1, 3, 5, 6]
    assert_sound_change(change)
    change.check_valid()


@pytest.mark.parametrize(("dropped", "grown"), [([1], [5]), ([], [1]), ([0], [0, 3]), ([0], [2, 2])])
def test_exchange_refuses_what_is_already_there(dropped: list[int], grown: list[int]) -> None:
    with pytest.raises(TopologyError, match="already present"):
        exchange(layer(2, 4, 1, 3, 5, 6), ints(*dropped), ints(*grown))


def test_remap_carries_one_value_per_connection() -> None:
    change = exchange(layer(2, 4, 1, 3, 5, 6), ints(0, 3), ints(2, 7))  # source -1 1 2 -1
    values = np.array([10.0, 20.0, 30.0, 40.0], np.float32)
    assert remap(values, change).tolist() == [0.0, 20.0, 30.0, 0.0]
    assert remap(values, change, 0.5).tolist() == [0.5, 20.0, 30.0, 0.5]
    assert remap(values, change, np.array([7.0, 8.0])).tolist() == [7.0, 20.0, 30.0, 8.0]
    assert values.tolist() == [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_remap_keeps_the_dtype(dtype: Any) -> None:
    change = exchange(layer(2, 4, 1, 3), ints(0), ints(2))
    assert remap(np.array([1, 1], dtype), change).dtype == dtype
    assert remap(np.empty(0, dtype), exchange(layer(2, 4), ints(), ints(3)), 1).tolist() == [1]
    assert remap(np.empty(0, dtype), exchange(layer(2, 4), ints(), ints(3)), 1).dtype == dtype


def test_remap_to_and_from_nothing() -> None:
    assert remap(np.ones(2), exchange(layer(2, 4, 1, 3), ints(0, 1), ints())).size == 0
    assert remap(np.empty(0), exchange(layer(2, 4), ints(), ints())).size == 0


def test_survivors_keep_their_bits() -> None:
    bits = np.array([0x80000000, 0x7FC12345, 0x00000001, 0xFF800000], np.uint32)  # -0, a NaN, a subnormal, -inf
    change = exchange(layer(2, 4, 1, 3, 5, 6), ints(), ints(0, 4, 7))
    moved = remap(bits.view(np.float32), change, 2.0)
    assert moved[change.source >= 0].view(np.uint32).tolist() == bits.tolist()
    assert moved[change.source < 0].tolist() == [2.0, 2.0, 2.0]


# --- one event by hand ------------------------------------------------------------------------------

# dW = dy x^T = [[1, 5, 2, 0], [3, 4, 6, 2]]
X = np.array([[1.0, 3.0], [5.0, 4.0], [2.0, 6.0], [0.0, 2.0]], np.float32)
DY = np.eye(2, dtype=np.float32)
OLD = layer(2, 4, 0, 2, 5, 7)
VIEW = LayerView(OLD, np.array([0.1, 3.0, -0.2, 4.0], np.float32), ((X, DY),))
RIGL: dict[str, Any] = {"drop": "weight_magnitude", "grow": "gradient", "drop_fraction": 0.5}


def test_rigl_event_with_a_regrown_connection() -> None:
    # Dropped: positions 0 and 5. Best gradients outside {2, 7}: 6 at position 6, 5 at position 1.
    change = plan_rewire(RewireRule(**RIGL, keep_regrown=True), VIEW, 1, RNG(0))
    assert change.new.flat.tolist() == [1, 2, 6, 7]
    assert change.source.tolist() == [-1, 1, -1, 3]
    # Now positions 1 and 6 exist and are strong: 4 at position 5 and 3 at position 4 are best; 5 was just dropped.
    view = LayerView(layer(2, 4, 1, 2, 5, 6), np.array([9.0, 0.1, -0.2, 9.0], np.float32), ((X, DY),))
    anew = plan_rewire(RewireRule(**RIGL), view, 1, RNG(0))
    assert anew.new.flat.tolist() == [1, 4, 5, 6]
    assert anew.source.tolist() == [0, -1, -1, 3]
    assert (anew.grown, anew.dropped) == (2, 2)
    kept = plan_rewire(RewireRule(**RIGL, keep_regrown=True), view, 1, RNG(0))
    assert kept.new.flat.tolist() == [1, 4, 5, 6]
    assert kept.source.tolist() == [0, -1, 2, 3]  # 5 keeps weight and moments
    assert (kept.grown, kept.dropped) == (1, 1)


@pytest.mark.parametrize(
    ("fraction", "flat"),
    [
        (0.0, [0, 2, 5, 7]),
        (0.2, [0, 2, 5, 7]),  # int(0.8)
        (0.25, [2, 5, 6, 7]),
        (0.5, [1, 2, 6, 7]),
        (0.75, [1, 5, 6, 7]),  # dropped 0, 2, 5; best outside {7}: 6, 1, 5
        (0.99, [1, 5, 6, 7]),  # int(3.96)
    ],
)
@pytest.mark.parametrize("keep_regrown", [True, False])
def test_rigl_event_by_drop_fraction(fraction: float, flat: list[int], keep_regrown: bool) -> None:
    rule = RewireRule("weight_magnitude", "gradient", drop_fraction=fraction, keep_regrown=keep_regrown)
    assert plan_rewire(rule, VIEW, 1, RNG(0)).new.flat.tolist() == flat


def test_set_event_may_grow_what_it_dropped() -> None:
    # Sorted -4 -3 -1 1 2 3 5: f = 2, q = 4; low v[int(1.5)] = -3, high v[int(4.75)] = 2. Kept: -4, 3, 5.
    old = layer(2, 4, 0, 1, 2, 3, 4, 5, 6)
    view = LayerView(old, np.array([-3.0, 5.0, 1.0, -4.0, 2.0, -1.0, 3.0]))
    dropped = {0, 2, 4, 5}
    change = plan_rewire(RewireRule("signed_magnitude", "random", drop_fraction=0.25), view, 1, RNG(4))
    assert (change.grown, change.dropped, change.new.nnz) == (4, 4, 7)
    assert {int(p) for p, slot in zip(change.new.flat, change.source, strict=True) if slot < 0} <= dropped | {7}
    assert sorted(change.source[change.source >= 0].tolist()) == [1, 3, 6]


@pytest.mark.parametrize("grow", GROW)
@pytest.mark.parametrize("keep_regrown", [True, False])
def test_a_full_layer_stays_full(grow: str, keep_regrown: bool) -> None:
    importance = Importance(np.ones(8), np.ones(2), np.ones(4))
    full = layer(2, 4, *range(8))
    weights = np.arange(1.0, 9.0, dtype=np.float32)
    view = LayerView(full, weights, ((X, DY),), importance=importance, explored=full.flat)
    rule = RewireRule("weight_magnitude", grow, drop_fraction=0.5, keep_regrown=keep_regrown)
    change = plan_rewire(rule, view, 1, RNG(0))
    assert change.new.flat.tolist() == list(range(8))
    assert change.source.tolist() == (list(range(8)) if keep_regrown else [-1, -1, -1, -1, 4, 5, 6, 7])


@pytest.mark.parametrize(("drop", "grow"), BOTH)
def test_an_empty_layer_stays_empty(drop: str, grow: str) -> None:
    importance = Importance(np.empty(0), np.zeros(2), np.zeros(4))
    empty = layer(2, 4)
    view = LayerView(empty, np.empty(0, np.float32), ((X, DY),), importance=importance, explored=empty.flat)
    assert plan_rewire(RewireRule(drop, grow, 0.5), view, 1, RNG(0)).new.nnz == 0
    assert plan_shrink(RewireRule(drop, grow, 0.5), view, 1).new.nnz == 0


def test_one_neuron_a_side() -> None:
    view = LayerView(layer(1, 1, 0), np.array([0.5]))
    anew = plan_rewire(RewireRule("signed_magnitude", "random", 0.3), view, 1, RNG(0))
    assert (anew.new.flat.tolist(), anew.source.tolist()) == ([0], [-1])
    kept = plan_rewire(RewireRule("signed_magnitude", "random", 0.3, keep_regrown=True), view, 1, RNG(0))
    assert (kept.new.flat.tolist(), kept.source.tolist()) == ([0], [0])
    none = plan_rewire(RewireRule("weight_magnitude", "random", 0.3), view, 1, RNG(0))
    assert (none.new.flat.tolist(), none.source.tolist()) == ([0], [0])


def test_shrink_drops_and_grows_nothing() -> None:
    view = LayerView(OLD, np.array([0.1, 3.0, -0.2, 4.0]))
    change = plan_shrink(RewireRule("weight_magnitude", "random", 0.5), view, 1)
    assert (change.new.flat.tolist(), change.source.tolist()) == ([2, 7], [1, 3])
    assert (change.grown, change.dropped) == (0, 2)


# --- invariants -------------------------------------------------------------------------------------


@st.composite
def views(draw: st.DrawFn) -> LayerView:
    mask = draw(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
    topology = topology_of(mask)
    values = draw(
        hnp.arrays(np.float32, topology.nnz, elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 3.0]))
    )
    numbers = st.integers(-3, 3).map(float)  # exact products
    batch = draw(st.integers(1, 3))
    x = draw(hnp.arrays(np.float32, (topology.n_in, batch), elements=numbers))
    dy = draw(hnp.arrays(np.float32, (topology.n_out, batch), elements=numbers))
    rng = RNG(draw(st.integers(0, 99)))
    sizes = (topology.nnz, topology.n_out, topology.n_in)
    importance = Importance(*(rng.integers(0, 4, size).astype(np.float32) for size in sizes))
    explored = topology_of(mask | (rng.random(mask.shape) < 0.3)).flat
    return LayerView(topology, values, ((x, dy),), importance=importance, explored=explored)


@PROFILE
@given(
    view=views(),
    drop=st.sampled_from(sorted(DROP)),
    grow=st.sampled_from(sorted(GROW)),
    fraction=st.sampled_from([0.0, 0.05, 0.25, 0.5, 0.9]),
    keep_regrown=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_invariants_of_a_rewire(
    view: LayerView, drop: str, grow: str, fraction: float, keep_regrown: bool, seed: int
) -> None:
    assume(go_together(drop, grow))
    values, old = view.values.tolist(), view.topology.flat.tolist()
    rule = RewireRule(drop, grow, drop_fraction=fraction, keep_regrown=keep_regrown)
    change = plan_rewire(rule, view, 1, RNG(seed))
    assert_sound_change(change)
    change.check_valid()
    assert change.new.nnz == len(old)

    assert view.importance is not None
    saliencies = fisher_saliencies(view.topology, view.values, *view.samples[0])
    dropped = drop_of(drop, values, view.importance.connections.tolist(), fraction, saliencies)
    kept = {p for slot, p in enumerate(old) if slot not in dropped}
    new = set(change.new.flat.tolist())
    grown = {int(p) for p, slot in zip(change.new.flat, change.source, strict=True) if slot < 0}
    back = (new & set(old)) - kept
    assert kept <= new
    assert not grown & kept
    if keep_regrown:
        assert grown == new - set(old)
        assert change.dropped == len(dropped) - len(back)
    else:
        assert grown == new - kept
        assert change.dropped == len(dropped)
    only_kept = mask_of(layer(view.topology.n_out, view.topology.n_in, *sorted(kept)))
    if grow == "gradient":
        ((x, dy),) = view.samples
        assert sorted(new - kept) == gradient_growth(dy @ x.T, only_kept, len(dropped))
    if grow in ("neuron_importance", "neuron_importance_any"):
        just_dropped = mask_of(view.topology) & ~only_kept & (grow == "neuron_importance")
        assert sorted(new - kept) == importance_growth(
            view.importance.outputs, view.importance.inputs, only_kept, just_dropped, len(dropped)
        )

    at = dict(zip(old, values, strict=True))
    moved = dict(zip(change.new.flat.tolist(), remap(view.values, change, 7.5).tolist(), strict=True))
    assert moved == {p: 7.5 if p in grown else at[p] for p in new}


@PROFILE
@given(view=views(), drop=st.sampled_from(sorted(DROP)), fraction=st.sampled_from([0.0, 0.05, 0.5]))
def test_invariants_of_a_shrink(view: LayerView, drop: str, fraction: float) -> None:
    change = plan_shrink(RewireRule(drop, "random", fraction), view, 1)
    assert_sound_change(change)
    change.check_valid()
    assert change.grown == 0
    assert set(change.new.flat.tolist()) <= set(view.topology.flat.tolist())
    if drop != "signed_magnitude":
        assert change.dropped == (0 if drop in ("below_threshold", "sign_change") else int(fraction * view.values.size))


@PROFILE
@given(n_out=st.integers(1, 12), n_in=st.integers(1, 12), data=st.data(), seed=st.integers(0, 99))
def test_random_topologies_have_exactly_their_size(n_out: int, n_in: int, data: st.DataObject, seed: int) -> None:
    nnz = data.draw(st.integers(0, n_out * n_in))
    topology = random_topology(n_out, n_in, nnz, RNG(seed))
    assert_sound(topology)
    assert (topology.n_out, topology.n_in, topology.nnz) == (n_out, n_in, nnz)


def test_random_topologies_are_uniform_over_positions() -> None:
    counts = np.zeros(12)
    rng = RNG(2)
    for _ in range(2000):
        counts[random_topology(3, 4, 5, rng).flat] += 1
    expected = 2000 * 5 / 12
    assert ((counts - expected) ** 2 / expected).sum() < 40  # 11 degrees of freedom, variance shrunk by 7/11


def test_a_larger_topology_than_the_layer_is_refused() -> None:
    with pytest.raises(TopologyError, match="cannot choose 9 of 8"):
        random_topology(2, 4, 9, RNG(0))


def test_an_event_of_a_huge_layer_costs_its_connections() -> None:
    n_out, n_in = 2**31, 2**20
    rng = RNG(0)
    rule = METHODS["ds_td3"].rule
    assert rule is not None
    tracemalloc.start()
    topology = random_topology(n_out, n_in, 1000, rng)
    view = LayerView(topology, rng.standard_normal(1000).astype(np.float32))
    change = plan_rewire(rule, view, 2, rng)
    moved = remap(view.values, change)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000
    assert_sound_change(change)
    assert 50 <= change.dropped <= 52  # 5 % of each sign and one more of each
    assert change.new.nnz == moved.size == 1000


# --- the rule itself --------------------------------------------------------------------------------


def test_the_fraction_follows_the_schedule_and_the_shrink_uses_the_last() -> None:
    rule = RewireRule(drop_fraction=0.3, decay="cosine", last_update=750)
    expected = [0.3000, 0.2870, 0.1500, 0.0286, 0.0, 0.0]
    assert [round(rule.fraction(update), 4) for update in (0, 100, 375, 600, 750, 10_000)] == expected
    assert RewireRule(drop_fraction=0.3).fraction(10**9) == 0.3
    rule = RewireRule(drop_fraction=0.05, last_update=925_000, shrink_at_end=True)
    assert rule.fraction(925_002) == 0.05


def test_an_event_drops_the_scheduled_share() -> None:
    # 100 connections; 0.5/2 (1 + cos(pi t / 100)) of them: 50, 42.68, 25, 7.32, 0 at t = 0, 25, 50, 75, 100.
    rule = RewireRule("weight_magnitude", "random", drop_fraction=0.5, decay="cosine", last_update=100)
    view = LayerView(layer(20, 20, *range(0, 400, 4)), np.linspace(-1, 1, 100))
    dropped = [plan_rewire(rule, view, update, RNG(0)).dropped for update in (0, 25, 50, 75, 100)]
    assert dropped == [50, 42, 25, 7, 0]


def test_when_rewiring_is_over() -> None:
    rule = RewireRule(last_update=10)
    assert [rule.is_over(update) for update in (1, 9, 10, 11)] == [False, False, False, True]
    assert not RewireRule().is_over(10**12)


@pytest.mark.parametrize("grow", GROW)
def test_which_growth_needs_samples_of_updates(grow: str) -> None:
    by_activations = grow in ("cosine", "cosine_or_random")
    assert RewireRule(grow=grow).needs_samples is (grow == "gradient" or by_activations)
    assert RewireRule(grow=grow).needs_activations is by_activations


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drop": "weight_magnitud"}, "unknown drop criterion 'weight_magnitud'; did you mean 'weight_magnitude'"),
        ({"drop": "signed_mag"}, "unknown drop criterion 'signed_mag'; did you mean 'signed_magnitude'"),
        ({"grow": "gradients"}, "unknown grow criterion 'gradients'; did you mean 'gradient'"),
        (
            {"grow": "zzz"},
            "unknown grow criterion 'zzz'; valid: cosine, cosine_or_random, gradient, neuron_importance, ",
        ),
        ({"decay": "cosin"}, "unknown drop fraction decay 'cosin'; did you mean 'cosine'"),
        ({"drop_fraction": 1.0}, "drop_fraction must be in"),
        ({"drop_fraction": -0.01}, "drop_fraction must be in"),
        ({"drop_fraction": float("nan")}, "drop_fraction must be in"),
        ({"update_interval": 0}, "update_interval and first_update must be >= 1, got 0 and 1"),
        ({"first_update": 0}, "update_interval and first_update must be >= 1, got 1000 and 0"),
        ({"decay": "cosine"}, "cosine drop fraction needs last_update"),
        ({"budget": "owm"}, "unknown budget 'owm'; did you mean 'own'"),
        ({"drop_threshold": 0.0}, "drop_threshold must be positive and finite, got 0.0"),
        ({"schedule_share": 0.0}, r"schedule_share must be in \(0, 1\], got 0.0"),
        ({"schedule_share": 0.5}, "schedule_share 0.5 is of a density schedule: set density_schedule"),
        ({"budget": "lamp"}, "budget 'lamp' shares what a density schedule takes: set density_schedule"),
        (
            {"budget": "lamp", "density_schedule": "surplus", "last_update": 9},
            "a surplus density schedule is of each layer: budget own, not 'lamp'",
        ),
        ({"gradient_weight": -1.0}, "gradient_weight must not be negative or infinite, got -1.0"),
    ],
)
def test_bad_rules_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        RewireRule(**fields)


@pytest.mark.parametrize("length", [0, 2, 5])
def test_remap_refuses_an_array_of_another_length(length: int) -> None:
    change = exchange(SparseTopology(2, 4, np.array([1, 3, 5, 6])), np.array([1]), np.array([0]))
    with pytest.raises(TopologyError, match="4 connections need as many values"):
        remap(np.zeros(length), change)
