"""What a continual learner kept, lost and gained, as pure functions of one matrix of performances.

Decides the definition and the sign of each metric. `returns[i, j]` is the performance on task j after training task i,
both from 0 (accuracies of a supervised learner); NaN where nothing was measured. Independent of what learned, and
among which classes an accuracy was measured: that is the scenario, and it belongs beside every number made here.

What is undefined is NaN, never 0; `summary` says why. A NaN reaches exactly the metrics that need its cell. All results
depend on the order of the tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.bool_]


def _numbers(name: str, values: npt.ArrayLike) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be an array of numbers: {error}") from None
    infinite = np.argwhere(np.isinf(numbers)).tolist()
    if infinite:
        raise ConfigError(f"{name} must be finite, or NaN where unknown, got infinity at {name}{infinite[0]}")
    return numbers


def _matrix(returns: npt.ArrayLike) -> Floats:
    matrix = _numbers("returns", returns)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ConfigError(f"returns must be a (T, T) matrix with T >= 1, got shape {matrix.shape}")
    return matrix


def _per_task(name: str, values: npt.ArrayLike, n_tasks: int) -> Floats:
    vector = _numbers(name, values)
    if vector.shape != (n_tasks,):
        raise ConfigError(f"{name} must have one value per task, shape ({n_tasks},), got shape {vector.shape}")
    return vector


def _mean(values: float | Floats) -> float:
    return float(np.mean(values)) if np.size(values) else math.nan


# --- scalars ----------------------------------------------------------------------------------------


def acc(returns: npt.ArrayLike) -> float:
    """Mean performance over all tasks at the end; every task counts the same.

    Args:
        returns: (T, T) float, `returns[i, j]` = performance on task j after training task i; NaN if unmeasured.

    Raises:
        ConfigError: If `returns` is not a square matrix of at least one task, or holds infinity; here and everywhere
            below.

    Source:
        ACC of Lopez-Paz & Ranzato 2017 (GEM), section 2.

    Example:
        >>> acc([[0.9, 0.1], [0.7, 0.8]])
        0.75
    """
    return _mean(_matrix(returns)[-1])


def acc_weighted(returns: npt.ArrayLike, samples: npt.ArrayLike) -> float:
    """Mean performance over all samples at the end: each task counts by its number of samples.

    Args:
        returns: (T, T) float, as for `acc`.
        samples: (T,) test samples of each task, > 0.

    Raises:
        ConfigError: If `samples` has another shape, or a number in it is not positive.
    """
    matrix = _matrix(returns)
    weights = _per_task("samples", samples, len(matrix))
    if not (weights > 0).all():
        raise ConfigError(f"samples must be positive, got {weights.tolist()}")
    return float(np.average(matrix[-1], weights=weights))


def bwt(returns: npt.ArrayLike) -> float:
    """Backward transfer: mean change from right after a task to the end, tasks but the last; negative = forgot.

    The same as minus the mean of `forgetting_final`. NaN for a single task.

    Args:
        returns: (T, T) float, as for `acc`.

    Source:
        BWT of Lopez-Paz & Ranzato 2017 (GEM), section 2.
    """
    matrix = _matrix(returns)
    return _mean((matrix[-1] - np.diagonal(matrix))[:-1])


def fwt(returns: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Forward transfer: mean gain over random weights on a task just before it is trained, tasks but the first.

    Positive = earlier tasks helped. NaN for a single task. Where the outputs of unseen classes are untrained
    (class-incremental scenario) it has no meaning: leave those cells NaN.

    Args:
        returns: (T, T) float, as for `acc`.
        baseline: (T,) float, performance on each task at random initialisation; the first is not used.

    Raises:
        ConfigError: If `baseline` has another shape.

    Source:
        FWT of Lopez-Paz & Ranzato 2017 (GEM), section 2.
    """
    matrix = _matrix(returns)
    return _mean(np.diagonal(matrix, offset=1) - _per_task("baseline", baseline, len(matrix))[1:])


def learning_accuracy(returns: npt.ArrayLike) -> float:
    """Mean over all tasks of the performance right after training the task: what was learned, kept or not.

    Args:
        returns: (T, T) float, as for `acc`.

    Source:
        LA of Riemer et al. 2019 (MER).
    """
    return _mean(np.diagonal(_matrix(returns)))


