"""Finished runs of continual RL, put into groups and compared with runs from scratch.

Decides what counts as seeds of one method, and which runs from scratch a method may be compared with.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import Floats
from sparserl.metrics.continual_rl import Reference, RLSummary, Scores, scores, summary
from sparserl.metrics.statistics import least_difference
from sparserl.report.rl_run import RLRun, RLTask
from sparserl.report.seed_groups import legend, seed_groups
from sparserl.seeding import stream

SCRATCH = "scratch"
"""The method of reference."""
NORMALISED = "normalised_return"
"""Returns with 0 at random actions and 1 at fresh networks; other measures are columns of eval.csv."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in the seed alone.

    Attributes:
        label: What tells them from other groups on the same tasks with the same agent.
        runs: At least one, by seed.
    """

    label: str
    runs: tuple[RLRun, ...]

    @property
    def first(self) -> RLRun:
        """The run of the lowest seed; in all that is not of a seed, the others are like it."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.seed for run in self.runs]

    def scores(self, tasks: Sequence[RLTask], measure: str, policy: str, last: int) -> Scores:
        """Performances of the seeds, (S, T), the tasks in the order given and not in that in which a seed met them.

        Raises:
            ConfigError: If a run has fewer than `last` evaluations of a task in its own interval.
        """
        of_runs = [_scores(run, tasks, measure, policy, last) for run in self.runs]
        return Scores(*(np.stack([getattr(one, part) for one in of_runs]) for part in ("end", "own", "auc")))


@dataclass(frozen=True)
class RLComparison:
    """Groups on the same tasks with the same agent, and what they are compared with.

    Attributes:
        tasks: (T,) in the order in which the first run met them; families of tasks are ordered by the seed.
        groups: At least one; the reference is among them.
        reference: Runs from scratch, or None.
        why_none: Why there is no reference, in one line; empty if there is one.
    """

    tasks: tuple[RLTask, ...]
    groups: tuple[RunGroup, ...]
    reference: RunGroup | None
    why_none: str = ""

    @property
    def first(self) -> RLRun:
        """A run, for all that is the same in all of them."""
        return self.groups[0].first

    @property
    def settings(self) -> list[str]:
        """What differs between groups of one method and is not in their labels."""
        return legend({group.label: group.runs for group in self.groups}, _name)

    @property
    def measures(self) -> tuple[str, ...]:
        """What performance is, the headline first; success if every run signals it, else returns."""
        if all(run.signals_success for group in self.groups for run in group.runs):
            return ("success", "success_last")
        return ("return",) if self.reference is None else (NORMALISED, "return")

    def summary(self, group: RunGroup, measure: str, policy: str, last: int) -> RLSummary:
        """The metrics of one group. Resamples depend on what is summarised alone, so a report repeats exactly.

        Args:
            group: One of `groups`.
            measure: One of `measures`.
            policy: Name in `POLICIES`; that of the reference is the same.
            last: Evaluations that "at the end" averages.

        Raises:
            ConfigError: If a run has fewer than `last` evaluations of a task in its own interval.
        """
        column = "return" if measure == NORMALISED else measure
        reference = None
        if self.reference is not None:
            random = [run.random_returns[_indices(run, self.tasks)] for run in self.reference.runs]
            reference = Reference(
                self.reference.scores(self.tasks, column, policy, last),
                np.stack(random) if measure == NORMALISED else None,
                rates=measure != "return",
                unlearned=self._unlearned() if measure == NORMALISED else {},
            )
        run = group.first
        rng = stream(0, "report", run.sequence, run.algo, run.method, run.topology, measure, policy)
        return summary(group.scores(self.tasks, column, policy, last), reference, rng)

    def _unlearned(self) -> dict[int, str]:
        """Tasks on which the reference, all its runs together, learned nothing, with the reason."""
        assert self.reference is not None
        scratch, random = [], []
        for task in self.tasks:
            of_runs = [_episodes(run, task) for run in self.reference.runs]
            scratch.append(np.concatenate([learned for learned, _ in of_runs]))
            random.append(np.concatenate([chance for _, chance in of_runs]))
        return why_unlearned(scratch, random)


