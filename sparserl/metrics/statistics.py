"""What runs on several tasks say together: aggregates, improvement, profiles, and how sure they are.

Decides the definitions, those of Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice" (arXiv
2108.13264), and of `rliable`. Independent of what the scores are, and how they were normalised.

Scores are (S, T), one of each run and task, finite. Intervals are percentile intervals of a bootstrap that resamples
the runs of each task by themselves; one run has none, which is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import (
    Estimate,
    Floats,
    Seeds,
    band,
    interquartile_mean,
    interval,
    of_each_task,
    resample_each_task,
)

LEVEL_PERCENT = 95
"""Of the intervals of Agarwal et al."""


@dataclass(frozen=True)
class Band:
    """A value at each of some points and its pointwise interval, NaN where undefined."""

    value: Floats
    low: Floats
    high: Floats


# --- aggregates: (..., S, T) -> (...) ---------------------------------------------------------------


def mean(scores: Floats) -> Floats:
    """Mean over runs and tasks."""
    means: Floats = scores.mean(axis=(-2, -1))
    return means


def median(scores: Floats) -> Floats:
    """Median over tasks of the mean over runs: (..., S, T) -> (...)."""
    medians: Floats = np.median(scores.mean(axis=-2), axis=-1)
    return medians


def median_run(scores: Floats) -> Floats:
    """Median over runs of the mean over tasks: (..., S, T) -> (...). On one task, where `median` is the mean."""
    medians: Floats = np.median(scores.mean(axis=-1), axis=-1)
    return medians


def iqm(scores: Floats) -> Floats:
    """Interquartile mean over runs and tasks together: (..., S, T) -> (...)."""
    return interquartile_mean(scores.reshape(*scores.shape[:-2], -1))


def optimality_gap(scores: Floats) -> Floats:
    """Mean amount by which scores miss 1, those above it counted as 1: (..., S, T) -> (...); lower is better.

    Of normalised scores alone.

    Example:
        >>> float(optimality_gap(np.array([[0.5, 3.0]])))
        0.25
    """
    gaps: Floats = 1.0 - np.minimum(scores, 1.0).mean(axis=(-2, -1))
    return gaps


OF_ONE_TASK: Mapping[str, Callable[[Floats], Floats]] = {"mean": mean, "median": median_run, "iqm": iqm}
"""Aggregate -> function, on one task."""
OF_TASKS: Mapping[str, Callable[[Floats], Floats]] = {
    "mean": mean,
    "median": median,
    "iqm": iqm,
    "optimality_gap": optimality_gap,
}
"""Likewise, of normalised scores on several tasks."""


def aggregates(
    scores: npt.ArrayLike, functions: Mapping[str, Callable[[Floats], Floats]], rng: np.random.Generator
) -> dict[str, Estimate]:
    """Some aggregates with their intervals, all from the same resamples.

    Args:
        scores: (S, T) float.
        functions: Such as `OF_TASKS`.
        rng: Draws the resamples.

    Raises:
        ConfigError: If scores have another shape, or are not finite; here and everywhere below.
    """
    values = _checked(scores)
    resampled = of_each_task(values, resample_each_task(values, rng))
    return {
        name: _estimate(float(function(values)), function(resampled), len(values))
        for name, function in functions.items()
    }


# --- two groups -------------------------------------------------------------------------------------


def improvement(x: Floats, y: Floats) -> Floats:
    """P(X > Y) of two runs on one task, ties counted half, averaged over tasks: (..., S, T), (..., R, T) -> (...).

    On each task this is the Mann-Whitney U statistic over S R.

    Example:
        >>> float(improvement(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]])))
        0.625
    """
    won = [
        np.sign(x[..., :, np.newaxis, task] - y[..., np.newaxis, :, task]).mean(axis=(-2, -1))
        for task in range(x.shape[-1])  # one after the other: all pairs of all tasks are too many at once
    ]
    probability: Floats = 0.5 + 0.5 * np.mean(won, axis=0)
    return probability


def probability_of_improvement(x: npt.ArrayLike, y: npt.ArrayLike, rng: np.random.Generator) -> Estimate:
    """`improvement` of one group over another with its interval, which needs two runs of each.

    Args:
        x: (S, T) float.
        y: (R, T) float, on the same tasks.
        rng: Draws the resamples of both, each by itself.
    """
    ours, theirs = _checked(x), _checked(y)
    if ours.shape[1] != theirs.shape[1]:
        raise ConfigError(f"both groups must have the same tasks, got {ours.shape[1]} and {theirs.shape[1]}")
    resampled = (of_each_task(values, resample_each_task(values, rng)) for values in (ours, theirs))
    return _estimate(float(improvement(ours, theirs)), improvement(*resampled), min(len(ours), len(theirs)))


def least_difference(x: Floats, y: Floats) -> float:
    """By how much the means of two samples must differ to be told apart: two standard errors of their difference.

    The samples share a variance, so that one value beside several will do; infinite where each has one alone.

    Example:
        >>> round(least_difference(np.array([9.0, 11.0]), np.array([5.0, 7.0])), 3)
        2.828
    """
    freedom = len(x) + len(y) - 2
    if freedom < 1:
        return math.inf
    variance = (((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / freedom
    return float(2.0 * np.sqrt(variance * (1.0 / len(x) + 1.0 / len(y))))


# --- curves -----------------------------------------------------------------------------------------


def performance_profile(scores: npt.ArrayLike, thresholds: npt.ArrayLike, rng: np.random.Generator) -> Band:
    """Share of runs and tasks whose score is above a threshold, at each threshold.

    Args:
        scores: (S, T) float.
        thresholds: (N,) float.
        rng: Draws the resamples, the same for all thresholds.
    """
    values, taus = _checked(scores), np.asarray(thresholds, dtype=np.float64)
    return _band([(values > tau).astype(np.float64) for tau in taus], mean, resample_each_task(values, rng))


def sample_efficiency(curves: npt.ArrayLike, rng: np.random.Generator) -> Band:
    """Interquartile mean at each evaluation.

    Args:
        curves: (E, S, T) float, scores at each evaluation.
        rng: Draws the resamples; a run of a resample is there at all evaluations.
    """
    values = np.asarray(curves, dtype=np.float64)
    if values.ndim != 3 or not len(values):
        raise ConfigError(f"curves must have one score per evaluation, run and task, got shape {values.shape}")
    each = [_checked(one) for one in values]
    return _band(each, iqm, resample_each_task(each[0], rng))


# --- what they share --------------------------------------------------------------------------------


def _checked(scores: npt.ArrayLike) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ConfigError(f"scores must have one value per run and task, got shape {values.shape}")
    if not np.isfinite(values).all():
        run, task = np.argwhere(~np.isfinite(values))[0]
        raise ConfigError(f"scores must be finite, got {values[run, task]} of run {run} on task {task}")
    return values


def _estimate(value: float, resampled: Floats, n_runs: int) -> Estimate:
    return Estimate(value, *(interval(resampled, LEVEL_PERCENT) if n_runs > 1 else (math.nan, math.nan)))


def _band(points: Sequence[Floats], function: Callable[[Floats], Floats], drawn: Seeds) -> Band:
    """A function of the (S, T) at each point; one draw serves all points, one after the other to save memory."""
    values = np.array([function(one) for one in points])
    if drawn.shape[1] < 2:
        unknown = np.full_like(values, np.nan)
        return Band(values, unknown, unknown)
    low, high = np.transpose([band(function(of_each_task(one, drawn)), LEVEL_PERCENT) for one in points])
    return Band(values, low, high)
