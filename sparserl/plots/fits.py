"""Pictures of runs of `sparserl fit`, from their CSV files alone: accuracy or loss, and connections, over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import EngFormatter, MaxNLocator

from sparserl.errors import ConfigError
from sparserl.plots.style import (
    DEFAULT,
    STYLE,
    PictureOptions,
    Run,
    add_legend,
    by_task,
    draw_curves,
    legend_title,
    line_styles,
    percent_ticks,
    set_row_label,
    task_panels,
    write_figure,
)
from sparserl.recording.run_logs import Curve, numeric_columns, read_columns, read_rows


def plot_fit(path: Path, out: Path, title: str = "", options: PictureOptions = DEFAULT) -> None:
    """Draws one run: accuracy, or loss where nothing is classified, on test and validation samples, and connections.

    Raises:
        ConfigError: If the run has no evaluation yet, or the picture cannot be written.
    """
    parts = dict.fromkeys(row["part"] for row in read_rows(path / "eval.csv"))
    measure = measure_of([path])
    curves = {Run(path, f"{part} samples", task=title): scores(path, part, measure) for part in parts}
    _plot(curves, measure, measure, out, options)


def plot_fits(runs: Sequence[Run], out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws the accuracy (or loss) on test samples and the connections of runs; those of equal label are one curve, as
    in `draw_curves`, and each data set has panels of its own. Raises as `plot_fit`, and if only some runs classify."""
    measure = measure_of([run.path for run in runs])
    curves = {run: scores(run.path, "test", measure) for run in runs}
    _plot(curves, measure, f"{measure} on test samples", out, options)


def measure_of(paths: Sequence[Path]) -> str:
    """What all runs are drawn by: `accuracy`, or `loss` if they classify nothing.

    Raises:
        ConfigError: If only some do.
    """
    classify = [any(row["accuracy"] for row in read_rows(path / "eval.csv")) for path in paths]
    if len(set(classify)) > 1:
        one, other = paths[classify.index(True)], paths[classify.index(False)]
        raise ConfigError(f"{one} classifies and {other} does not: they are drawn apart")
    return "accuracy" if classify[0] else "loss"


def scores(path: Path, part: str, measure: str) -> Curve:
    """Epochs, and accuracy or loss on a part of the samples after them, of which 0 is before the first.

    Raises:
        ConfigError: If the run has no evaluation yet.
    """
    columns = numeric_columns([row for row in read_rows(path / "eval.csv") if row["part"] == part])
    return columns["epoch"], columns[measure]


def connections(path: Path) -> Curve:
    """Epochs from 1, and connections that exist after them; none before the first is over."""
    columns = read_columns(path / "progress.csv")
    measured = ~np.isnan(columns["fit/connections"])
    return columns["train/epoch"][measured] + 1, columns["fit/connections"][measured]


@rc_context(STYLE)
def _plot(curves: Mapping[Run, Curve], measure: str, measure_title: str, out: Path, options: PictureOptions) -> None:
    tasks, styles = by_task(curves), line_styles(run.label for run in curves)
    figure, axes_of = task_panels(list(tasks), [3.0, 1.5], len(styles), options)
    for task, (above, below) in axes_of.items():
        drawn: set[Path] = set()
        for label, style in styles.items():
            of_label = {run: curves[run] for run in tasks[task] if run.label == label}
            draw_curves(above, of_label, label, style, options.smooth)
            counted = {run: curve for run in of_label if len((curve := connections(run.path))[0])}
            if not drawn & {run.path for run in counted}:  # parts of one run have the same
                draw_curves(below, counted, label, style)
            drawn |= {run.path for run in counted}
        set_row_label(above, measure_title)
        if measure == "accuracy":
            above.yaxis.set_major_formatter(percent_ticks())
        set_row_label(below, "connections")
        below.set_ylim(0, None)
        below.yaxis.set_major_formatter(EngFormatter(sep=""))
        below.set_xlabel("epochs")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    every = [axis for axes in axes_of.values() for axis in axes]
    add_legend(figure, every, legend_title(every, options))
    write_figure(figure, out)