def average_incremental_accuracy(returns: npt.ArrayLike) -> float:
    """Mean over time of the mean performance on the tasks seen so far, the present one included.

    Every point in time counts the same; it is not the mean of the lower triangle.

    Args:
        returns: (T, T) float, as for `acc`.

    Source:
        Rebuffi et al. 2017 (iCaRL).
    """
    return _mean(np.array([row[: task + 1].mean() for task, row in enumerate(_matrix(returns))]))


# --- one value per task -----------------------------------------------------------------------------


def forgetting_final(returns: npt.ArrayLike) -> Floats:
    """Drop from right after a task to the end of the run, per task but the last; positive = forgot.

    Args:
        returns: (T, T) float, as for `acc`.

    Returns:
        (T - 1,), negative for a task that became better later.

    Source:
        Minus the terms of BWT; "forgetting" of Avalanche and of Continual World, whose mean counts the last task as 0.

    Example:
        >>> forgetting_final([[0.5, 0.0], [0.25, 0.75]]).tolist()
        [0.25]
    """
    matrix = _matrix(returns)
    lost: Floats = np.diagonal(matrix) - matrix[-1]
    return lost[:-1]


def _best_before_end(matrix: Floats) -> Floats:
    """(T,) highest measured performance on each task before the last one was trained; NaN where there is none."""
    best: Floats = np.fmax.reduce(matrix[:-1], axis=0, initial=np.nan)
    return best


def forgetting_max(returns: npt.ArrayLike) -> Floats:
    """Drop from the best measured before the last task to the end, per task but the last; positive = forgot.

    The last row is no candidate for the best, so a task that is best at the end has a negative value. What was measured
    before the task was trained is one. Unmeasured cells are left out, not taken for 0.

    Args:
        returns: (T, T) float, as for `acc`.

    Returns:
        (T - 1,)

    Source:
        Forgetting measure of Chaudhry et al. 2018 (Riemannian Walk). Implementations that let the last row be the best
        never give a negative value.

    Example:
        >>> forgetting_max([[-5.0, -9.0, -9.0], [-3.0, -4.0, -9.0], [-7.0, -4.0, -1.0]]).tolist()
        [4.0, 0.0]
    """
    matrix = _matrix(returns)
    lost: Floats = _best_before_end(matrix) - matrix[-1]
    return lost[:-1]


def intransigence(returns: npt.ArrayLike, joint: npt.ArrayLike) -> Floats:
    """What a joint model reaches on a task beyond the learner right after it, per task; positive = learned less.

    Args:
        returns: (T, T) float, as for `acc`.
        joint: (T,) float, `joint[t]` = performance on task t of a model trained on tasks 0..t together.

    Returns:
        (T,)

    Raises:
        ConfigError: If `joint` has another shape.

    Source:
        Intransigence measure of Chaudhry et al. 2018 (Riemannian Walk).
    """
    matrix = _matrix(returns)
    return _per_task("joint", joint, len(matrix)) - np.diagonal(matrix)


# --- all of them, with reasons ----------------------------------------------------------------------


def _end(matrix: Floats) -> Cells:
    cells = np.zeros(matrix.shape, dtype=np.bool_)
    cells[-1] = True
    return cells


def _own(matrix: Floats) -> Cells:
    return np.eye(len(matrix), dtype=np.bool_)


def _next(matrix: Floats) -> Cells:
    return np.eye(len(matrix), k=1, dtype=np.bool_)


def _seen(matrix: Floats) -> Cells:
    return np.tri(len(matrix), dtype=np.bool_)


def _own_and_end(matrix: Floats) -> Cells:
    cells = _own(matrix) | _end(matrix)
    cells[:, -1] = False
    return cells


def _best_and_end(matrix: Floats) -> Cells:
    # Any cell before the end will do; where there is none, the task's own is the one to ask for.
    cells = (_own(matrix) & np.isnan(_best_before_end(matrix))) | _end(matrix)
    cells[:, -1] = False
    return cells


@dataclass(frozen=True)
class _Metric:
    function: Callable[..., float | Floats]
    needed: Callable[[Floats], Cells]
    min_tasks: int = 1
    argument: str | None = None


