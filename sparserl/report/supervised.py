"""Continual runs of classifiers: accuracy, backward and forward transfer, forgetting, with intervals over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparserl.continual.supervised.recorder import REPORTED
from sparserl.errors import ConfigError
from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import RESAMPLES, Floats
from sparserl.recording.evaluations import accuracy_matrix
from sparserl.report.cells import (
    UNKNOWN,
    Record,
    counted,
    estimate_cell,
    estimate_record,
    first_to_last_cell,
    mean_cell,
)
from sparserl.report.document import (
    Chart,
    Interval,
    IntervalChart,
    Line,
    LineChart,
    Point,
    ScatterChart,
    Section,
    Table,
)
from sparserl.report.folders import check_numbers, read_result
from sparserl.report.seed_groups import seed_groups
from sparserl.seeding import stream

COLUMNS = {
    "acc": "ACC",
    "bwt": "BWT",
    "fwt": "FWT",
    "forgetting_final": "forgetting",
    "forgetting_max": "forgetting\nof the best",
    "learning_accuracy": "learning\naccuracy",
}
"""Metric -> head of its column."""


@dataclass(frozen=True)
class SupervisedRun:
    """A finished run.

    Attributes:
        path: Its folder.
        protocol: Sequence, scenario and number of tasks, in words; runs of one are compared.
        method: What it is called: its continual method, and what is special about its topology.
        config: Its resolved config.
        matrix: (T, T) accuracy on each task after each task; NaN where unmeasured.
        result: What `result.json` says.
    """

    path: Path
    protocol: str
    method: str
    config: Mapping[str, Any]
    matrix: Floats
    result: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Root seed."""
        return int(self.config["seed"])


def read_supervised_run(
    path: Path, sequence: str, scenario: str, method: str, config: Mapping[str, Any]
) -> SupervisedRun:
    """Reads a finished run.

    Args:
        path: Its folder.
        sequence: What its tasks are called.
        scenario: What it is told about tasks.
        method: What it is called.
        config: Its resolved config as plain data.

    Raises:
        ConfigError: If its result or eval.csv cannot be read, or lacks something.
    """
    result = read_result(path)
    for key in ("undefined", *REPORTED):
        if key not in result:
            raise ConfigError(f"{path / 'result.json'} has no {key}")
    matrix = accuracy_matrix(path)
    check_numbers(result, (*REPORTED, "wall_s"), path)
    protocol = f"{sequence}, {scenario}-incremental: {len(matrix)} tasks"
    return SupervisedRun(path, protocol, method, config, matrix, result)


# --- records ----------------------------------------------------------------------------------------


