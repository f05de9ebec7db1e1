"""Runs of `sparserl fit`: accuracy, connections and cost, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparserl.errors import ConfigError
from sparserl.recording.run_logs import numeric_columns, read_rows
from sparserl.report.cells import PREFIX, Record, mean_cell
from sparserl.report.dense_equivalent import HEAD, Measured, cell, dense_equivalents, is_shown
from sparserl.report.dense_equivalent import notes as equivalent_notes
from sparserl.report.document import Chart, Line, LineChart, ScatterChart, Section, Table
from sparserl.report.folders import check_numbers, read_result
from sparserl.report.seed_means import (
    FinishedRun,
    group_cell,
    group_record,
    groups_of_tasks,
    metric_cells,
    metric_record,
    notes_on_means,
    notes_on_settings,
    points_of,
)
from sparserl.seeding import stream

MEASURED = {
    "accuracy_test": "test accuracy",
    "accuracy_test_best": "best by\nvalidation",
    "accuracy_validation_best": "its validation\naccuracy",
    "loss_test": "test loss",
}
"""Key of `result.json` -> head of its column, of what has an interval."""
COUNTED = {
    "epochs": ("epochs", ",.0f"),
    "connections": ("connections", ",.0f"),
    "density": ("density", ".2%"),
    "flops_train": ("training\nFLOPs", PREFIX),
    "wall_s": ("wall\ntime (s)", ",.0f"),
}
"""Key -> head of its column and form of its mean over seeds."""


@dataclass(frozen=True)
class FitRun(FinishedRun):
    """A finished run.

    Attributes:
        accuracies: (E,) on test samples, before the first epoch and after each.
    """

    accuracies: Sequence[float]


def read_fit_run(path: Path, method: str, config: Mapping[str, Any]) -> FitRun:
    """Reads a finished run.

    Args:
        path: Its folder.
        method: What it is called.
        config: Its resolved config as plain data.

    Raises:
        ConfigError: If its result or eval.csv cannot be read, or lacks something.
    """
    result = read_result(path)
    keys = (*MEASURED, *COUNTED)
    for key in keys:
        if key not in result:
            raise ConfigError(f"{path / 'result.json'} has no {key}")
    check_numbers(result, keys, path)
    of_test = [row for row in read_rows(path / "eval.csv") if row["part"] == "test"]
    accuracies = numeric_columns(of_test)["accuracy"].tolist()
    return FitRun(path, f"{config['data']}, {config['task']}", method, config, result, accuracies)


def fit_records(runs: Sequence[FitRun]) -> list[Record]:
    """Groups of seeds on each table as plain data that JSON holds.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    return [{"data": data, **_groups(data, alike)} for data, alike in groups_of_tasks(runs).items()]


def _groups(data: str, alike: Mapping[str, Sequence[FitRun]]) -> Record:
    """Records of all groups on a table, with what they are worth in parameters of the dense ones among them."""
    measured = [_measured(label, runs) for label, runs in alike.items()]
    records = [
        {**_group(data, label, runs), "dense_equivalent": worth}
        for (label, runs), worth in zip(alike.items(), dense_equivalents(measured), strict=True)
    ]
    return {"groups": records, "shows_dense_equivalent": is_shown(measured), "notes": notes_on_settings(alike)}


def _measured(label: str, runs: Sequence[FitRun]) -> Measured:
    sizes, qualities = ([run.result.get(key) for run in runs] for key in ("params_nonzero", "accuracy_test"))
    return Measured(
        label,
        "all",
        None if None in sizes else float(np.mean(sizes)),  # type: ignore[arg-type]  # none is None
        all(run.result["density"] == 1.0 for run in runs),
        float("nan") if None in qualities else float(np.mean(qualities)),  # type: ignore[arg-type]  # likewise
    )


def _group(data: str, label: str, runs: Sequence[FitRun]) -> Record:
    shortest = min(len(run.accuracies) for run in runs)
    return {
        **group_record(label, runs),
        "metrics": {
            name: metric_record([run.result[name] for run in runs], stream(0, "report", data, label, name))
            for name in MEASURED
        },
        "costs": {name: [run.result[name] for run in runs] for name in COUNTED},
        "stopped": [run.result.get("stopped") for run in runs],
        "accuracy_by_epoch": np.mean([run.accuracies[:shortest] for run in runs], axis=0).tolist(),
    }


def fit_section(record: Record) -> Section:
    """The runs on a table as a table, notes and charts."""
    groups = record["groups"]
    rows = [
        [
            group_cell(group),
            *metric_cells(group, MEASURED, 4),
            *(mean_cell(group["costs"][name], form) for name, (_, form) in COUNTED.items()),
        ]
        for group in groups
    ]
    heads = ["method", *MEASURED.values(), *(head for head, _ in COUNTED.values())]
    said = ""
    if record["shows_dense_equivalent"]:
        worth = [group["dense_equivalent"] for group in groups]
        heads, rows = [*heads, HEAD], [[*row, cell(one)] for row, one in zip(rows, worth, strict=True)]
        said = "\n".join(equivalent_notes([group["label"] for group in groups], worth))
    notes = [*notes_on_means(groups, "test samples choose nothing"), *record["notes"]]
    return Section(f"{record['data']}: accuracy", notes, [Table("", heads, rows, said)], _charts(groups))


def _charts(groups: Sequence[Record]) -> list[Chart]:
    groups = [group for group in groups if group["metrics"]["accuracy_test"] is not None]
    if not groups:
        return []
    lines = [
        Line(group["label"], range(len(group["accuracy_by_epoch"])), group["accuracy_by_epoch"]) for group in groups
    ]
    points = points_of(groups, lambda group: group["costs"]["connections"], "accuracy_test")
    return [
        Chart("Accuracy on test samples", LineChart(lines, "epochs", "mean accuracy")),
        Chart("Accuracy against connections", ScatterChart(points, "connections", "test accuracy", log_x=True)),
    ]