_METRICS = {
    "acc": _Metric(acc, _end),
    "acc_weighted": _Metric(acc_weighted, _end, argument="samples"),
    "bwt": _Metric(bwt, _own_and_end, min_tasks=2),
    "fwt": _Metric(fwt, _next, min_tasks=2, argument="baseline"),
    "forgetting_final": _Metric(forgetting_final, _own_and_end, min_tasks=2),
    "forgetting_max": _Metric(forgetting_max, _best_and_end, min_tasks=2),
    "learning_accuracy": _Metric(learning_accuracy, _own),
    "average_incremental_accuracy": _Metric(average_incremental_accuracy, _seen),
    "intransigence": _Metric(intransigence, _own, argument="joint"),
}

_ARGUMENTS = {
    "baseline": "performance at random initialisation",
    "joint": "joint reference",
    "samples": "numbers of samples",
}


def _reason(metric: _Metric, matrix: Floats, given: Mapping[str, Floats]) -> str:
    """Why a metric is NaN; a missing argument comes last, as giving it mends nothing while a cell is missing."""
    if len(matrix) < metric.min_tasks:
        return f"needs at least {metric.min_tasks} tasks"
    needed = metric.needed(matrix)
    unmeasured = np.argwhere(needed & np.isnan(matrix)).tolist()
    if unmeasured:
        after, task = unmeasured[0]
        if task > after:
            return (
                f"future tasks were not measured, e.g. returns[{after}, {task}]; "
                "outputs of unseen classes are untrained in the class-incremental scenario"
            )
        return f"task {task} was not measured after task {after}, returns[{after}, {task}]"
    assert metric.argument is not None  # the matrix is complete, so it is the argument
    if metric.argument not in given:
        return f"no {_ARGUMENTS[metric.argument]} given ({metric.argument})"
    unknown = np.flatnonzero(needed.any(axis=0) & np.isnan(given[metric.argument])).tolist()
    return f"the {_ARGUMENTS[metric.argument]} of task {unknown[0]} is NaN, {metric.argument}[{unknown[0]}]"


@dataclass(frozen=True)
class ContinualSummary:
    """Every metric of this file as one number, and why some have none.

    Attributes:
        acc: See `acc`.
        acc_weighted: See `acc_weighted`.
        bwt: See `bwt`; negative = forgot.
        fwt: See `fwt`; positive = earlier tasks helped.
        forgetting_final: Mean of `forgetting_final` over the tasks but the last; positive = forgot.
        forgetting_max: Mean of `forgetting_max` over the tasks but the last; positive = forgot.
        learning_accuracy: See `learning_accuracy`.
        average_incremental_accuracy: See `average_incremental_accuracy`.
        intransigence: Mean of `intransigence` over all tasks; positive = learned less than jointly.
        undefined: Name of each metric above that is NaN, and why, in one line.
    """

    acc: float
    acc_weighted: float
    bwt: float
    fwt: float
    forgetting_final: float
    forgetting_max: float
    learning_accuracy: float
    average_incremental_accuracy: float
    intransigence: float
    undefined: dict[str, str]


def summary(
    returns: npt.ArrayLike,
    *,
    baseline: npt.ArrayLike | None = None,
    joint: npt.ArrayLike | None = None,
    samples: npt.ArrayLike | None = None,
) -> ContinualSummary:
    """All metrics of a run, those that cannot be had as NaN with the reason.

    Args:
        returns: (T, T) float, as for `acc`.
        baseline: (T,) float, as for `fwt`, or None.
        joint: (T,) float, as for `intransigence`, or None.
        samples: (T,) numbers of samples, as for `acc_weighted`, or None.

    Raises:
        ConfigError: If an array has the wrong shape or an infinite value, or a number of samples is not positive.

    Example:
        >>> summary([[0.5]], baseline=[0.25], joint=[0.75], samples=[10]).undefined["bwt"]
        'needs at least 2 tasks'
    """
    matrix = _matrix(returns)
    arguments = {"baseline": baseline, "joint": joint, "samples": samples}
    given = {name: _per_task(name, one, len(matrix)) for name, one in arguments.items() if one is not None}
    values, undefined = {}, {}
    for name, metric in _METRICS.items():
        if metric.argument is None:
            values[name] = _mean(metric.function(matrix))
        elif metric.argument in given:
            values[name] = _mean(metric.function(matrix, given[metric.argument]))
        else:
            values[name] = math.nan
        if math.isnan(values[name]):
            undefined[name] = _reason(metric, matrix, given)
    return ContinualSummary(**values, undefined=undefined)
