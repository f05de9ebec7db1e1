"""Pictures of continual runs, from their CSV files alone.

Decides how a run is drawn. Refuses to know learners and configs: whoever asks gives each run its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from sparserl.plots import FloatArray, Run, colours, draw_curves, read_columns, read_rows, write_figure

Colour = tuple[float, float, float, float]

ACCURACY_COLOURS = "cividis"
"""Made for colour-vision deficiencies; darker is lower, in print too."""
TASK_COLOURS = "viridis"
UNMEASURED = {"facecolor": "#F2F2F2", "edgecolor": "#BBBBBB", "hatch": "///", "linewidth": 0.0}
FREE = {"facecolor": "#F2F2F2", "edgecolor": "#999999", "linewidth": 0.8}
FREE_LABEL = "free"
SHARED_COLOUR = "#BBBBBB"
MEAN_COLOUR = "#000000"
STYLES = ("-", "--", ":")
"""Of lines, when colours come round again."""


def accuracy_matrix(path: Path) -> FloatArray:
    """Accuracy on task j after task i of a run, (T, T); NaN where there is none (yet)."""
    columns = read_columns(path / "eval.csv")
    n_tasks = int(columns["task"].max()) + 1
    matrix = np.full((n_tasks, n_tasks), np.nan)
    after, task = columns["after_task"].astype(int), columns["task"].astype(int)
    learned = after >= 0
    matrix[after[learned], task[learned]] = columns["accuracy"][learned]
    return matrix


def accuracy_curve(path: Path) -> tuple[FloatArray, FloatArray]:
    """Number of tasks learned, and mean accuracy on them at that time."""
    matrix = accuracy_matrix(path)
    seen = np.array([row[: task + 1].mean() for task, row in enumerate(matrix)])
    learned = np.arange(1.0, len(matrix) + 1)
    reached = ~np.isnan(seen)
    return learned[reached], seen[reached]


def plot_sequence_runs(runs: Sequence[Run], out: Path, title: str = "") -> None:
    """Draws the mean accuracy on the tasks learned so far; runs of equal label are averaged, as in `plot_runs`.

    Raises:
        ConfigError: If a run has no evaluation yet, or the picture cannot be written.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    labels = list(dict.fromkeys(run.label for run in runs))
    once = len(set(colours(len(labels))))
    for position, (label, colour) in enumerate(zip(labels, colours(len(labels)), strict=True)):
        curves = [accuracy_curve(run.path) for run in runs if run.label == label]
        draw_curves(axis, curves, label, colour, STYLES[position // once % len(STYLES)])
    axis.set_title(title)
    axis.set_xlabel("tasks learned")
    axis.set_ylabel("mean accuracy on them")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize="small")
    write_figure(figure, out)


def plot_sequence_run(path: Path, out: Path, title: str = "") -> None:
    """Draws one run: accuracy matrix, accuracy on each task over time, and who owns the connections of each layer.

    Raises:
        ConfigError: If the run has not learned its first task yet, or the picture cannot be written.
    """
    layers = list(dict.fromkeys(row["layer"] for row in read_rows(path / "connections.csv")))
    figure = Figure(figsize=(12, 8.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.15, 1], squeeze=False)[:, 0]
    matrix_axis, time_axis = above.subplots(1, 2, width_ratios=[1, 1.25])
    _draw_matrix(matrix_axis, accuracy_matrix(path))
    _draw_accuracies(time_axis, path)
    panels = below.subplots(1, len(layers), squeeze=False)[0]
    for axis, layer in zip(panels, layers, strict=True):
        _draw_connections(axis, path, layer)
    panels[0].set_ylabel("connections")
    legends = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in panels]
    handles = {label: handle for legend in legends for handle, label in legend}
    handles[FREE_LABEL] = handles.pop(FREE_LABEL)  # last, as on top
    below.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6, fontsize="small")
    figure.suptitle(title)
    write_figure(figure, out)


def _task_colours(count: int) -> list[Colour]:
    """From dark to light in the order of learning; the lightest yellow is left out."""
    return [colormaps[TASK_COLOURS](place) for place in np.linspace(0.0, 0.88, count)]


def _draw_matrix(axis: Axes, matrix: FloatArray) -> None:
    n_tasks = len(matrix)
    axis.imshow(matrix, cmap=ACCURACY_COLOURS, vmin=0.0, vmax=1.0, aspect="auto")
    size = "medium" if n_tasks <= 6 else "x-small"
    for (after, task), value in np.ndenumerate(matrix):
        if np.isnan(value):
            axis.add_patch(Rectangle((task - 0.5, after - 0.5), 1.0, 1.0, **UNMEASURED))  # type: ignore[arg-type]
            continue
        ink = "black" if value > 0.55 else "white"
        axis.text(task, after, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=size)
    axis.set_title("accuracy (%); hatched: not measured", fontsize="medium")
    axis.set_xlabel("on task")
    axis.set_ylabel("after task")
    axis.set_xticks(range(n_tasks))
    axis.set_yticks(range(n_tasks))


def _draw_accuracies(axis: Axes, path: Path) -> None:
    columns = read_columns(path / "eval.csv")
    matrix = accuracy_matrix(path)
    learned = columns["after_task"] >= 0
    borders = np.unique(columns["global_step"][learned])
    for border in borders[:-1]:
        axis.axvline(border, color="#999999", linewidth=0.8, linestyle=":")
    for task, colour in enumerate(_task_colours(len(matrix))):
        own = columns["task"] == task
        axis.plot(
            columns["global_step"][own],
            columns["accuracy"][own],
            color=colour,
            marker="o",
            markersize=4,
            label=f"task {task}",
        )
    _, seen = accuracy_curve(path)
    axis.plot(borders, seen, color=MEAN_COLOUR, linewidth=2, linestyle="--", label="mean of those learned")
    axis.set_title("accuracy over time; dotted: border between tasks", fontsize="medium")
    axis.set_xlabel("gradient steps")
    axis.set_xlim(0, None)
    axis.set_ylim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize="small", ncols=1 + len(matrix) // 6)


def _draw_connections(axis: Axes, path: Path, layer: str) -> None:
    rows = [row for row in read_rows(path / "connections.csv") if row["layer"] == layer]
    n_tasks = len(accuracy_matrix(path))
    colour_of = {str(task): colour for task, colour in enumerate(_task_colours(n_tasks))}
    small = 7 if n_tasks <= 6 else 5
    for after in dict.fromkeys(row["after_task"] for row in rows):
        bottom, now = 0, [row for row in rows if row["after_task"] == after]
        for row in now:
            shared = row["owner"] not in colour_of
            axis.bar(
                int(after),
                int(row["connections"]),
                bottom=bottom,
                color=SHARED_COLOUR if shared else colour_of[row["owner"]],
                label="shared by all tasks" if shared else f"of task {row['owner']}",
            )
            bottom += int(row["connections"])
        axis.bar(int(after), int(now[0]["free"]), bottom=bottom, label=FREE_LABEL, **FREE)  # type: ignore[arg-type]
        axis.annotate(
            f"{bottom:,}", (int(after), bottom), (0, 2), textcoords="offset points", ha="center", fontsize=small
        )
    axis.set_title(f"{layer} ({int(rows[0]['size']):,})", fontsize="medium")
    axis.set_xlabel("after task")
    axis.set_xticks(range(n_tasks))
    axis.set_xlim(-0.6, n_tasks - 0.4)
    axis.set_ylim(0, 1.1 * int(rows[0]["size"]))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
