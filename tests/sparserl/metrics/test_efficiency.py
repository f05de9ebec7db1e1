"""Sizes of dense networks that reach as much, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from sparserl.metrics.efficiency import dense_equivalent

SIZES, QUALITIES = [10_000, 30_000, 100_000], [0.90, 0.95, 0.97]


@pytest.mark.parametrize(
    ("quality", "size"), [(0.96, math.sqrt(30_000 * 100_000)), (0.925, math.sqrt(10_000 * 30_000)), (0.95, 30_000)]
)
def test_worked_by_hand(quality: float, size: float) -> None:
    assert dense_equivalent(SIZES, QUALITIES, quality) == pytest.approx(size)
    assert dense_equivalent(SIZES[::-1], QUALITIES[::-1], quality) == pytest.approx(size)


def test_half_way_between_the_largest_two() -> None:
    assert round(dense_equivalent(SIZES, QUALITIES, 0.96)) == 54_772
    assert dense_equivalent(SIZES, QUALITIES, 0.96) / 10_000 == pytest.approx(5.48, abs=5e-3)


@pytest.mark.parametrize("quality", [0.98, 0.90, 0.5])
def test_what_was_not_tried_is_not_known(quality: float) -> None:
    assert math.isnan(dense_equivalent(SIZES, QUALITIES, quality))


def test_the_first_network_that_reaches_it_counts() -> None:
    """A larger one may be worse: 20 is met on the way from 1 to 10, and again later."""
    assert dense_equivalent([1, 10, 100, 1000], [0.0, 40.0, 10.0, 50.0], 20.0) == pytest.approx(math.sqrt(10))
