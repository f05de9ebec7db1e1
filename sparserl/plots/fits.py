"""Pictures of runs of `sparserl fit`, from their CSV files alone: accuracy or loss, and connections, over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from sparserl.errors import ConfigError
from sparserl.plots.style import STYLE, WIDTH, Run, add_legend, draw_curves, legend_title, line_styles, write_figure
from sparserl.recording.run_logs import Curve, numeric_columns, read_columns, read_rows


def plot_fit(path: Path, out: Path, title: str = "") -> None:
    """Draws one run: accuracy, or loss where nothing is classified, on test and validation samples, and connections.

    Raises:
        ConfigError: If the run has no evaluation yet, or the picture cannot be written.
    """
    parts = dict.fromkeys(row["part"] for row in read_rows(path / "eval.csv"))
    runs = {f"{part} samples": [Run(path, f"{part} samples")] for part in parts}
    measure = measure_of([path])
    curves = {label: {run: scores(path, label.split()[0], measure) for run in runs[label]} for label in runs}
    _plot(curves, measure, out, title)


def plot_fits(runs: Sequence[Run], out: Path, title: str = "") -> None:
    """Draws the accuracy (or loss) on test samples and the connections of runs; those of equal label are one curve, as
    in `draw_curves`. Raises as `plot_fit`, and if only some runs classify."""
    labels = dict.fromkeys(run.label for run in runs)
    measure = measure_of([run.path for run in runs])
    curves = {label: {run: scores(run.path, "test", measure) for run in runs if run.label == label} for label in labels}
    _plot(curves, measure, out, title)


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
def _plot(curves: Mapping[str, Mapping[Run, Curve]], measure: str, out: Path, title: str) -> None:
    styles = line_styles(curves)
    figure = Figure(figsize=(WIDTH, 4.6 + 0.2 * len(styles)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    drawn: set[Path] = set()
    for label, style in styles.items():
        draw_curves(above, curves[label], label, style)
        of_label = {run: curve for run in curves[label] if len((curve := connections(run.path))[0])}
        if not drawn & {run.path for run in of_label}:  # parts of one run have the same
            draw_curves(below, of_label, label, style)
        drawn |= {run.path for run in of_label}
    above.set_title(title)
    above.set_ylabel(f"{measure} on test samples" if len(drawn) > 1 else measure)
    if measure == "accuracy":
        above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    below.set_ylabel("connections")
    below.set_ylim(0, None)
    below.yaxis.set_major_formatter(EngFormatter())
    below.set_xlabel("epochs")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, above, legend_title(above))
    write_figure(figure, out)
