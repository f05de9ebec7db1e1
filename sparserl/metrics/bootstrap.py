"""Bootstrap over seeds: resamples, intervals, and the interquartile mean.

Decides how seeds are resampled. Independent of what is computed from them.

Not `scipy.stats.bootstrap`: it refuses a sample of one seed and serves one number a call, while one draw of seeds here
serves every metric of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Seeds = npt.NDArray[np.int64]

RESAMPLES = 4000
LEVEL_PERCENT = 90
"""Number of resamples and level of an interval in Continual World (Wolczyk et al. 2021)."""


@dataclass(frozen=True)
class Estimate:
    """A number and its bootstrap interval; NaN where undefined."""

    value: float
    low: float
    high: float


def resample(n_seeds: int, rng: np.random.Generator) -> Seeds:
    """Which seeds each resample holds, (RESAMPLES, n_seeds): `values[drawn].mean(axis=1)` are their means."""
    return rng.integers(n_seeds, size=(RESAMPLES, n_seeds))


def resample_each_task(values: Floats, rng: np.random.Generator) -> Seeds:
    """Which seeds each resample holds of each task, drawn for each task by itself: of (S, T), (RESAMPLES, S, T)."""
    return rng.integers(len(values), size=(RESAMPLES, *values.shape))


def of_each_task(values: Floats, drawn: Seeds) -> Floats:
    """Values of the seeds that `resample_each_task` drew: of (S, T), (RESAMPLES, S, T)."""
    taken: Floats = values[drawn, np.arange(values.shape[1])]
    return taken


def stratified(values: Floats, rng: np.random.Generator) -> Floats:
    """Values of resampled seeds, drawn for each task by itself, so that every task keeps its share.

    Args:
        values: (S, T) float, one value per seed and task.
        rng: Draws the seeds.

    Returns:
        (RESAMPLES, S, T)

    Source:
        Stratified bootstrap of Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", section 4.
    """
    return of_each_task(values, resample_each_task(values, rng))


def interval(resampled: Floats, level_percent: float = LEVEL_PERCENT) -> tuple[float, float]:
    """Percentile interval; (NaN, NaN) if one of the values is NaN.

    Args:
        resampled: (RESAMPLES,) float, a quantity computed from each resample.
        level_percent: Share of the resamples within.

    Example:
        >>> interval(np.arange(101.0))
        (5.0, 95.0)
    """
    low, high = band(resampled, level_percent)
    return float(low), float(high)


def band(resampled: Floats, level_percent: float = LEVEL_PERCENT) -> tuple[Floats, Floats]:
    """Percentile interval at each index: of (RESAMPLES, ...) its lower and upper ends, (...) each."""
    low, high = np.percentile(resampled, [(100 - level_percent) / 2, (100 + level_percent) / 2], axis=0)
    return low, high


def interquartile_mean(values: Floats) -> Floats:
    """Mean over the last axis without the lowest and the highest quarter (rounded down); NaN if one value is NaN.

    Args:
        values: (..., N) float, N >= 1.

    Returns:
        (...)

    Source:
        IQM of Agarwal et al. 2021, section 4; the 25 % trimmed mean.

    Example:
        >>> float(interquartile_mean(np.array([9.0, 1.0, 2.0, -50.0])))
        1.5
    """
    n = values.shape[-1]
    ordered = np.sort(values, axis=-1)  # NaN last
    middle = ordered[..., n // 4 : n - n // 4].mean(axis=-1)
    means: Floats = np.where(np.isnan(ordered[..., -1]), np.nan, middle)
    return means
