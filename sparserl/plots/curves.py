"""Learning curves of runs of `sparserl train`, from their CSV files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import EngFormatter

from sparserl.errors import ConfigError, unknown_name
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
    set_row_label,
    task_panels,
    write_figure,
)
from sparserl.recording.metrics_table import METRICS, SHARE, drawn, x_axes
from sparserl.recording.run_logs import Curve, FloatArray, evaluation_curve, read_columns

RETURN = "return"
X_AXES = x_axes()
"""Name of an axis -> column of progress.csv that grows from 0, and title."""
Y_AXES = {RETURN: "return of an evaluation episode", **drawn()}
"""Column of progress.csv -> title, of those that are drawn unless one is named."""
SHARES = {metric.name for metric in METRICS if metric.unit == SHARE}


def plot_runs(
    runs: Sequence[Run], out: Path, *, x: str = "steps", y: str | None = None, options: PictureOptions = DEFAULT
) -> None:
    """Draws return over env steps, and beneath it density and explored fraction of the sparse layers; or one column.

    Runs of equal label make one curve, as in `draw_curves`. Each env has panels of its own: a return of one says
    nothing about another.

    Args:
        runs: At least one.
        out: Picture to write.
        x: One of `X_AXES`.
        y: `return`, or a column of progress.csv, to be drawn alone.
        options: Of the picture; smooths the first panel, not density and explored fraction.

    Raises:
        ConfigError: If a run has no evaluation yet, a name is unknown, or the picture cannot be written.
    """
    if x not in X_AXES:
        raise ConfigError(unknown_name("x axis", x, X_AXES))
    curves_of = {name: _curves_of(runs, name, x) for name in (Y_AXES if y is None else (y,))}
    panels = {name: curves for name, curves in curves_of.items() if curves}
    if not panels:
        raise ConfigError(f"no run has a value of {y} yet")
    with rc_context(STYLE):
        groups = line_styles(run.label for run in runs)
        heights = [3.0, *[1.3] * (len(panels) - 1)]
        figure, axes_of = task_panels(list(by_task(runs)), heights, len(groups), options)
        for task, axes in axes_of.items():
            for axis, (name, curves) in zip(axes, panels.items(), strict=True):
                smooth = options.smooth if axis is axes[0] else 1
                for label, style in groups.items():
                    alike = {run: curve for run, curve in curves.items() if (run.label, run.task) == (label, task)}
                    draw_curves(axis, alike, label, style, smooth)
                set_row_label(axis, Y_AXES.get(name, name))
                if name in SHARES:
                    axis.set_ylim(-0.03, 1.03)
            axes[-1].set_xlabel(X_AXES[x][1])
            axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        every = [axis for axes in axes_of.values() for axis in axes]
        add_legend(figure, every, legend_title(every, options))
        write_figure(figure, out)


def _curves_of(runs: Sequence[Run], name: str, x: str) -> dict[Run, Curve]:
    """A curve of each run that has a value."""
    logs = {run: read_columns(run.path / "progress.csv") for run in runs if name != RETURN or x != "steps"}
    if name == RETURN:
        curves = {run: evaluation_curve(run.path) for run in runs}
    else:
        known = {column for log in logs.values() for column in log}
        if name not in {*known, *Y_AXES}:
            raise ConfigError(unknown_name("column of progress.csv", name, [*known, RETURN]))
        curves = {run: (log["global_step"], log[name]) for run, log in logs.items() if name in log}
        curves = {run: (steps[~np.isnan(values)], values[~np.isnan(values)]) for run, (steps, values) in curves.items()}
    if x != "steps":
        curves = {run: (spent(logs[run], x, steps), values) for run, (steps, values) in curves.items()}
    return {run: curve for run, curve in curves.items() if curve[0].size}


def spent(log: Mapping[str, FloatArray], x: str, steps: FloatArray) -> FloatArray:
    """What was spent of one of `X_AXES` up to some env steps.

    Args:
        log: Columns of progress.csv.
        x: Name of the axis.
        steps: (E,) env steps.

    Raises:
        ConfigError: If the run did not log it.
    """
    column = X_AXES[x][0]
    if column not in log:
        raise ConfigError(f"progress.csv of a run has no column {column}")
    spent: FloatArray = np.interp(steps, np.append(0.0, log["global_step"]), np.append(0.0, log[column]))
    return spent