def why_unlearned(scratch: Sequence[Floats], random: Sequence[Floats]) -> dict[int, str]:
    """Tasks on which returns from scratch cannot be told from those of random actions, each with the reason.

    A difference that is noise would make any return look many times as good as from scratch.

    Args:
        scratch: (T,) returns of single episodes of fresh networks at the end of training on each task, of all runs.
        random: (T,) likewise of uniformly random actions.

    Example:
        >>> few, many = np.array([9.0, 11.0]), np.array([100.0, 102.0])
        >>> list(why_unlearned([few + 1, many], [few, few]))
        [0]
    """
    found = {}
    for task, (ours, theirs) in enumerate(zip(scratch, random, strict=True)):
        least = least_difference(ours, theirs)
        if ours.mean() - theirs.mean() <= least:
            means = f"{ours.mean():.5g} and {theirs.mean():.5g}"
            apart = "one episode each" if math.isinf(least) else f"not {least:.3g} apart, two standard errors"
            found[task] = f"from scratch nothing was learned on task {task}: {means} of random actions, {apart}"
    return found


def _episodes(run: RLRun, task: RLTask) -> tuple[Floats, Floats]:
    """Returns of single episodes on a task: at the end of training on it, and of random actions."""
    index = run.tasks.index(task)
    return run.learned_returns(index), run.random["return"][run.random["task"] == index]


def sections(runs: Sequence[RLRun]) -> list[RLComparison]:
    """Puts runs that may be compared together: one section for each reference, one for what has none.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    alike: dict[Any, list[RLRun]] = defaultdict(list)
    for run in runs:
        alike[run.sequence, run.algo, tuple(sorted(run.tasks))].append(run)
    scratch = [run for run in runs if run.method == SCRATCH]
    return [section for members in alike.values() for section in _sections(_groups(members), scratch)]


def _sections(groups: Sequence[RunGroup], scratch: Sequence[RLRun]) -> Iterator[RLComparison]:
    tasks = min(groups, key=lambda group: group.first.seed).first.tasks
    compared: set[str] = set()
    for reference in groups:
        if reference.first.method == SCRATCH:
            comparable = [group for group in groups if difference(group.first, reference.first) is None]
            compared |= {group.label for group in comparable}
            yield RLComparison(tasks, tuple(comparable), reference)
    others: dict[str, list[RunGroup]] = defaultdict(list)
    for group in groups:
        if group.label not in compared:
            others[_why_none(group.first, scratch)].append(group)
    for why_none, members in others.items():
        yield RLComparison(tasks, tuple(members), None, why_none)


def _why_none(run: RLRun, scratch: Sequence[RLRun]) -> str:
    if not scratch:
        return f"no runs of --method {SCRATCH} given"
    nearest = max(scratch, key=lambda one: one.sequence == run.sequence)
    return f"{nearest.path} is no reference, {difference(run, nearest)}"


def _groups(runs: Sequence[RLRun]) -> list[RunGroup]:
    """Seeds of the same; what else differs between runs of a method goes into the label."""
    groups = seed_groups(runs, _name)
    return [RunGroup(label, tuple(members)) for label, members in groups.items()]


def _name(run: RLRun) -> str:
    return f"{run.method}, {run.topology}"


_COMPARED: dict[str, Callable[[RLRun], Any]] = {
    "sequence": lambda run: run.sequence,
    "algo": lambda run: run.algo,
    "number of tasks": lambda run: len(run.tasks),
    "steps per task": lambda run: sorted({task.steps for task in run.tasks}),
    "agent.net_arch": lambda run: run.config["agent"]["net_arch"],
}


def difference(run: RLRun, reference: RLRun) -> str | None:
    """Why a run from scratch cannot be the reference of a run, in one line; None if it can.

    Tasks with their steps and modifications, agent and widths must be the same, and evaluations at the same env steps.
    The density may differ: against a dense reference and against one of the same density are two questions.
    """
    for name, of in _COMPARED.items():
        if of(run) != of(reference):
            return f"{name} {of(run)} and {of(reference)}"
    for task in run.tasks:
        if task not in reference.tasks:
            return f"task {task.name!r} of {task.env} is not one of its tasks, or modified otherwise"
    at_one_alone = np.setxor1d(run.steps, reference.steps)
    return f"one of them alone was evaluated at env step {at_one_alone[0]:.0f}" if at_one_alone.size else None


def _indices(run: RLRun, tasks: Sequence[RLTask]) -> list[int]:
    """Where in the sequence of a run some tasks come."""
    return [run.tasks.index(task) for task in tasks]


def _scores(run: RLRun, tasks: Sequence[RLTask], measure: str, policy: str, last: int) -> Scores:
    try:
        by_task = scores(run.steps, run.performance(measure, policy), [task.steps for task in run.tasks], last=last)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: {error}") from None
    indices = _indices(run, tasks)
    return by_task.map(lambda values: values[indices])
