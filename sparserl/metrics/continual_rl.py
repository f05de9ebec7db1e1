"""What a continual RL learner kept, lost and gained, as pure functions of curves of evaluations.

Decides the definition and the sign of each metric, those of Continual World. Independent of what learned. The metrics
of one matrix of accuracies are in `sparserl.metrics.continual`.

`performance[e, i]` is the performance p_i on task i at evaluation e, a success rate or a mean return, after `steps[e]`
env steps; NaN where nothing was measured. Task i is trained for `task_steps[i]` steps; its own interval is what follows
the end of the task before, up to and including its own end. The last evaluation of an interval is at its end.

What is undefined is NaN, never 0; `summary` says why. Every metric is a function of means over seeds, so AUCs are
averaged before a ratio is formed.

Source:
    Wolczyk et al. 2021, "Continual World", section 4, where p is the success rate of the stochastic policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import Estimate, Floats, interquartile_mean, interval, resample, stratified

# --- from episodes to three values per task ---------------------------------------------------------


def performance_curves(
    evaluations: npt.ArrayLike, steps: npt.ArrayLike, task: npt.ArrayLike, values: npt.ArrayLike, n_tasks: int
) -> Floats:
    """Mean over the episodes of each task at each evaluation.

    Args:
        evaluations: (E,) env steps of the evaluations, increasing.
        steps: (N,) env step of each episode, one of `evaluations`.
        task: (N,) task of each episode, in [0, n_tasks).
        values: (N,) its return, or 1 for success and 0 for failure; NaN where unknown.
        n_tasks: T.

    Returns:
        (E, T); NaN where there is no episode, or one is unknown.

    Raises:
        ConfigError: If there is no such task.

    Example:
        >>> performance_curves([0, 5], [0, 5, 5], [0, 0, 0], [0.0, 1.0, 0.0], n_tasks=1).tolist()
        [[0.0], [0.5]]
    """
    tasks, grid = np.asarray(task, dtype=np.int64), np.asarray(evaluations)
    wrong = tasks[(tasks < 0) | (tasks >= n_tasks)]
    if wrong.size:
        raise ConfigError(f"tasks are 0 to {n_tasks - 1}, got {wrong[0]}")
    cells = np.searchsorted(grid, np.asarray(steps)) * n_tasks + tasks
    order = np.argsort(cells, kind="stable")  # episodes of a cell stay in their order, so their mean repeats exactly
    in_order = np.asarray(values, dtype=np.float64)[order]
    measured, first = np.unique(cells[order], return_index=True)
    means = np.full(len(grid) * n_tasks, np.nan)
    for cell, part in zip(measured, np.split(in_order, first[1:]), strict=False):  # of no cell there is one empty part
        means[cell] = part.mean()
    return means.reshape(len(grid), n_tasks)


@dataclass(frozen=True)
class Scores:
    """What every metric is made of: three performances per task, with an axis of seeds or resamples in front, or none.

    Attributes:
        end: (..., T) p_i at the end of the run.
        own: (..., T) p_i at the end of task i's own training.
        auc: (..., T) mean of p_i over task i's own interval.
    """

    end: Floats
    own: Floats
    auc: Floats

    def map(self, function: Callable[[Floats], Floats]) -> Scores:
        """The same function of each of the three."""
        return Scores(function(self.end), function(self.own), function(self.auc))


def scores(steps: npt.ArrayLike, performance: npt.ArrayLike, task_steps: npt.ArrayLike, *, last: int = 1) -> Scores:
    """The three performances per task of one run.

    `own` and `end` are means of the last `last` evaluations in task i's own interval and in that of the last task, so
    they coincide for the last task. `auc` is the plain mean of all evaluations in task i's own interval, its end
    included and its beginning not, as in Continual World.

    Args:
        steps: (E,) env steps of the evaluations, increasing.
        performance: (E, T), as above.
        task_steps: (T,) env steps of training of each task, > 0.
        last: Evaluations that "at the end" averages, >= 1. Continual World takes 5 of its 50 per task. 1 is the policy
            that the method hands on, and no one before it: a method that prunes at the end of a task needs that.

    Raises:
        ConfigError: If shapes do not fit, or an interval has fewer than `last` evaluations, or none at its end.

    Example:
        >>> found = scores([1, 2, 3, 4], [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.25, 1.0]], [2, 2])
        >>> found.end.tolist(), found.own.tolist(), found.auc.tolist()
        ([0.25, 1.0], [1.0, 1.0], [0.5, 0.75])
    """
    at, curve = np.asarray(steps, dtype=np.float64), np.asarray(performance, dtype=np.float64)
    lengths = np.asarray(task_steps, dtype=np.float64)
    ends = np.cumsum(lengths)
    if curve.shape != (len(at), len(ends)):
        raise ConfigError(f"performance must have shape ({len(at)}, {len(ends)}), got {curve.shape}")
    if last < 1:
        raise ConfigError(f"last must be at least 1, got {last}")
    rows = [np.flatnonzero((at > end - length) & (at <= end)) for end, length in zip(ends, lengths, strict=True)]
    for task, (row, end) in enumerate(zip(rows, ends, strict=True)):
        if len(row) < last:
            raise ConfigError(
                f"task {task} has {len(row)} evaluations in its own interval, too few for a mean of the last {last}"
            )
        if at[row[-1]] != end:
            raise ConfigError(f"there is no evaluation at the end of task {task}, at env step {end:.0f}")
    return Scores(
        end=curve[rows[-1][-last:]].mean(axis=0),
        own=np.array([curve[row[-last:], task].mean() for task, row in enumerate(rows)]),
        auc=np.array([curve[row, task].mean() for task, row in enumerate(rows)]),
    )


def normalise(returns: Floats, random: Floats, scratch: Floats) -> Floats:
    """Returns G_i as p_i = (G_i - G_i^random) / (G_i^scratch - G_i^random): 0 is random actions, 1 is from scratch.

    Args:
        returns: (..., T), of any of the three of `Scores`.
        random: (..., T) mean return of uniformly random actions.
        scratch: (..., T) mean return of fresh networks at the end of task i's own training, `own` of `Scores`.

    Returns:
        (..., T), can exceed 1 or be negative; NaN for a task on which scratch is not better than random, where it would
        have the wrong sign or none.

    Example:
        >>> normalise(np.array([150.0]), random=np.array([-50.0]), scratch=np.array([350.0])).tolist()
        [0.5]
    """
    span = scratch - random
    normalised: Floats = (returns - random) / np.where(span > 0, span, np.nan)
    return normalised


# --- metrics: one value per task, whose mean over all tasks is the number reported ------------------


def forgetting(own: Floats, end: Floats) -> Floats:
    """Drop from the end of a task's own training to the end of the run, for all tasks; positive = forgot.

    The last task contributes 0. `forgetting_final` of the accuracy matrix leaves it out, so its mean is T / (T - 1)
    times this one's.

    Args:
        own: (..., T), see `Scores`.
        end: (..., T), see `Scores`.
    """
    return own - end


def forward_transfer(auc: Floats, auc_scratch: Floats) -> Floats:
    """(AUC - AUC^scratch) / (1 - AUC^scratch) of each task, the first included; positive = learned faster than scratch.

    Of success rates alone, as 1 must be the most that can be had. It explodes where scratch is near that: see
    `forward_transfer_difference`.

    Args:
        auc: (..., T) in [0, 1], see `Scores`; mean over seeds.
        auc_scratch: Likewise, of fresh networks.

    Returns:
        (..., T) at most 1; NaN where AUC^scratch is 1.

    Example:
        >>> forward_transfer(np.array([0.3]), np.array([0.9])).round(9).tolist()
        [-6.0]
    """
    room = 1.0 - auc_scratch
    gained: Floats = (auc - auc_scratch) / np.where(room > 0, room, np.nan)
    return gained


def forward_transfer_difference(auc: Floats, auc_scratch: Floats) -> Floats:
    """AUC - AUC^scratch of each task, the first included; positive = learned faster than scratch.

    Args:
        auc: (..., T), see `Scores`; mean over seeds.
        auc_scratch: Likewise, of fresh networks.
    """
    return auc - auc_scratch


# --- all of them, with intervals and reasons --------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Runs of a fresh network per task, with the budget and size of what is compared with them.

    Attributes:
        scores: Of the runs, (R, T).
        random: (R, T) mean return of uniformly random actions, as each run measured it, by which performances are
            normalised. None leaves them as they are.
        rates: Whether performances as they are are success rates, of which 1 is the most.
        unlearned: Task -> why nothing was learned on it; returns of such a task are not normalised.

    Raises:
        ConfigError: If performances are said to be success rates, and one is not in [0, 1].
    """

    scores: Scores
    random: Floats | None = None
    rates: bool = True
    unlearned: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        auc = self.scores.auc
        if self.bounded and ((auc < 0) | (auc > 1)).any():
            raise ConfigError("success rates are in [0, 1]; to compare returns, give those of random actions as well")

    @property
    def bounded(self) -> bool:
        """Whether 1 is the most that can be had."""
        return self.rates and self.random is None

    def map(self, function: Callable[[Floats], Floats]) -> Reference:
        """The same function of all arrays."""
        random = None if self.random is None else function(self.random)
        return replace(self, scores=self.scores.map(function), random=random)

    def normalise(self, performances: Floats) -> Floats:
        """Returns as `normalise` has them, if there are those of random actions."""
        if self.random is None:
            return performances
        normalised = normalise(performances, self.random, self.scores.own)
        normalised[..., list(self.unlearned)] = np.nan
        return normalised


