"""Runs of `sparserl fit`: accuracy, connections and cost, with intervals over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparserl.errors import ConfigError
from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import RESAMPLES
from sparserl.recording.run_logs import numeric_columns, read_rows
from sparserl.report.cells import UNKNOWN, Record, counted, estimate_cell, estimate_record, mean_cell
from sparserl.report.dense_equivalent import HEAD, Measured, cell, dense_equivalents, is_shown
from sparserl.report.dense_equivalent import notes as equivalent_notes
from sparserl.report.document import Chart, Line, LineChart, Point, ScatterChart, Section, Table
from sparserl.report.folders import check_numbers, read_result
from sparserl.report.seed_groups import seed_groups
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
    "flops_train": ("training\nFLOPs", ".3g"),
    "wall_s": ("wall\ntime (s)", ",.0f"),
}
"""Key -> head of its column and form of its mean over seeds."""


@dataclass(frozen=True)
class FitRun:
    """A finished run.

    Attributes:
        path: Its folder.
        data: What it learned, in words; runs of one are compared.
        method: What it is called.
        config: Its resolved config.
        result: What `result.json` says.
        accuracies: (E,) on test samples, before the first epoch and after each.
    """

    path: Path
    data: str
    method: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    accuracies: Sequence[float]

    @property
    def seed(self) -> int:
        """Root seed."""
        return int(self.config["seed"])


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
    by_data: dict[str, list[FitRun]] = defaultdict(list)
    for run in runs:
        by_data[run.data].append(run)
    return [
        {"data": data, **_groups(data, seed_groups(alike, lambda run: run.method))} for data, alike in by_data.items()
    ]


def _groups(data: str, alike: Mapping[str, Sequence[FitRun]]) -> Record:
    """Records of all groups on a table, with what they are worth in parameters of the dense ones among them."""
    measured = [_measured(label, runs) for label, runs in alike.items()]
    records = [
        {**_group(data, label, runs), "dense_equivalent": worth}
        for (label, runs), worth in zip(alike.items(), dense_equivalents(measured), strict=True)
    ]
    return {"groups": records, "shows_dense_equivalent": is_shown(measured)}


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
        "label": label,
        "seeds": [run.seed for run in runs],
        "runs": [str(run.path) for run in runs],
        "metrics": {name: _metric(data, label, name, [run.result[name] for run in runs]) for name in MEASURED},
        "costs": {name: [run.result[name] for run in runs] for name in COUNTED},
        "stopped": [run.result.get("stopped") for run in runs],
        "accuracy_by_epoch": np.mean([run.accuracies[:shortest] for run in runs], axis=0).tolist(),
    }


def _metric(data: str, label: str, name: str, values: Sequence[float | None]) -> Record | None:
    """Mean over seeds and its interval; None if one run lacks it."""
    if None in values:
        return None
    column = np.array(values, float)[:, np.newaxis]
    estimates = statistics.aggregates(column, statistics.OF_ONE_TASK, stream(0, "report", data, label, name))
    return {"values": list(values), **{key: estimate_record(one) for key, one in estimates.items()}}


def fit_section(record: Record) -> Section:
    """The runs on a table as a table, notes and charts."""
    groups = record["groups"]
    rows = [
        [
            f"{group['label']} ({counted(group['seeds'])})",
            *(
                UNKNOWN if (one := group["metrics"][name]) is None else estimate_cell(one["mean"], 4)
                for name in MEASURED
            ),
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
    interval = f"{statistics.LEVEL_PERCENT} % bootstrap over seeds, {RESAMPLES:,} resamples"
    notes = [f"means over seeds; intervals: {interval}; test samples choose nothing"]
    alone = [group["label"] for group in groups if len(group["seeds"]) < 2]
    if alone:
        notes.append(f"no interval ({'; '.join(alone)}): one run")
    return Section(f"{record['data']}: accuracy", notes, [Table("", heads, rows, said)], _charts(groups))


def _charts(groups: Sequence[Record]) -> list[Chart]:
    groups = [group for group in groups if group["metrics"]["accuracy_test"] is not None]
    if not groups:
        return []
    lines = [
        Line(group["label"], range(len(group["accuracy_by_epoch"])), group["accuracy_by_epoch"]) for group in groups
    ]
    points = [
        Point(
            group["label"],
            float(np.mean(group["costs"]["connections"])),
            *(group["metrics"]["accuracy_test"]["mean"][part] for part in ("value", "low", "high")),
        )
        for group in groups
    ]
    return [
        Chart("Accuracy on test samples", LineChart(lines, "epochs", "mean accuracy")),
        Chart("Accuracy against connections", ScatterChart(points, "connections", "test accuracy", log_x=True)),
    ]
