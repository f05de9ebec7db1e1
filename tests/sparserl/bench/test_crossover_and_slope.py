"""Where sparse stops being faster, and how time grows: worked by hand."""

from __future__ import annotations

import pytest

from sparserl.bench.crossover import crossover
from sparserl.bench.figures import update_figure
from sparserl.bench.scale import slope, width_and_density
from sparserl.topology.density import erk, exact_nnz


def test_crossover_is_where_the_line_between_two_points_meets_one() -> None:
    # On logarithmic axes, from (0.1, 4) to (0.4, 1/4): half of the way, at sqrt(0.1 * 0.4).
    found = crossover([0.01, 0.1, 0.4, 1.0], [30.0, 4.0, 0.25, 0.1])
    assert found["crossover"] == pytest.approx(0.2)
    assert found["text"] == "0.2"


def test_crossover_on_a_measured_point() -> None:
    assert crossover([0.1, 0.5, 1.0], [4.0, 1.0, 0.5])["crossover"] == pytest.approx(0.5)


def test_the_order_of_densities_does_not_matter() -> None:
    assert crossover([1.0, 0.1], [0.25, 4.0]) == crossover([0.1, 1.0], [4.0, 0.25])


def test_the_first_of_several_crossings_counts() -> None:
    assert crossover([0.1, 0.2, 0.4, 0.8], [2.0, 0.5, 2.0, 0.5])["crossover"] < 0.2


def test_no_crossover_says_on_which_side() -> None:
    assert crossover([0.1, 1.0], [8.0, 1.1]) == {"crossover": None, "text": "above 1"}
    assert crossover([0.01, 1.0], [0.9, 0.1]) == {"crossover": None, "text": "below 0.01"}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_is_the_power_of_a_power_law(power: float) -> None:
    nnz = [100, 1_000, 10_000, 70_000]
    assert slope(nnz, [3.0 * n**power for n in nnz]) == pytest.approx(power)


@pytest.mark.parametrize("nnz", [6_000, 100_000, 316_228, 10_000_000])
def test_width_and_density_give_that_many_connections_ten_a_neuron(nnz: int) -> None:
    width, density = width_and_density(nnz)
    assert nnz / (6 * width) == pytest.approx(10, rel=0.01)
    total = 0
    for n_in, n_out in ((17, 6), (23, 1), (23, 1)):
        shapes = [(width, n_in), (width, width)]
        total += sum(exact_nnz(s, d) for s, d in zip(shapes, erk(shapes, density), strict=True)) + n_out * width
    assert abs(total - nnz) <= 9, "one a layer, and one a network, from rounding up"


def test_the_crossover_is_drawn_where_it_is() -> None:
    speed_ups = [4.0, 0.25]
    rows = [
        {"contender": "ds_td3", "density": density, "pairs": 1, "threads": 1}
        | {"update": {"speed_up": {"median": value, "q25": value, "q75": value}}}
        for density, value in zip([0.1, 0.4], speed_ups, strict=True)
    ]
    at = {"contender": "ds_td3", "pairs": 1, "threads": 1}
    of_sac = {**at, "contender": "ds_sac", "crossover": 0.3, "text": "0.3"}
    crossovers = [{**at, **crossover([0.1, 0.4], speed_ups)}, of_sac, {**at, "crossover": None, "text": "above 1"}]
    configuration = {"width": 16, "batch": 8, "rows": rows, "crossovers": crossovers}
    (axis,) = update_figure({"configurations": [configuration]}).axes
    crosses = [line for line in axis.lines if line.get_marker() == "X"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(pytest.approx(0.2), 1.0)]
    assert [text.get_text() for text in axis.texts] == ["0.2 (1 thread)"]
