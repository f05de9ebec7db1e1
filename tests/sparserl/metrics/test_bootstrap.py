"""Resamples of seeds: what they hold, and intervals and trimmed means as SciPy has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sparserl.metrics.bootstrap import RESAMPLES, band, interquartile_mean, interval, resample, stratified
from sparserl.seeding import stream


def test_a_resample_draws_as_many_seeds_as_there_are_each_as_likely() -> None:
    drawn = resample(5, stream(0, "test"))
    assert drawn.shape == (RESAMPLES, 5)
    assert np.bincount(drawn.ravel()) / drawn.size == pytest.approx(np.full(5, 0.2), abs=0.01)
    assert np.array_equal(drawn, resample(5, stream(0, "test")))


def test_a_task_keeps_its_share_in_a_stratified_resample() -> None:
    drawn = stratified(np.array([[0.0, 10.0], [1.0, 11.0]]), stream(0, "test"))
    assert drawn.shape == (RESAMPLES, 2, 2)
    assert np.unique(drawn[..., 0]).tolist() == [0, 1]
    assert np.unique(drawn[..., 1]).tolist() == [10, 11]
    together = (drawn[..., 1] - drawn[..., 0] == 10).mean()  # the same seed for both tasks
    assert together == pytest.approx(0.5, abs=0.05)


def test_an_interval_is_that_of_scipy() -> None:
    seeds = stream(1, "test").normal(size=12)
    low, high = interval(seeds[resample(12, stream(2, "test"))].mean(axis=1))
    expected = stats.bootstrap(
        (seeds,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=stream(3, "test")
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_an_interval_of_something_unknown_is_unknown() -> None:
    assert all(math.isnan(end) for end in interval(np.array([0.0, math.nan, 1.0])))


def test_the_level_of_an_interval_and_of_a_band() -> None:
    resampled = np.arange(101.0)
    assert (interval(resampled), interval(resampled, 50)) == ((5, 95), (25, 75))
    low, high = band(np.stack([resampled, 2 * resampled], axis=1), 50)
    assert (low.tolist(), high.tolist()) == ([25, 50], [75, 150])


@pytest.mark.parametrize("n", range(1, 14))
def test_the_interquartile_mean_is_the_trimmed_mean_of_scipy(n: int) -> None:
    values = stream(n, "test").normal(size=(3, n))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=1))


def test_the_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([5.0, 1.0, 3.0, 900.0, 2.0])) == pytest.approx(10 / 3)
    # Sorting puts NaN last, where it would be cut off.
    assert math.isnan(interquartile_mean(np.array([5.0, 1.0, 3.0, math.nan, 2.0])))
