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
from sparserl.metrics.bootstrap import Floats
from sparserl.recording.evaluations import accuracy_matrix
from sparserl.report.cells import Record, first_to_last_cell, mean_cell
from sparserl.report.document import Chart, IntervalChart, Line, LineChart, ScatterChart, Section, Table
from sparserl.report.folders import check_numbers, read_result
from sparserl.report.seed_means import (
    FinishedRun,
    aggregates_record,
    group_cell,
    group_record,
    groups_of_tasks,
    intervals_of,
    metric_cells,
    metric_record,
    notes_on_means,
    notes_on_settings,
    points_of,
)
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
NUMBERS_KEPT = (
    "numbers kept: all that is needed to answer and to learn the next task, values, indices and samples alike"
)


@dataclass(frozen=True)
class SupervisedRun(FinishedRun):
    """A finished run of a sequence, a scenario and a number of tasks.

    Attributes:
        matrix: (T, T) accuracy on each task after each task; NaN where unmeasured.
    """

    matrix: Floats


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
    if np.isnan(matrix[np.tril_indices(len(matrix))]).any() or len(matrix) != result.get("tasks", len(matrix)):
        raise ConfigError(f"{path / 'eval.csv'} lacks the accuracy on a task after it was learned")
    check_numbers(result, (*REPORTED, "wall_s"), path)
    task = f"{sequence}, {scenario}-incremental: {len(matrix)} tasks"
    return SupervisedRun(path, task, method, config, result, matrix)


# --- records ----------------------------------------------------------------------------------------


def supervised_records(runs: Sequence[SupervisedRun]) -> list[Record]:
    """Groups of seeds of each protocol as plain data that JSON holds.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    return [
        {
            "protocol": protocol,
            "groups": [_group(protocol, label, members) for label, members in alike.items()],
            "notes": notes_on_settings(alike),
        }
        for protocol, alike in groups_of_tasks(runs).items()
    ]


def _group(protocol: str, label: str, runs: Sequence[SupervisedRun]) -> Record:
    metrics = {
        name: metric_record([run.result[name] for run in runs], stream(0, "report", protocol, label, name))
        for name in REPORTED
    }
    reasons = {name: run.result["undefined"][name] for run in runs for name in run.result["undefined"]}
    seen = [[run.matrix[task, : task + 1].mean() for task in range(len(run.matrix))] for run in runs]
    along = [
        aggregates_record(np.array(column), stream(0, "report", protocol, label, "seen"))
        for column in zip(*seen, strict=True)
    ]
    return {
        **group_record(label, runs),
        "metrics": metrics,
        "undefined": reasons,
        "accuracy_seen": [one["mean"] for one in along],
        "params_nonzero_per_task": [run.result.get("params_nonzero_per_task") for run in runs],
        "numbers_kept": [run.result.get("numbers_kept") for run in runs],
        "wall_s": [run.result.get("wall_s") for run in runs],
    }


# --- sections ---------------------------------------------------------------------------------------


def supervised_section(record: Record) -> Section:
    """A protocol as a table, notes and charts."""
    groups = record["groups"]
    rows = [
        [
            group_cell(group),
            *metric_cells(group, COLUMNS, 3),
            first_to_last_cell(group["params_nonzero_per_task"]),
            mean_cell(group["numbers_kept"]),
            mean_cell(group["wall_s"]),
        ]
        for group in groups
    ]
    table = Table(
        "", ["method", *COLUMNS.values(), "parameters\nafter each task", "numbers\nkept", "wall time (s)"], rows
    )
    return Section(f"{record['protocol']}: accuracy", [*_notes(groups), *record["notes"]], [table], _charts(groups))


def _notes(groups: Sequence[Record]) -> list[str]:
    notes = [
        *notes_on_means(groups, NUMBERS_KEPT),
        "ACC: mean accuracy over all tasks at the end; BWT: negative = forgot; forgetting: positive = forgot",
    ]
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in groups:
        for name, head in COLUMNS.items():
            if name in group["undefined"]:
                missing[" ".join(head.split()), group["undefined"][name]].append(group["label"])
    return notes + [f"no {head} ({'; '.join(labels)}): {reason}" for (head, reason), labels in missing.items()]


def _charts(groups: Sequence[Record]) -> list[Chart]:
    lines = [_line(group) for group in groups]
    charts = [Chart("Accuracy on the tasks seen so far", LineChart(lines, "tasks learned", "mean accuracy"))]
    points = points_of(groups, lambda group: group["numbers_kept"], "acc")
    if points:
        charts.append(Chart("ACC against numbers kept", ScatterChart(points, "numbers kept", "ACC", log_x=True)))
    for name in ("acc", "forgetting_final"):
        if rows := intervals_of(groups, name):
            charts.append(Chart(COLUMNS[name], IntervalChart(rows, COLUMNS[name])))
    return charts


def _line(group: Record) -> Line:
    along = group["accuracy_seen"]
    value, low, high = ([one[part] for one in along] for part in ("value", "low", "high"))
    return Line(group["label"], range(1, len(along) + 1), value, *((None, None) if None in low else (low, high)))
