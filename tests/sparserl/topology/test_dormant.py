"""Dormancy: scores worked by hand, then what holds for any activity, and what is refused."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sparserl.errors import TopologyError
from sparserl.topology.dormant import check_threshold, dormancy_scores, dormant

PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)
# Whole numbers, so that their sums are exact.
ACTIVITIES = hnp.arrays(np.float64, st.integers(1, 20), elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 50.0]))


@pytest.mark.parametrize(
    ("activity", "scores"),
    [
        ([0.0, 1.0, 3.0, 4.0], [0.0, 0.5, 1.5, 2.0]),  # mean 2
        ([0.5, 0.25, 0.0, 0.25], [2.0, 1.0, 0.0, 1.0]),  # mean 1/4
        ([7.0, 7.0, 7.0], [1.0, 1.0, 1.0]),
        ([3.0], [1.0]),
        ([0.0], [0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),  # a silent layer: 0/0
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_worked_by_hand(activity: list[float], scores: list[float], dtype: type) -> None:
    found = dormancy_scores(np.array(activity, dtype))
    assert found.dtype == np.float64
    assert found.tolist() == scores


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [True, False, False, False]),
        (0.25, [True, True, False, False]),  # at the threshold counts
        (0.26, [True, True, False, False]),
        (0.75, [True, True, True, False]),
    ],
)
def test_dormant_worked_by_hand(threshold: float, expected: list[bool]) -> None:
    flags = dormant(np.array([0.0, 0.25, 0.75, 3.0]), threshold)
    assert flags.dtype == np.bool_
    assert flags.tolist() == expected


def test_a_silent_layer_is_dormant_as_a_whole() -> None:
    assert dormant(dormancy_scores(np.zeros(5)), 0.0).all()


@PROFILE
@given(ACTIVITIES)
def test_scores_average_one_and_do_not_depend_on_the_unit(activity: np.ndarray) -> None:
    scores = dormancy_scores(activity)
    np.testing.assert_allclose(scores.mean(), 1.0 if activity.any() else 0.0, rtol=1e-12)
    np.testing.assert_array_equal(dormancy_scores(activity * 2.0**-140), scores)  # far below 1e-9
    np.testing.assert_array_equal(dormancy_scores(activity * 2.0**40), scores)


@PROFILE
@given(ACTIVITIES, st.floats(0.0, 1.0, exclude_max=True))
def test_an_active_layer_is_never_dormant_as_a_whole(activity: np.ndarray, threshold: float) -> None:
    flags = dormant(dormancy_scores(activity), threshold)
    assert flags.all() == (not activity.any())
    assert (flags >= (activity == 0.0)).all()  # who is never active is dormant at any threshold


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_activity_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(TopologyError, match="an activity is NaN or infinite"):
        dormancy_scores(np.array([1.0, bad, 0.0]))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 25.0, np.nan])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    message = rf"the dormancy threshold must be in \[0, 1\), got {threshold}"
    with pytest.raises(TopologyError, match=message):
        dormant(np.ones(3), threshold)
    with pytest.raises(TopologyError, match=message):
        check_threshold(threshold)
