"""What reports of runs that end in numbers share: finished runs, means of seeds with intervals, tables and notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import RESAMPLES
from sparserl.report.cells import UNKNOWN, Record, counted, estimate_cell, estimate_record
from sparserl.report.document import Interval, Point
from sparserl.report.seed_groups import legend, seed_groups


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        path: Its folder.
        task: What it learned, in words; runs of one are compared.
        method: What it is called.
        config: Its resolved config.
        result: What `result.json` says.
    """

    path: Path
    task: str
    method: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Root seed."""
        return int(self.config["seed"])


R = TypeVar("R", bound=FinishedRun)


def groups_of_tasks(runs: Iterable[R]) -> dict[str, dict[str, list[R]]]:
    """Task -> label -> seeds of one method, in the order in which they come first.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    tasks: dict[str, list[R]] = defaultdict(list)
    for run in runs:
        tasks[run.task].append(run)
    return {task: seed_groups(alike, _method) for task, alike in tasks.items()}


def _method(run: FinishedRun) -> str:
    return run.method


def notes_on_settings(groups: Mapping[str, Sequence[FinishedRun]]) -> list[str]:
    """What differs between groups of one task and is not in their labels."""
    return legend(groups, _method)


def group_record(label: str, runs: Sequence[FinishedRun]) -> Record:
    """Who is in a group."""
    return {"label": label, "seeds": [run.seed for run in runs], "runs": [str(run.path) for run in runs]}


def metric_record(values: Sequence[float | None], rng: np.random.Generator) -> Record | None:
    """What seeds measured, and its aggregates with intervals; None if one of them lacks it."""
    if None in values:
        return None
    return {"values": list(values), **aggregates_record(np.array(values, float), rng)}


def aggregates_record(values: np.ndarray, rng: np.random.Generator) -> Record:
    """(S,) of seeds -> each aggregate with its interval."""
    estimates = statistics.aggregates(values[:, np.newaxis], statistics.OF_ONE_TASK, rng)
    return {name: estimate_record(one) for name, one in estimates.items()}


def group_cell(group: Record) -> str:
    """What a group is called, and of how many seeds it is."""
    return f"{group['label']} ({counted(group['seeds'])})"


def metric_cells(group: Record, names: Iterable[str], digits: int) -> list[str]:
    """Means of some metrics and their intervals."""
    metrics = [group["metrics"][name] for name in names]
    return [UNKNOWN if one is None else estimate_cell(one["mean"], digits) for one in metrics]


def notes_on_means(groups: Sequence[Record], also: str) -> list[str]:
    """What means and intervals are, then something else, then which groups have no interval."""
    interval = f"{statistics.LEVEL_PERCENT} % bootstrap over seeds, {RESAMPLES:,} resamples"
    alone = [group["label"] for group in groups if len(group["seeds"]) < 2]
    notes = [f"means over seeds; intervals: {interval}", also]
    return [*notes, f"no interval ({'; '.join(alone)}): one run"] if alone else notes


def intervals_of(groups: Sequence[Record], metric: str) -> list[Interval]:
    """The mean of a metric and its interval, of each group that has it."""
    return [Interval(group["label"], *_mean(group, metric)) for group in groups if group["metrics"][metric] is not None]


def points_of(groups: Sequence[Record], sizes: Callable[[Record], Sequence[float | None]], metric: str) -> list[Point]:
    """The mean of a metric over that of something else, of each group of which both are known."""
    known = [group for group in groups if group["metrics"][metric] is not None and None not in sizes(group)]
    return [
        Point(group["label"], float(np.mean(sizes(group))), *_mean(group, metric))  # type: ignore[arg-type]  # known
        for group in known
    ]


def _mean(group: Record, metric: str) -> tuple[Any, Any, Any]:
    mean = group["metrics"][metric]["mean"]
    return mean["value"], mean["low"], mean["high"]
