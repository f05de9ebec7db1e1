"""Allocation: the reference tables, and an allocation solved another way."""

from __future__ import annotations

import re
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from oracle.dense_topology import erk_densities

from sparserl.errors import TopologyError
from sparserl.topology.density import (
    Shape,
    check_can_be_met,
    check_density,
    erdos_renyi,
    erk,
    erk_plus,
    exact_nnz,
    per_layer,
    uniform,
    uniform_plus,
)

ACTOR: list[Shape] = [(256, 17), (256, 256), (6, 256)]
CRITIC: list[Shape] = [(256, 23), (256, 256), (1, 256)]
MNIST: list[Shape] = [(400, 784), (400, 400), (10, 400)]


def mlp(n_in: int, n_out: int, width: int = 256) -> list[Shape]:
    return [(width, n_in), (width, width), (n_out, width)]


def total(shapes: list[Shape], densities: list[float]) -> int:
    return sum(exact_nnz(shape, density) for shape, density in zip(shapes, densities, strict=True))


# Densities: topology.md 1.1. Totals: the same procedure in rational arithmetic, each layer rounded up to a whole
# connection; topology.md has others (e.g. 35,713), which come from densities already rounded to four decimals.
ERK_TABLE = [
    (ACTOR, 0.5, [1, 0.4551, 1], 35_712),
    (ACTOR, 0.8, [1, 0.1282, 1], 14_287),
    (ACTOR, 0.9, [0.4481, 0.0558, 1], 7_145),
    (ACTOR, 0.95, [0.2140, 0.0267, 0.5819], 3_573),
    (ACTOR, 0.99, [0.0429, 0.0053, 0.1166], 718),
    (CRITIC, 0.5, [1, 0.4531, 1], 35_840),
    (CRITIC, 0.8, [0.8436, 0.1391, 1], 14_339),
    (CRITIC, 0.9, [0.4141, 0.0683, 1], 7_170),
    (CRITIC, 0.95, [0.1994, 0.0329, 1], 3_586),
    (CRITIC, 0.99, [0.0325, 0.0054, 0.6878], 720),
    (MNIST, 0.5, [0.4468, 0.5917, 1], 238_801),
    (MNIST, 0.8, [0.1742, 0.2306, 1], 95_521),
    (MNIST, 0.9, [0.0833, 0.1103, 1], 47_761),
    (MNIST, 0.95, [0.0378, 0.0501, 1], 23_881),
    (MNIST, 0.99, [0.0075, 0.0100, 0.2045], 4_777),
]


@pytest.mark.parametrize(("shapes", "sparsity", "densities", "nnz"), ERK_TABLE)
def test_erk_agrees_with_the_reference_table(
    shapes: list[Shape], sparsity: float, densities: list[float], nnz: int
) -> None:
    found = erk(shapes, 1 - sparsity)
    assert [round(density, 4) for density in found] == densities
    assert total(shapes, found) == nnz


# sparse-rl.md 8: all layers share one budget; the two critics of RLx2 are one module. (It has .449 for .44965.)
@pytest.mark.parametrize(
    ("shapes", "sparsity", "densities"),
    [
        (mlp(17, 6), 0.90, [0.448, 0.056, 1.0]),
        (2 * mlp(23, 1), 0.85, 2 * [0.629, 0.104, 1.0]),
        (mlp(11, 3), 0.98, [0.126, 0.010, 0.450]),
        (2 * mlp(14, 1), 0.95, 2 * [0.310, 0.032, 1.0]),
        (mlp(111, 8), 0.96, [0.043, 0.026, 0.433]),
        (2 * mlp(119, 1), 0.88, 2 * [0.157, 0.099, 1.0]),
    ],
)
def test_erk_agrees_with_rlx2(shapes: list[Shape], sparsity: float, densities: list[float]) -> None:
    assert [round(density, 3) for density in erk(shapes, 1 - sparsity)] == densities


