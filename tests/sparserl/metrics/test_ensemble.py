"""Metrics of ensembles, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparserl.metrics.ensemble import (
    accuracy,
    calibration_error,
    disagreement,
    divergence,
    negative_log_likelihood,
)

HALVES = np.array([[0.5, 0.5], [0.75, 0.25]])
LABELS = np.array([1, 0])


def test_accuracy_and_likelihood_are_as_worked_by_hand() -> None:
    """The first is taken for class 0, which comes first of equal ones."""
    assert accuracy(HALVES, LABELS) == 0.5
    assert negative_log_likelihood(HALVES, LABELS) == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


def test_a_probability_of_zero_is_finite() -> None:
    sure = np.array([[1.0, 0.0]], np.float32)
    assert 80 < negative_log_likelihood(sure, np.array([1])) < 90
    assert math.isfinite(divergence(np.stack([sure, sure[:, ::-1]])))


def test_disagreement_is_the_mean_over_pairs() -> None:
    members = np.eye(2)[[[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]]
    assert disagreement(members) == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)
    assert math.isnan(disagreement(members[:1]))


def test_divergence_is_as_worked_by_hand() -> None:
    """Of (.5, .5) from (.75, .25): .5 log(2/3) + .5 log 2; the other way: .75 log 1.5 + .25 log .5."""
    members = np.array([[[0.5, 0.5]], [[0.75, 0.25]]])
    there = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    back = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(members) == pytest.approx((there + back) / 2)
    assert math.isnan(divergence(members[:1]))


@pytest.mark.parametrize(("bins", "error"), [(2, 0.25), (4, (abs(1 - 1.8) + abs(1 - 1.2)) / 4), (1, 0.25)])
def test_calibration_error_is_as_worked_by_hand(bins: int, error: float) -> None:
    """Confidences .9 right, .9 wrong, .6 right, .6 wrong: with 4 bins .6 is in (.5, .75], .9 in (.75, 1]."""
    four = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert calibration_error(four, np.array([0, 1, 0, 0]), bins) == pytest.approx(error)


def test_a_sure_and_right_classifier_is_calibrated() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0.0
