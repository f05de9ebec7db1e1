"""What the topologies of trained runs did, as charts: density and explored fraction, of a group and of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sparserl.errors import ConfigError
from sparserl.recording.run_logs import layer_columns, read_columns
from sparserl.report.document import Chart, Line, LineChart, Section
from sparserl.report.trained import Comparison, Group, TrainedRun

COLUMNS = {"density": "density", "explored_fraction": "explored fraction"}
"""Column of `topology.csv`, and of `progress.csv` with `topology/` before it -> what it is called."""
MOST_POINTS = 100
"""Of a line; of more, some are left out."""


def topology_sections(comparisons: Sequence[Comparison]) -> list[Section]:
    """Charts of the groups on each environment; nothing where all runs are dense."""
    sections = [
        Section(f"{one.title}: topology", charts=[*_of_groups(one.groups), *_of_layers(one.groups)])
        for one in comparisons
        if not one.normalised
    ]
    return [section for section in sections if section.charts]


def _of_groups(groups: Sequence[Group]) -> Iterator[Chart]:
    for column, name in COLUMNS.items():
        lines = [line for group in groups for line in _mean(group, f"topology/{column}")]
        if lines:
            title = f"{name.capitalize()} of the sparse layers"
            yield Chart(title, LineChart(lines, "env steps", name), "All layers together, mean over seeds.")


def _mean(group: Group, column: str) -> Iterator[Line]:
    """Over seeds, where all of them have a value; nothing if that is nowhere."""
    seeds = [_values(run.path, column) for run in group.each]
    steps = sorted(set[float].intersection(*map(set, seeds)))
    if steps:
        yield _line(group.label, steps, [float(np.mean([seed[step] for seed in seeds])) for step in steps])


def _values(path: Path, column: str) -> dict[float, float]:
    """Env step -> value, from `progress.csv`; nothing of a dense run, and of one that was kept without this file."""
    try:
        log = read_columns(path / "progress.csv")
    except ConfigError:
        return {}
    values = log.get(column, np.full(len(log["global_step"]), np.nan))
    known = ~np.isnan(values)
    return dict(zip(log["global_step"][known].tolist(), values[known].tolist(), strict=True))


def _of_layers(groups: Sequence[Group]) -> Iterator[Chart]:
    """Of one run of each group that has a log of its topology."""
    for group in groups:
        for run in [run for run in group.each if _has_events(run)][:1]:
            layers = layer_columns(run.path)
            for column, name in COLUMNS.items():
                lines = [
                    _line(layer, log["global_step"].tolist(), log[column].tolist()) for layer, log in layers.items()
                ]
                chart = LineChart(lines, "env steps", name)
                yield Chart(f"{group.label}: {name} of each layer", chart, f"Seed {run.seed}.")


def _has_events(run: TrainedRun) -> bool:
    try:
        return bool(layer_columns(run.path))
    except ConfigError:  # no such file, or no event
        return False


def _line(label: str, steps: Sequence[float], values: Sequence[float]) -> Line:
    shown = np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).astype(int))
    return Line(label, [steps[index] for index in shown], [values[index] for index in shown])
