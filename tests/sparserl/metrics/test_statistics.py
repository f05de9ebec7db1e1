"""Aggregates, improvement, profiles and curves: by hand, as SciPy has them, and what must hold of any scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sparserl.errors import ConfigError
from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import Floats
from sparserl.seeding import stream

# Three runs (rows) on two tasks.
SCORES = np.array([[0.0, 2.0], [1.0, 4.0], [5.0, 0.0]])
FUNCTIONS = {**statistics.OF_TASKS, "median_run": statistics.median_run}
WHOLE = st.integers(-3, 3).map(float)
"""Few values, so that ties are common."""


def scores_of(rng: np.random.Generator, *shape: int) -> Floats:
    drawn: Floats = rng.normal(size=shape)
    return drawn


# --- aggregates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", 2.0),
        ("median", 2.0),  # tasks have means 2 and 2
        ("iqm", 1.75),  # 0 0 1 2 4 5 without the first and the last
        ("optimality_gap", 1 / 3),  # 0 1 1 1 1 0 of 1
        ("median_run", 2.5),  # runs have means 1, 2.5 and 2.5
    ],
)
def test_aggregates_by_hand(name: str, expected: float) -> None:
    assert FUNCTIONS[name](SCORES) == pytest.approx(expected)


def test_the_median_is_over_tasks_and_not_over_runs() -> None:
    assert statistics.median(np.array([[0.0, 1.0, 9.0], [0.0, 3.0, 9.0]])) == 2
    assert statistics.median_run(np.array([[0.0], [1.0], [8.0]])) == 1
    assert statistics.mean(np.array([[0.0], [1.0], [8.0]])) == 3


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 4), (5, 2), (10, 7)])
def test_the_iqm_is_the_trimmed_mean_of_scipy(shape: tuple[int, int]) -> None:
    scores = scores_of(stream(1, "test"), *shape)
    assert statistics.iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_aggregate_of_many_resamples_is_that_of_each(name: str) -> None:
    many = scores_of(stream(2, "test"), 4, 3, 2)
    assert FUNCTIONS[name](many) == pytest.approx([float(FUNCTIONS[name](one)) for one in many])


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)))
@settings(max_examples=30, deadline=None)
def test_aggregates_lie_among_the_scores_in_whatever_order(scores: Floats) -> None:
    for name, function in FUNCTIONS.items():
        value = function(scores)
        assert function(scores[::-1, ::-1]) == pytest.approx(value)
        if name != "optimality_gap":
            assert scores.min() - 1e-9 <= value <= scores.max() + 1e-9
            assert function(2 * scores + 5) == pytest.approx(2 * value + 5)
        else:
            assert value >= max(0, 1 - scores.mean()) - 1e-9


# --- intervals --------------------------------------------------------------------------------------


def test_the_interval_is_that_of_scipy_at_95_percent() -> None:
    scores = scores_of(stream(3, "test"), 12, 1)
    found = statistics.aggregates(scores, {"mean": statistics.mean}, stream(4, "test"))["mean"]
    expected = stats.bootstrap(
        (scores[:, 0],), np.mean, n_resamples=20_000, confidence_level=0.95, method="percentile", rng=stream(5, "test")
    ).confidence_interval
    assert found.value == pytest.approx(scores.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_resamples_are_of_each_task_by_itself() -> None:
    # Runs differ by task alone: whoever mixed tasks, or drew them, would see a spread.
    scores = np.array([[0.0, 10.0]] * 4)
    for name, one in statistics.aggregates(scores, statistics.OF_TASKS, stream(6, "test")).items():
        assert one.low == one.high == one.value, name
    # Runs that are good on one task are bad on the other: drawn together they would always have mean 5.
    opposed = np.array([[0.0, 10.0], [10.0, 0.0]])
    found = statistics.aggregates(opposed, {"mean": statistics.mean}, stream(7, "test"))["mean"]
    assert (found.low, found.high) == (0, 10)


def test_one_run_has_no_interval() -> None:
    rng = stream(8, "test")
    found = statistics.aggregates([[1.0, 2.0]], statistics.OF_TASKS, rng)["mean"]
    improved = statistics.probability_of_improvement([[1.0]], [[0.0], [2.0]], rng)
    profile = statistics.performance_profile([[1.0]], [0.5, 1.5], rng)
    for one in (found, improved):
        assert math.isnan(one.low)
        assert math.isnan(one.high)
    assert (found.value, improved.value, profile.value.tolist()) == (1.5, 0.5, [1, 0])
    assert np.isnan(profile.low).all()


def test_equal_streams_give_equal_intervals() -> None:
    first, again = (statistics.aggregates(SCORES, statistics.OF_TASKS, stream(9, "test")) for _ in range(2))
    assert first == again


# --- improvement ------------------------------------------------------------------------------------


def test_improvement_by_hand() -> None:
    # 1 beats none of (1, 2) and ties one; 3 beats both: (0.5 + 2) of 4. On the second task every pair is a tie.
    x, y = np.array([[1.0, 7.0], [3.0, 7.0]]), np.array([[1.0, 7.0], [2.0, 7.0]])
    assert statistics.improvement(x, y) == pytest.approx((0.625 + 0.5) / 2)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=WHOLE),
    arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=WHOLE),
)
@settings(max_examples=40, deadline=None)
def test_improvement_is_the_u_statistic_and_its_complement(x: Floats, y: Floats) -> None:
    u = [stats.mannwhitneyu(x[:, task], y[:, task]).statistic / (len(x) * len(y)) for task in range(2)]
    assert statistics.improvement(x, y) == pytest.approx(np.mean(u))
    assert statistics.improvement(y, x) == pytest.approx(1 - np.mean(u))
    assert statistics.improvement(x, x) == 0.5


def test_the_interval_of_improvement() -> None:
    better = statistics.probability_of_improvement([[5.0], [6.0]], [[1.0], [2.0]], stream(10, "test"))
    assert (better.value, better.low, better.high) == (1, 1, 1)
    # 2 beats 1 alone; drawn twice it beats all or half, and against 3 twice nothing does.
    mixed = statistics.probability_of_improvement([[0.0], [2.0]], [[1.0], [3.0]], stream(11, "test"))
    assert (mixed.value, mixed.low, mixed.high) == (0.25, 0, 1)


# --- curves -----------------------------------------------------------------------------------------


def test_a_profile_by_hand() -> None:
    profile = statistics.performance_profile(SCORES, [-1.0, 0.0, 1.0, 5.0], stream(12, "test"))
    assert profile.value == pytest.approx([1, 4 / 6, 3 / 6, 0])  # above, so 0 is not above 0
    assert (profile.low[0], profile.high[0]) == (1, 1)
    assert profile.low[1] < 4 / 6 < profile.high[1]


@given(arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 3)), elements=WHOLE))
@settings(max_examples=20, deadline=None)
def test_a_profile_falls_from_one_to_nothing_within_its_band(scores: Floats) -> None:
    profile = statistics.performance_profile(scores, np.linspace(-4, 4, 9), stream(13, "test"))
    for one in (profile.value, profile.low, profile.high):
        assert (np.diff(one) <= 0).all()
        assert (one[0], one[-1]) == (1, 0)
    assert (profile.low <= profile.value).all()
    assert (profile.value <= profile.high).all()


def test_sample_efficiency_is_the_iqm_at_each_evaluation() -> None:
    curves = np.stack([SCORES, SCORES + 10, np.zeros_like(SCORES)])
    found = statistics.sample_efficiency(curves, stream(14, "test"))
    assert found.value == pytest.approx([1.75, 11.75, 0])
    # The same runs are in a resample at each evaluation.
    assert found.low[1] - found.low[0] == pytest.approx(10)
    assert found.high[1] - found.high[0] == pytest.approx(10)
    assert found.low[0] < 1.75 < found.high[0]
    assert (found.low[2], found.high[2]) == (0, 0)


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"one value per run and task, got shape \(2,\)"),
        (np.zeros((0, 2)), r"got shape \(0, 2\)"),
        ([[1.0, 2.0], [3.0, math.nan]], "must be finite, got nan of run 1 on task 1"),
        ([[math.inf]], "must be finite, got inf of run 0 on task 0"),
    ],
)
def test_bad_scores(scores: Any, message: str) -> None:
    rng = stream(15, "test")
    for call in (
        lambda: statistics.aggregates(scores, statistics.OF_TASKS, rng),
        lambda: statistics.probability_of_improvement(scores, [[1.0, 2.0]], rng),
        lambda: statistics.performance_profile(scores, [0.0], rng),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_bad_curves_and_groups() -> None:
    rng = stream(16, "test")
    with pytest.raises(ConfigError, match=r"got shape \(2, 3\)"):
        statistics.sample_efficiency(np.zeros((2, 3)), rng)
    with pytest.raises(ConfigError, match="run 2 on task 0"):
        statistics.sample_efficiency(np.where(np.arange(6).reshape(1, 3, 2) == 4, np.nan, 0.0), rng)
    with pytest.raises(ConfigError, match="the same tasks, got 2 and 1"):
        statistics.probability_of_improvement([[1.0, 2.0]], [[1.0]], rng)