@dataclass(frozen=True)
class RLSummary:
    """Every metric of this file as one number, and why some have none.

    Attributes:
        performance: Mean over seeds and tasks of p_i at the end of the run.
        performance_iqm: Interquartile mean of the same; its interval is stratified by task.
        forgetting: Mean of `forgetting` over all tasks; positive = forgot.
        forward_transfer: Mean of `forward_transfer` over all tasks; positive = learned faster than from scratch.
        forward_transfer_difference: Mean of `forward_transfer_difference` over all tasks; the same sign.
        per_task: (T,) of each of these but the interquartile mean, and of `own`, `auc` and `auc_scratch`, from means
            over seeds.
        undefined: Name of each metric that is NaN -> why, in one line; `<name> interval` where its interval alone is.
    """

    performance: Estimate
    performance_iqm: Estimate
    forgetting: Estimate
    forward_transfer: Estimate
    forward_transfer_difference: Estimate
    per_task: dict[str, Floats]
    undefined: dict[str, str]


_MADE_OF = {
    "performance": ("end",),
    "performance_iqm": ("end",),
    "forgetting": ("own", "end"),
    "forward_transfer": ("auc",),
    "forward_transfer_difference": ("auc",),
}
METRICS = tuple(_MADE_OF)
"""Names of the estimates of `RLSummary`."""
_TRANSFER = ("forward_transfer", "forward_transfer_difference")
_WHEN = {"end": "at the end", "own": "at the end of its own training", "auc": "throughout its own interval"}


