"""Pictures of supervised continual runs, from their CSV files alone, and the parts that pictures of all of them share.

Decides how a run is drawn. Independent of learners and configs: the caller labels each run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter

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
from sparserl.recording.evaluations import accuracy_curve, accuracy_matrix
from sparserl.recording.run_logs import FloatArray, read_columns, rows_so_far

Colour = tuple[float, float, float, float]

MATRIX_COLOURS = "cividis"
"""Made for colour-vision deficiencies; darker is lower, in print too."""
TASK_COLOURS = "viridis"
UNMEASURED: dict[str, Any] = {"facecolor": "#F2F2F2", "edgecolor": "#BBBBBB", "hatch": "///", "linewidth": 0.0}
FREE: dict[str, Any] = {"facecolor": "#F2F2F2", "edgecolor": "#999999", "linewidth": 0.8}
FREE_LABEL = "free"
SHARED_COLOUR = "#BBBBBB"
MEAN_COLOUR = "#000000"
BORDER: dict[str, Any] = {"color": "#999999", "linewidth": 0.8, "linestyle": ":"}
FEW_TASKS = 6
"""Up to so many, there is room for a number at each bar."""
NUMBER_SIZES = {FEW_TASKS: "medium", 12: "x-small", math.inf: "xx-small"}
"""Most tasks -> size of the numbers of a matrix."""


@rc_context(STYLE)
def plot_sequence_runs(runs: Sequence[Run], out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws the mean accuracy on the tasks learned so far; runs of equal label are one curve, as in `draw_curves`.

    Each sequence and scenario has a panel of its own: an accuracy of one says nothing about another.

    Raises:
        ConfigError: If a run has not learned its first task yet, or the picture cannot be written.
    """
    curves = {run: accuracy_curve(run.path) for run in runs}
    groups = line_styles(run.label for run in runs)
    figure, axes_of = task_panels(list(by_task(runs)), [3.0], len(groups), options)
    for task, (axis,) in axes_of.items():
        for label, style in groups.items():
            alike = {run: curve for run, curve in curves.items() if (run.label, run.task) == (label, task)}
            draw_curves(axis, alike, label, style)
        axis.set_xlabel("tasks learned")
        set_row_label(axis, "mean accuracy on them")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_formatter(percent_ticks())
    every = [axis for axes in axes_of.values() for axis in axes]
    add_legend(figure, every, legend_title(every, options))
    write_figure(figure, out)


@rc_context(STYLE)
def plot_sequence_run(path: Path, out: Path, title: str = "", options: PictureOptions = DEFAULT) -> None:
    """Draws one run: accuracy matrix, accuracy on each task over time, and who owns the connections of its layers.

    Raises:
        ConfigError: If the run has not learned its first task yet, or the picture cannot be written.
    """
    owned = rows_so_far(path / "connections.csv")
    matrix = accuracy_matrix(path)
    figure = Figure(figsize=options.size or (12, 8.5 if owned else 4.6), layout="constrained")
    above, *below = figure.subfigures(1 + bool(owned), 1, height_ratios=[1.15, 1][: 1 + bool(owned)], squeeze=False)[
        :, 0
    ]
    matrix_axis, time_axis = above.subplots(1, 2, width_ratios=[1, 1.25])
    draw_matrix(matrix_axis, 100 * matrix, (0.0, 100.0), decimals=1)
    matrix_axis.set_title("accuracy (%); hatched: not measured", fontsize="medium")
    _draw_accuracies(time_axis, path)
    for figure_of_connections in below:
        draw_connections(figure_of_connections, owned, len(matrix), columns=len(layers(owned)))
    figure.suptitle(title)
    write_figure(figure, out)