def test_erk_with_clipping_worked_by_hand() -> None:
    # r = 2, 3/2, 1/2 and N = 1, 2, 16; budget 19 - floor(.5) - floor(1) - floor(8) = 10, weight 2 + 3 + 8 = 13.
    # e = 10/13: layer 0 has 20/13 > 1 and layer 1 has 15/13 > 1, but only layer 0 becomes dense.
    # Then e = 9/11: layer 1 has 27/22 > 1 and becomes dense. Then e = 7/8: layer 2 has 7/16.
    assert erk([(1, 1), (2, 1), (4, 4)], 0.5) == [1.0, 1.0, 7 / 16]
    # r = 1, 3/4, 3/8 and N = 4, 8, 32; budget 22, weight 4 + 6 + 12 = 22, e = 1: nothing exceeds 1.
    assert erk([(2, 2), (4, 2), (8, 4)], 0.5) == [1.0, 0.75, 0.375]
    # The same with budget 44 - 1 - 3 - 12 = 28: e = 28/22 makes layer 0 dense; then e = 24/18 makes layer 1 exactly 1.
    assert erk([(2, 2), (4, 2), (8, 4)], 0.6125) == [1.0, 1.0, 0.5]


def test_erk_of_density_one_is_dense() -> None:
    assert erk(ACTOR, 1.0) == [1.0, 1.0, 1.0]
    assert erk([(1, 1)], 1.0) == [1.0]


def test_erk_of_no_layers_is_empty() -> None:
    assert erk([], 0.5) == []


def test_erk_of_power_zero_is_uniform() -> None:
    assert erk([(10, 10), (20, 10), (10, 100)], 0.3, power=0.0) == pytest.approx([0.3, 0.3, 0.3])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6),
    percent=st.integers(1, 100),
)
def test_erk_solves_the_budget(shapes: list[Shape], percent: int) -> None:
    assert erk(shapes, percent / 100) == pytest.approx(erk_densities(shapes, percent / 100), abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "epsilon", "density", "nnz"),
    [
        ((256, 256), 64, 0.5, 32_768),
        ((256, 17), 7, 1911 / 4352, 1911),
        ((256, 23), 7, 1953 / 5888, 1953),
        ((2, 4), 1, 0.75, 6),
        ((2, 4), 2, 1.0, 8),  # 1.5 is clipped
        ((256, 27), 40, 1.0, 6912),  # Ant-v4 with the factor for Ant-v3
    ],
)
def test_erdos_renyi_worked_by_hand(shape: Shape, epsilon: float, density: float, nnz: int) -> None:
    assert erdos_renyi([shape], [epsilon]) == pytest.approx([density], rel=1e-15)
    assert exact_nnz(shape, erdos_renyi([shape], [epsilon])[0]) == nnz


# sparse-rl.md 1.2: (observations, actions), first factor, densities of actor and critic, weights sparse and dense.
@pytest.mark.parametrize(
    ("n_obs", "n_act", "factor", "actor", "critic", "sparse", "dense", "percent"),
    [
        (17, 6, 7, 0.439, 0.332, 106_169, 214_784, 50.6),
        (11, 3, 7, 0.664, 0.527, 105_233, 207_872, 49.4),
        (111, 8, 40, 0.517, 0.492, 145_544, 288_512, 49.6),
        (376, 17, 61, 0.401, 0.393, 220_898, 498_944, 55.7),
    ],
)
def test_ds_td3_sizes(
    n_obs: int, n_act: int, factor: float, actor: float, critic: float, sparse: int, dense: int, percent: float
) -> None:
    networks = [mlp(n_obs, n_act), mlp(n_obs + n_act, 1), mlp(n_obs + n_act, 1)]
    hidden = [erdos_renyi(shapes[:2], [factor, 64]) for shapes in networks]
    assert [[round(d, 3) for d in densities] for densities in hidden] == [[actor, 0.5], [critic, 0.5], [critic, 0.5]]
    nnz = sum(total(shapes, [*densities, 1.0]) for shapes, densities in zip(networks, hidden, strict=True))
    size = sum(total(shapes, [1.0, 1.0, 1.0]) for shapes in networks)
    assert (nnz, size) == (sparse, dense)
    assert round(100 * (1 - nnz / size), 1) == percent


@pytest.mark.parametrize(
    ("n_obs", "n_act", "factors", "percent"),
    [
        (17, 6, [12, 80], 36.9),
        (11, 3, [7, 20], 81.6),
        (111, 8, [30, 64], 53.0),
        (376, 17, [61, 64], 55.2),
    ],
)
def test_ds_sac_sparsity(n_obs: int, n_act: int, factors: list[float], percent: float) -> None:
    networks = [mlp(n_obs, 2 * n_act), mlp(n_obs + n_act, 1), mlp(n_obs + n_act, 1)]
    nnz = sum(total(shapes, [*erdos_renyi(shapes[:2], factors), 1.0]) for shapes in networks)
    size = sum(n_out * n_in for shapes in networks for n_out, n_in in shapes)
    assert round(100 * (1 - nnz / size), 1) == percent