def summary(seeds: Scores, reference: Reference | None, rng: np.random.Generator) -> RLSummary:
    """All metrics of the seeds of one method, those that cannot be had as NaN with the reason.

    Returns are normalised by the reference if it has those of random actions. Intervals resample the seeds of the
    method and, where they enter, those of the reference, each by itself; they need two of each.

    Args:
        seeds: Of the runs of the method, (S, T).
        reference: What forward transfer and normalising refer to, or None.
        rng: Draws the resamples.

    Raises:
        ConfigError: If method and reference have different numbers of tasks.
    """
    drawn = resample(len(seeds.end), rng)
    mean, means = seeds.map(_mean), seeds.map(lambda values: values[drawn].mean(axis=1))
    of_reference = of_references = spread = None
    if reference is not None:
        if reference.scores.end.shape[1] != seeds.end.shape[1]:
            raise ConfigError(f"the reference has {reference.scores.end.shape[1]} tasks, not {seeds.end.shape[1]}")
        drawn_reference = resample(len(reference.scores.end), rng)
        of_reference = reference.map(_mean)
        of_references = reference.map(lambda values: values[drawn_reference].mean(axis=1))
        spread = of_references.map(lambda values: values[:, np.newaxis])  # beside the seeds of a resample
    per_task = _per_task(mean, of_reference)
    values = {name: per_task[name].mean() for name in METRICS if name in per_task}
    values["performance_iqm"] = _iqm(seeds.end, of_reference)
    resampled = {name: of_metric.mean(axis=-1) for name, of_metric in _per_task(means, of_references).items()}
    resampled["performance_iqm"] = _iqm(stratified(seeds.end, rng), spread)

    estimates, undefined = {}, {}
    for name in METRICS:
        value, low, high = float(values[name]), math.nan, math.nan
        if math.isnan(value):
            undefined[name] = _reason(name, seeds, reference)
        elif why := _no_interval(name, seeds, reference, resampled[name]):
            undefined[f"{name} interval"] = why
        else:
            low, high = interval(resampled[name])
        estimates[name] = Estimate(value, low, high)
    return RLSummary(**estimates, per_task=per_task, undefined=undefined)