def _draw_accuracies(axis: Axes, path: Path) -> None:
    columns = read_columns(path / "eval.csv")
    matrix = accuracy_matrix(path)
    learned = columns["after_task"] >= 0
    borders = np.unique(columns["global_step"][learned])
    for border in borders[:-1]:
        axis.axvline(border, **BORDER)
    for task, colour in enumerate(task_colours(len(matrix))):
        of_task = columns["task"] == task
        axis.plot(
            columns["global_step"][of_task],
            columns["accuracy"][of_task],
            color=colour,
            marker="o",
            markersize=4,
            label=f"task {task}",
        )
    _, seen = accuracy_curve(path)
    axis.plot(borders[: len(seen)], seen, color=MEAN_COLOUR, linewidth=2, linestyle="--", label="mean of those learned")
    axis.set_title("accuracy over time; dotted: border between tasks", fontsize="medium")
    axis.set_xlabel("gradient steps")
    axis.set_xlim(0, None)
    axis.set_ylim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(loc="lower left", fontsize="small", ncols=1 + len(matrix) // 6)


# What pictures of all continual runs share.


def task_colours(count: int) -> list[Colour]:
    """From dark to light in the order of learning; the lightest yellow is left out."""
    return [colormaps[TASK_COLOURS](at) for at in np.linspace(0.0, 0.88, count)]


def draw_matrix(axis: Axes, matrix: FloatArray, limits: tuple[float, float], decimals: int) -> None:
    """Draws performance on a task (column) after a task (row), each cell with its number; hatched where there is none.

    Args:
        axis: Where to draw.
        matrix: (T, T), NaN where nothing was measured.
        limits: What has the darkest colour, and what the lightest.
        decimals: Of the numbers.
    """
    n_tasks = len(matrix)
    lowest, highest = limits
    borders = np.arange(n_tasks + 1) - 0.5
    axis.pcolormesh(borders, borders, matrix, cmap=MATRIX_COLOURS, vmin=lowest, vmax=highest)
    axis.invert_yaxis()
    axis.grid(visible=False)
    size = next(size for most, size in NUMBER_SIZES.items() if n_tasks <= most)
    for (after, task), value in np.ndenumerate(matrix):
        if np.isnan(value):
            axis.add_patch(Rectangle((task - 0.5, after - 0.5), 1.0, 1.0, **UNMEASURED))
            continue
        ink = "black" if value > lowest + 0.55 * (highest - lowest) else "white"
        axis.text(task, after, f"{value:.{decimals}f}", ha="center", va="center", color=ink, fontsize=size)
    axis.set_xlabel("on task")
    axis.set_ylabel("after task")
    axis.set_xticks(range(n_tasks))
    axis.set_yticks(range(n_tasks))


def layers(owned: Sequence[Mapping[str, str]]) -> list[str]:
    """Layers in rows of `connections.csv`, each once."""
    return list(dict.fromkeys(row["layer"] for row in owned))


def draw_connections(figure: SubFigure, owned: Sequence[Mapping[str, str]], n_tasks: int, columns: int) -> None:
    """Draws who owns the connections of each layer after each task, a panel per layer, and one legend.

    Args:
        figure: Where to draw.
        owned: Rows of `connections.csv`, at least one.
        n_tasks: Of the whole sequence.
        columns: Panels beside each other, >= 1.
    """
    names = layers(owned)
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False)
    for axis in panels.flat[len(names) :]:
        axis.remove()
    drawn: list[Axes] = list(panels.flat[: len(names)])
    for axis, name in zip(drawn, names, strict=True):
        _draw_owners(axis, [row for row in owned if row["layer"] == name], n_tasks)
    for axis in panels[:, 0]:
        axis.set_ylabel("connections")
    for axis in drawn[-columns:]:
        axis.set_xlabel("after task")
    legends = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in drawn]
    handles = {label: handle for legend in legends for handle, label in legend}
    handles[FREE_LABEL] = handles.pop(FREE_LABEL)  # last, as on top
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=6 if n_tasks <= FEW_TASKS else 4,
        fontsize="small",
    )


def _draw_owners(axis: Axes, rows: Sequence[Mapping[str, str]], n_tasks: int) -> None:
    """Bars of one layer, from the connections of the first task upwards to those that all share and those free."""
    colour_of = {str(task): colour for task, colour in enumerate(task_colours(n_tasks))}
    used = dict.fromkeys((int(row["after_task"]) for row in rows), 0)
    for owner in sorted(dict.fromkeys(row["owner"] for row in rows), key=lambda owner: owner not in colour_of):
        of_it = {int(row["after_task"]): int(row["connections"]) for row in rows if row["owner"] == owner}
        axis.bar(
            list(of_it),
            list(of_it.values()),
            bottom=[used[after] for after in of_it],
            color=colour_of.get(owner, SHARED_COLOUR),
            label=f"of task {owner}" if owner in colour_of else "shared by all tasks",
        )
        for after, connections in of_it.items():
            used[after] += connections
    few = n_tasks <= FEW_TASKS
    free = {int(row["after_task"]): int(row["free"]) for row in rows}
    style = FREE if few else FREE | {"linewidth": 0.3}
    axis.bar(list(used), list(free.values()), bottom=list(used.values()), label=FREE_LABEL, **style)
    for after in used if few else [max(used)]:
        axis.annotate(
            f"{used[after]:,}",
            (after if few else after + 0.4, used[after]),
            (0, 2),
            textcoords="offset points",
            ha="center" if few else "right",
            fontsize=6,
            bbox=None if few else {"facecolor": FREE["facecolor"], "linewidth": 0.0, "pad": 0.5},
        )
    size = int(rows[0]["size"])
    axis.set_title(f"{rows[0]['layer']} ({size:,})", fontsize="small")
    axis.set_xticks(range(0, n_tasks, -(-n_tasks // FEW_TASKS)))
    axis.set_xlim(-0.6, n_tasks - 0.4)
    axis.set_ylim(0, 1.2 * size)
    axis.grid(visible=False)
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