@pytest.mark.parametrize(
    ("shape", "density", "nnz"),
    [
        ((2, 4), 0.5, 4),
        ((2, 4), 1.0, 8),
        ((2, 5), 0.9, 9),  # on paper exactly one connection goes; in floating point 0.99999...
        ((10, 10), 0.29, 29),
        ((2, 5), 0.55, 6),  # 4.5 absent ones become 4
        ((2, 5), 1e-9, 1),  # never none
        ((1, 1), 0.01, 1),
        ((256, 17), 0.4481, 1951),  # 4352 - floor(2401.87)
        ((100_000, 100_000), 1e-4, 1_000_000),
    ],
)
def test_exact_nnz_worked_by_hand(shape: Shape, density: float, nnz: int) -> None:
    assert exact_nnz(shape, density) == nnz


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(n_out=st.integers(1, 500), n_in=st.integers(1, 500), data=st.data())
def test_exact_nnz_gives_back_every_count(n_out: int, n_in: int, data: st.DataObject) -> None:
    nnz = data.draw(st.integers(1, n_out * n_in))
    assert exact_nnz((n_out, n_in), nnz / (n_out * n_in)) == nnz


def test_uniform_and_per_layer() -> None:
    assert uniform(ACTOR, 0.25) == [0.25, 0.25, 0.25]
    assert per_layer(ACTOR, (0.1, 0.2, 1.0)) == [0.1, 0.2, 1.0]


@pytest.mark.parametrize("density", [0.0, -0.1, 1.0001, float("nan")])
def test_densities_out_of_range_are_refused(density: float) -> None:
    allocations: list[Callable[[], object]] = [
        lambda: check_density(density),
        lambda: uniform(ACTOR, density),
        lambda: erk(ACTOR, density),
        lambda: per_layer(ACTOR, [0.5, density, 0.5]),
    ]
    for allocate in allocations:
        with pytest.raises(TopologyError, match=re.escape(f"density must be in (0, 1], got {density}")):
            allocate()


@pytest.mark.parametrize("densities", [[], [0.5, 0.5], [0.5] * 4])
def test_the_number_of_densities_must_fit(densities: list[float]) -> None:
    with pytest.raises(TopologyError, match=f"3 .*need as many densities, got {len(densities)}"):
        per_layer(ACTOR, densities)


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [([7, 7], "need as many epsilon, or one, got 2"), ([7, 0, 1], "positive"), ([7, -1, 1], "positive")],
)
def test_bad_epsilon_is_refused(epsilon: list[float], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        erdos_renyi(ACTOR, epsilon)


# --- a last layer of its own ------------------------------------------------------------------------


def test_uniform_plus_keeps_a_fifth_of_the_last_layer() -> None:
    # catalogue.md 3: 308 of 1536, .9022 of the others are pruned; 7142.4 in all, less 308, of 69,888.
    found = uniform_plus(ACTOR, 0.1)
    assert [round(1 - density, 4) for density in found[:2]] == [0.9022, 0.9022]
    assert exact_nnz(ACTOR[2], found[2]) == 308
    assert sum(d * a * b for d, (a, b) in zip(found, ACTOR, strict=True)) == pytest.approx(7142.4)


def test_uniform_plus_is_uniform_where_that_keeps_as_much() -> None:
    assert uniform_plus(ACTOR, 0.3) == [0.3] * 3
    assert uniform_plus([(6, 256)], 0.1) == [0.1]


def test_uniform_plus_needs_connections_for_the_other_layers() -> None:
    with pytest.raises(TopologyError, match=r"density 0.004 of 71424 .* 308 .* use more than 0.00431"):
        uniform_plus(ACTOR, 0.004)


def test_erk_plus_leaves_the_last_layer_out_of_the_budget() -> None:
    # topology.md 1.1: over two hidden layers alone, .5 of 69,888 is 4352 + 30,592.
    assert erk_plus(ACTOR, 0.5, 0.25) == pytest.approx([1.0, 30_592 / 65_536, 0.25])
    with pytest.raises(TopologyError, match="density must be in"):
        erk_plus(ACTOR, 0.5, 0.0)


def test_a_density_leaves_each_layer_a_connection() -> None:
    check_can_be_met(3 / 21, [(3, 4), (2, 3), (3, 1)])
    with pytest.raises(TopologyError, match=r"density 0.1 leaves 3 layers of 21 .* the closest is 0.14"):
        check_can_be_met(0.1, [(3, 4), (2, 3), (3, 1)])