def supervised_records(runs: Sequence[SupervisedRun]) -> list[Record]:
    """Groups of seeds of each protocol as plain data that JSON holds.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    by_protocol: dict[str, list[SupervisedRun]] = defaultdict(list)
    for run in runs:
        by_protocol[run.protocol].append(run)
    return [
        {
            "protocol": protocol,
            "groups": [
                _group(protocol, label, members)
                for label, members in seed_groups(alike, lambda run: run.method).items()
            ],
        }
        for protocol, alike in by_protocol.items()
    ]


def _group(protocol: str, label: str, runs: Sequence[SupervisedRun]) -> Record:
    metrics = {name: _metric(runs, name, stream(0, "report", protocol, label, name)) for name in REPORTED}
    reasons = {name: run.result["undefined"][name] for run in runs for name in run.result["undefined"]}
    seen = [[run.matrix[task, : task + 1].mean() for task in range(len(run.matrix))] for run in runs]
    along = [
        _aggregates(np.array(column), stream(0, "report", protocol, label, "seen"))
        for column in zip(*seen, strict=True)
    ]
    return {
        "label": label,
        "seeds": [run.seed for run in runs],
        "runs": [str(run.path) for run in runs],
        "metrics": metrics,
        "undefined": reasons,
        "accuracy_seen": [one["mean"] for one in along],
        "params_nonzero_per_task": [run.result.get("params_nonzero_per_task") for run in runs],
        "numbers_kept": [run.result.get("numbers_kept") for run in runs],
        "wall_s": [run.result.get("wall_s") for run in runs],
    }


def _metric(runs: Sequence[SupervisedRun], name: str, rng: np.random.Generator) -> Record | None:
    """Aggregates over seeds; None if one run lacks the metric."""
    values = [run.result[name] for run in runs]
    return None if None in values else {"values": values, **_aggregates(np.array(values), rng)}


def _aggregates(values: Floats, rng: np.random.Generator) -> Record:
    estimates = statistics.aggregates(values[:, np.newaxis], statistics.OF_ONE_TASK, rng)
    return {name: estimate_record(one) for name, one in estimates.items()}


# --- sections ---------------------------------------------------------------------------------------


def supervised_section(record: Record) -> Section:
    """A protocol as a table, notes and charts."""
    groups = record["groups"]
    rows = [
        [
            f"{group['label']} ({counted(group['seeds'])})",
            *(
                UNKNOWN if (one := group["metrics"][name]) is None else estimate_cell(one["mean"], 3)
                for name in COLUMNS
            ),
            first_to_last_cell(group["params_nonzero_per_task"]),
            mean_cell(group["numbers_kept"]),
            mean_cell(group["wall_s"]),
        ]
        for group in groups
    ]
    table = Table(
        "", ["method", *COLUMNS.values(), "parameters\nafter each task", "numbers\nkept", "wall time (s)"], rows
    )
    return Section(f"{record['protocol']}: accuracy", _notes(groups), [table], _charts(groups))


def _notes(groups: Sequence[Record]) -> list[str]:
    notes = [
        f"means over seeds; intervals: {statistics.LEVEL_PERCENT} % bootstrap over seeds, {RESAMPLES:,} resamples",
        "numbers kept: all that is needed to answer and to learn the next task, values, indices and samples alike",
        "ACC: mean accuracy over all tasks at the end; BWT: negative = forgot; forgetting: positive = forgot",
    ]
    alone = [group["label"] for group in groups if len(group["seeds"]) < 2]
    if alone:
        notes.append(f"no interval ({'; '.join(alone)}): one run")
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in groups:
        for name, head in COLUMNS.items():
            if name in group["undefined"]:
                missing[" ".join(head.split()), group["undefined"][name]].append(group["label"])
    return notes + [f"no {head} ({'; '.join(labels)}): {reason}" for (head, reason), labels in missing.items()]


def _charts(groups: Sequence[Record]) -> list[Chart]:
    charts = []
    for name in ("acc", "forgetting_final"):
        rows = [
            Interval(group["label"], *(group["metrics"][name]["mean"][part] for part in ("value", "low", "high")))
            for group in groups
            if group["metrics"][name] is not None
        ]
        if rows:
            charts.append(Chart(COLUMNS[name], IntervalChart(rows, COLUMNS[name])))
    points = [
        Point(
            group["label"],
            float(np.mean(group["numbers_kept"])),
            *(group["metrics"]["acc"]["mean"][part] for part in ("value", "low", "high")),
        )
        for group in groups
        if None not in group["numbers_kept"] and group["metrics"]["acc"] is not None
    ]
    if points:
        charts.append(Chart("ACC against numbers kept", ScatterChart(points, "numbers kept", "ACC", log_x=True)))
    lines = [_line(group) for group in groups]
    return [*charts, Chart("Accuracy on the tasks seen so far", LineChart(lines, "tasks learned", "mean accuracy"))]


def _line(group: Record) -> Line:
    along = group["accuracy_seen"]
    value, low, high = ([one[part] for one in along] for part in ("value", "low", "high"))
    return Line(group["label"], range(1, len(along) + 1), value, *((None, None) if None in low else (low, high)))
