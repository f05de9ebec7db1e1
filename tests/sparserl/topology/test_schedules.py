"""Schedules of drop fraction and density against the reference vectors."""

from __future__ import annotations

import itertools
import math

import pytest

from sparserl.topology.schedules import (
    DECAY,
    DENSITY,
    Decay,
    constant,
    cosine,
    cosine_floor,
    cubic,
    staged,
    unpruned,
)


@pytest.mark.parametrize("update", [0, 1, 2, 10**9])
@pytest.mark.parametrize("last_update", [None, 1, 100])
def test_constant_is_one(update: int, last_update: int | None) -> None:
    assert constant(update, last_update) == 1.0


@pytest.mark.parametrize(
    ("fraction", "last_update", "update", "expected"),
    [
        (0.3, 750, 0, 0.3000),  # topology.md 1.5
        (0.3, 750, 100, 0.2870),
        (0.3, 750, 375, 0.1500),
        (0.3, 750, 600, 0.0286),
        (0.3, 750, 750, 0.0),
        (0.5, 1000, 500, 0.25),  # sparse-rl.md 8
        (0.5, 1000, 1000, 0.0),
        (1.0, 6, 1, (2 + math.sqrt(3)) / 4),  # cos 30 degrees
        (1.0, 6, 2, 0.75),  # cos 60 degrees
        (1.0, 6, 4, 0.25),  # cos 120 degrees
    ],
)
def test_cosine_vectors(fraction: float, last_update: int, update: int, expected: float) -> None:
    assert fraction * cosine(update, last_update) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("update", [750, 751, 1500, 10**9])
def test_cosine_stays_at_zero_after_its_end(update: int) -> None:
    assert cosine(update, 750) == 0.0


def test_cosine_falls_all_the_way() -> None:
    curve = [cosine(update, 200) for update in range(201)]
    assert all(later < earlier for earlier, later in itertools.pairwise(curve))


def test_cosine_with_an_end_at_zero_is_over_at_once() -> None:
    assert [cosine(update, 0) for update in (1, 2)] == [0.0, 0.0]


def test_cosine_needs_an_end() -> None:
    with pytest.raises(ValueError, match="needs `last_update`"):
        cosine(1, None)


def test_names() -> None:
    assert DECAY["constant"] is constant
    assert DECAY["cosine"] is cosine
    assert DENSITY["constant"].reached is unpruned
    assert DENSITY["cubic"].reached is cubic


def test_a_cosine_with_a_floor_stays_above_it() -> None:
    # topology.md 1.5: from .5 to .005.
    assert [round(0.5 * cosine_floor(update, 100), 6) for update in (0, 50, 100, 1000)] == [0.5, 0.2525, 0.005, 0.005]


def test_stages_of_mest() -> None:
    # Epochs 90 and 120 of 160: .02, .01 and 0 of .1 in the code, a fifth, a tenth and nothing of what exists.
    assert [0.2 * staged(update, 160) for update in (5, 85, 90, 115, 120, 160)] == [0.2, 0.2, 0.1, 0.1, 0.0, 0.0]


@pytest.mark.parametrize("schedule", [cosine_floor, staged])
def test_no_decay_goes_without_an_end(schedule: Decay) -> None:
    with pytest.raises(ValueError, match="needs `last_update`"):
        schedule(1, None)


# --- density ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sparsity", "first", "last", "update", "expected"),
    [
        (0.9, 100, 500, 0, 0.0),  # topology.md 1.5
        (0.9, 100, 500, 100, 0.0),
        (0.9, 100, 500, 200, 0.5203),
        (0.9, 100, 500, 300, 0.7875),
        (0.9, 100, 500, 400, 0.8859),
        (0.9, 100, 500, 500, 0.9),
        (0.9, 100, 500, 10**9, 0.9),
        (0.95, 200, 800, 200, 0.0),  # sparse-rl.md 8
        (0.95, 200, 800, 350, 0.5492),
        (0.95, 200, 800, 500, 0.8313),
        (0.95, 200, 800, 650, 0.9352),
        (0.95, 200, 800, 800, 0.95),
        (1.0, 7, 7, 6, 0.0),
        (1.0, 7, 7, 7, 1.0),
    ],
)
def test_cubic_vectors(sparsity: float, first: int, last: int, update: int, expected: float) -> None:
    assert sparsity * cubic(update, first, last) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize(("first", "last"), [(1, 2), (3, 100), (200_000, 800_000)])
def test_cubic_ends_exactly(first: int, last: int) -> None:
    assert [cubic(update, first, last) for update in (first - 1, first, last, last + 1)] == [0.0, 0.0, 1.0, 1.0]


def test_cubic_rises_ever_more_slowly() -> None:
    curve = [cubic(update, 50, 250) for update in range(50, 251)]
    steps = [later - earlier for earlier, later in itertools.pairwise(curve)]
    assert all(later < earlier for earlier, later in itertools.pairwise(steps))
    assert steps[-1] > 0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ("surplus", [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),  # 56.25 % and 75 % of the way from 100 to 500: 325 and 400
    ],
)
def test_vectors_of_other_schedules(schedule: str, expected: list[float]) -> None:
    reached = DENSITY[schedule].reached
    assert [reached(update, 100, 500) for update in (1, 100, 200, 300, 400, 500, 999)] == expected


def test_a_surplus_is_halved_at_56_percent() -> None:
    assert [DENSITY["surplus"].reached(update, 100, 500) for update in (324, 325, 399, 400)] == [0.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("schedule", "size", "goal", "first"),
    [
        ("constant", 1000, 100, 100),
        ("cubic", 1000, 100, 1000),
        ("linear", 1000, 100, 1000),
        ("surplus", 1000, 100, 120),  # catalogue.md 2.5
        ("surplus", 1000, 900, 1000),
        ("surplus", 1000, 1, 1),
    ],
)
def test_what_a_schedule_begins_with(schedule: str, size: int, goal: int, first: int) -> None:
    assert DENSITY[schedule].first(size, goal) == first


def test_cubic_needs_an_end() -> None:
    with pytest.raises(ValueError, match="needs `last_update`"):
        cubic(1, 1, None)


@pytest.mark.parametrize("last_update", [None, 5])
def test_a_constant_density_prunes_nothing(last_update: int | None) -> None:
    assert [unpruned(update, 1, last_update) for update in (1, 5, 10**9)] == [0.0] * 3