def _mean(values: Floats) -> Floats:
    mean: Floats = values.mean(axis=0)
    return mean


def _iqm(end: Floats, reference: Reference | None) -> Floats:
    """(..., S, T) -> (...)"""
    scores = end if reference is None else reference.normalise(end)
    return interquartile_mean(scores.reshape(*scores.shape[:-2], -1))


def _per_task(mean: Scores, reference: Reference | None) -> dict[str, Floats]:
    """Everything that has a value per task, from means over seeds, (..., T)."""
    unknown = np.full_like(mean.auc, np.nan)
    p = mean if reference is None else mean.map(reference.normalise)
    auc_scratch = unknown if reference is None else reference.normalise(reference.scores.auc)
    bounded = reference is not None and reference.bounded
    return {
        "performance": p.end,
        "own": p.own,
        "forgetting": forgetting(p.own, p.end),
        "auc": p.auc,
        "auc_scratch": auc_scratch,
        "forward_transfer": forward_transfer(p.auc, auc_scratch) if bounded else unknown,
        "forward_transfer_difference": forward_transfer_difference(p.auc, auc_scratch),
    }


def _reason(name: str, seeds: Scores, reference: Reference | None) -> str:
    """Why a metric is NaN."""
    for part in _MADE_OF[name]:
        for task in _unknown(getattr(seeds, part)):
            return f"task {task} was not measured {_WHEN[part]}"
    if reference is None:
        return "no runs from scratch to compare with"
    if name == "forward_transfer" and not reference.bounded:
        return "returns can exceed 1, so the difference alone has a meaning"
    for part in (["auc"] if name in _TRANSFER else []) + (["own"] if reference.random is not None else []):
        for task in _unknown(getattr(reference.scores, part)):
            return f"task {task} was not measured {_WHEN[part]} from scratch"
    if reference.random is None:
        return f"the AUC from scratch is 1 on task {np.argmax(_mean(reference.scores.auc) >= 1)}"
    for task in _unknown(reference.random):
        return f"random actions were not measured on task {task}"
    for why in reference.unlearned.values():
        return why
    scratch, random = _mean(reference.scores.own), _mean(reference.random)
    task = int(np.argmax(scratch <= random))
    return f"from scratch is not better than random actions on task {task}: {scratch[task]:.5g} and {random[task]:.5g}"


def _unknown(values: Floats) -> list[int]:
    """Tasks that lack a value in one run."""
    return np.flatnonzero(np.isnan(values).any(axis=0)).tolist()


def _no_interval(name: str, seeds: Scores, reference: Reference | None, resampled: Floats) -> str | None:
    """Why a metric that has a value has no interval; None if it has one."""
    if len(seeds.end) < 2:
        return "one run"
    enters = reference is not None and (name in _TRANSFER or reference.random is not None)
    if reference is not None and enters and len(reference.scores.end) < 2:
        return "one run from scratch"
    return "undefined in some resamples of the runs" if np.isnan(resampled).any() else None
