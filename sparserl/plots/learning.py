"""What learning did to the networks of runs of `sparserl train`, beside their return: from `learning.csv` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from sparserl.errors import ConfigError
from sparserl.plots.curves import RETURN, X_AXES, Y_AXES
from sparserl.plots.style import (
    DEFAULT,
    STYLE,
    WIDTH,
    LineStyle,
    PictureOptions,
    Run,
    add_legend,
    by_task,
    draw_curves,
    legend_title,
    line_styles,
    write_figure,
)
from sparserl.recording.metrics_table import METRICS, SHARE, Metric
from sparserl.recording.run_logs import Columns, Curve, columns_by, evaluation_curve

MEASURES = {metric.name.rpartition("/")[2]: metric for metric in METRICS if metric.name.startswith("learning/")}
"""Column of learning.csv -> its metric."""
RETURN_HEIGHT, PANEL_HEIGHT = 2.4, 1.3
"""Inches."""


def plot_learning(runs: Sequence[Run], out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws return over env steps, and beneath it each measure of learning, a column of panels for each network.

    Runs of equal label make one curve, as in `draw_curves`.

    Args:
        runs: At least one, all of one task.
        out: Picture to write.
        options: Of the picture.

    Raises:
        ConfigError: If tasks differ, a run was not measured or has no evaluation yet, or the picture cannot be written.
    """
    tasks = list(by_task(runs))
    if len(tasks) > 1:
        raise ConfigError(f"--learning draws runs of one env, got {', '.join(tasks)}")
    measured = {run: _measured(run.path) for run in runs}
    networks = list(dict.fromkeys(name for of_run in measured.values() for name in of_run))
    panels: dict[str, dict[str, dict[Run, Curve]]] = {
        measure: {
            network: {run: _curve(of_run[network], measure) for run, of_run in measured.items() if network in of_run}
            for network in networks
        }
        for measure in MEASURES
    }
    shown = {measure: row for measure, row in panels.items() if any(_has_values(curves) for curves in row.values())}
    with rc_context(STYLE):
        styles = line_styles(run.label for run in runs)
        heights = [RETURN_HEIGHT, *[PANEL_HEIGHT] * len(shown)]
        size = options.size or (WIDTH * max(1.0, 0.8 * len(networks)), sum(heights) + 0.6 + 0.2 * len(styles))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(len(heights), len(networks), height_ratios=heights)
        first = figure.add_subplot(grid[0, :])
        _draw(first, {run: evaluation_curve(run.path) for run in runs}, styles, options.smooth)
        first.set_ylabel(Y_AXES[RETURN])
        first.set_title(tasks[0])
        for row, (measure, of_networks) in enumerate(shown.items(), start=1):
            for column, (network, curves) in enumerate(of_networks.items()):
                axis = figure.add_subplot(grid[row, column], sharex=first)
                _draw(axis, curves, styles, options.smooth)
                _describe(axis, MEASURES[measure], curves)
                axis.set_title(network if row == 1 else "", fontsize="medium")
                axis.set_ylabel(MEASURES[measure].title if column == 0 else "")
                if row < len(shown):
                    axis.tick_params(labelbottom=False)
                else:
                    axis.set_xlabel(X_AXES["steps"][1])
        first.xaxis.set_major_formatter(EngFormatter(sep=""))
        add_legend(figure, first, legend_title([first], options))
        write_figure(figure, out)


def _measured(path: Path) -> Mapping[str, Columns]:
    """Columns of `learning.csv` by network."""
    file = path / "learning.csv"
    if not file.is_file():
        raise ConfigError(f"{path} was not measured (--measure-learning never, or an older version)")
    return columns_by("network", file)


def _curve(columns: Columns, measure: str) -> Curve:
    """Steps and values, where there is one."""
    steps, values = columns["global_step"], columns[measure]
    return steps[~np.isnan(values)], values[~np.isnan(values)]


def _has_values(curves: Mapping[Run, Curve]) -> bool:
    return any(steps.size for steps, _ in curves.values())


def _draw(axis: Axes, curves: Mapping[Run, Curve], styles: Mapping[str, LineStyle], smooth: int) -> None:
    for label, style in styles.items():
        own = {run: curve for run, curve in curves.items() if run.label == label and curve[0].size}
        draw_curves(axis, own, label, style, smooth)


def _describe(axis: Axes, metric: Metric, curves: Mapping[Run, Curve]) -> None:
    """Scale and limits of a panel; logarithmic where the table says so, and the values span a decade."""
    if metric.unit == SHARE:
        axis.set_ylim(-0.03, 1.03)
        return
    values = np.concatenate([values for _, values in curves.values()] or [np.ones(1)])
    if metric.panel is not None and metric.panel.log and values.size and 0.0 < 10.0 * values.min() <= values.max():
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=5))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter("{x:g}")
