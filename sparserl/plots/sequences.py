"""Pictures of continual RL runs, from their `sequence.yaml` and CSV files alone.

Decides how a run is drawn. Independent of agents and configs: the caller labels each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, PercentFormatter

from sparserl.errors import ConfigError
from sparserl.plots.matrix import BORDER, FEW_TASKS, draw_connections, draw_matrix, layers, task_colours
from sparserl.plots.style import (
    DEFAULT,
    STYLE,
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
from sparserl.recording.evaluations import Evaluations, evaluations
from sparserl.recording.run_logs import FloatArray, read_rows

OWN_COLOUR = "#E4E4E4"
CONNECTION_COLUMNS = 3
WIDTH = 13.0
MEAN_HEIGHT = 3.4
PANEL_HEIGHT = 0.95
CONNECTION_HEIGHT = 1.5
MATRIX_HEIGHT = 0.3
"""Of a row, as the heights above; all in inches."""


@rc_context(STYLE)
def plot_rl_run(path: Path, out: Path, title: str = "", options: PictureOptions = DEFAULT) -> None:
    """Draws one run: performance on each task over time, its matrix, and who owns the connections of each layer.

    The latter two are left out before the first border.

    Raises:
        ConfigError: If the run has no evaluation yet, or the picture cannot be written.
    """
    run = evaluations(path)
    matrix = run.matrix
    n_tasks, owned = len(run.names), _connections(path)
    heights = [_panels_height(n_tasks)]
    if not np.isnan(matrix).all():
        rows = -(-len(layers(owned)) // CONNECTION_COLUMNS)
        heights.append(max(5.0, 2.0 + MATRIX_HEIGHT * n_tasks, 1.2 + CONNECTION_HEIGHT * rows))
    figure = Figure(figsize=options.size or (WIDTH, sum(heights)), layout="constrained")
    above, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    _draw_tasks(above, run)
    widths = [1, 1.25] if n_tasks <= FEW_TASKS else [1.25, 1]  # large numbers need wide cells
    for part in below:
        left, right = part.subfigures(1, 2, width_ratios=widths, squeeze=False).flat
        _draw_matrix(left.subplots(), run, matrix)
        if owned:
            draw_connections(right, owned, n_tasks, CONNECTION_COLUMNS)
    figure.suptitle(title)
    write_figure(figure, out)


@rc_context(STYLE)
def plot_rl_runs(runs: Sequence[Run], out: Path, options: PictureOptions = DEFAULT) -> None:
    """Draws mean performance on the tasks so far, and on each task, over time; runs of equal label are averaged.

    Averages and bands are those of `draw_curves`. Each sequence has panels of its own. Where runs learn their tasks in
    different orders, a panel is a position in the sequence.

    Raises:
        ConfigError: If a run has no evaluation yet, if runs of a sequence differ in the steps of their tasks or in what
            performance is, or if the picture cannot be written.
    """
    read = {run: evaluations(run.path) for run in runs}
    styles, sequences = line_styles(run.label for run in runs), by_task(runs)
    heights = []
    for of_sequence in sequences.values():
        _check_alike({run.path: read[run] for run in of_sequence})
        heights.append(MEAN_HEIGHT + _panels_height(len(read[of_sequence[0]].names)))
    figure = Figure(figsize=options.size or (WIDTH, sum(heights) + 0.1 * len(styles)), layout="constrained")
    parts = figure.subfigures(len(sequences), 1, height_ratios=heights, squeeze=False).flat
    panels = [
        _draw_sequence(part, title, {run: read[run] for run in of_sequence}, styles)
        for part, (title, of_sequence) in zip(parts, sequences.items(), strict=True)
    ]
    add_legend(figure, panels, legend_title(panels, options))
    write_figure(figure, out)


def _draw_sequence(
    figure: SubFigure, title: str, runs: Mapping[Run, Evaluations], styles: Mapping[str, LineStyle]
) -> Axes:
    """Draws runs of one sequence; returns the panel of the mean over tasks."""
    first = next(iter(runs.values()))
    heights = [MEAN_HEIGHT, _panels_height(len(first.names))]
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
    mean_axis: Axes = above.subplots()
    names_at = zip(*(run.names for run in runs.values()), strict=True)
    names = [alike[0] if len(set(alike)) == 1 else "" for alike in names_at]
    panels = _task_panels(below, first, names, [OWN_COLOUR] * len(names))
    for label, style in styles.items():
        seeds = {run: of_run for run, of_run in runs.items() if run.label == label}
        draw_curves(mean_axis, {run: (of.steps, of.of_tasks_so_far()) for run, of in seeds.items()}, label, style)
        for task, axis in enumerate(panels):
            draw_curves(axis, {run: (of.steps, of.stochastic[:, task]) for run, of in seeds.items()}, label, style)
    _draw_time(mean_axis, first)
    mean_axis.set_xlabel("env steps")
    mean_axis.set_ylabel(f"mean {first.measure}")
    mean_axis.set_title("tasks so far, the one in training included; dotted: border between tasks", fontsize="medium")
    below.suptitle("each task; shaded: trained on it", fontsize="medium")
    figure.suptitle(title)
    return mean_axis


def _connections(path: Path) -> list[dict[str, str]]:
    try:
        return read_rows(path / "connections.csv")
    except ConfigError:  # a run that stopped at its first border has no rows
        return []


def _check_alike(runs: Mapping[Path, Evaluations]) -> None:
    (path, first), *others = runs.items()
    for other_path, other in others:
        if not np.array_equal(other.borders, first.borders):
            raise ConfigError(f"{path} and {other_path} do not go into one picture: their tasks differ in steps")
        if other.success != first.success:
            said = f"one has {first.measure}s, the other {other.measure}s"
            raise ConfigError(f"{path} and {other_path} do not go into one picture: {said}")


def _panels_height(n_tasks: int) -> float:
    return 1.2 + PANEL_HEIGHT * -(-n_tasks // _panel_columns(n_tasks))


def _panel_columns(n_tasks: int) -> int:
    return 1 if n_tasks <= FEW_TASKS else 2


def _draw_tasks(figure: SubFigure, run: Evaluations) -> None:
    colours = task_colours(len(run.names))
    panels = _task_panels(figure, run, run.names, [(*colour[:3], 0.18) for colour in colours])
    for task, (axis, colour) in enumerate(zip(panels, colours, strict=True)):
        axis.plot(run.steps, run.deterministic[:, task], "--", color=colour, linewidth=0.8, label="deterministic")
        axis.plot(run.steps, run.stochastic[:, task], color=colour, linewidth=1.6, label="stochastic")
    meanings = [
        Line2D([], [], color="black", linewidth=1.6, label="stochastic"),
        Line2D([], [], color="black", linewidth=0.8, linestyle="--", label="deterministic"),
        Patch(color=OWN_COLOUR, label="trained on it"),
        Line2D([], [], label="border between tasks", **BORDER),
    ]
    figure.legend(handles=meanings, loc="outside upper right", ncols=len(meanings), fontsize="small")


def _task_panels(figure: SubFigure, run: Evaluations, names: Sequence[str], colours: Sequence[Any]) -> list[Axes]:
    """Empty panels over the whole sequence, one per task, in reading order from top to bottom; `own` colours."""
    columns = _panel_columns(len(names))
    grid = figure.subplots(-(-len(names) // columns), columns, sharex=True, squeeze=False)
    for axis in grid.T.flat[len(names) :]:
        axis.remove()
    panels: list[Axes] = list(grid.T.flat[: len(names)])
    for task, (axis, name, colour) in enumerate(zip(panels, names, colours, strict=True)):
        axis.axvspan(run.borders[task], run.borders[task + 1], color=colour, linewidth=0)
        axis.set_title(f"{task} {name}" if name else f"task {task}", loc="left", fontsize="small", pad=2)
        _draw_time(axis, run)
    for axis in (panels[-1], grid[-1, 0]):
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("env steps")
    figure.supylabel(run.measure, fontsize="medium")
    return panels


def _draw_time(axis: Axes, run: Evaluations) -> None:
    """Scales of performance over the whole sequence, and its borders."""
    for border in run.borders[1:-1]:
        axis.axvline(border, **BORDER)
    axis.set_xlim(0, run.borders[-1])
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if run.success:
        axis.set_ylim(-0.05, 1.05)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axis.yaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_matrix(axis: Axes, run: Evaluations, matrix: FloatArray) -> None:
    if run.success:
        draw_matrix(axis, 100 * matrix, (0.0, 100.0), decimals=0)
    else:
        digits = np.floor(np.log10(max(1.0, np.nanmax(np.abs(matrix)))))
        draw_matrix(axis, matrix, (np.nanmin(matrix), np.nanmax(matrix)), decimals=max(0, 2 - int(digits)))
    unit = " (%)" if run.success else ""
    axis.set_title(f"{run.measure}{unit} at the borders, stochastic; hatched: not measured", fontsize="medium")
    axis.set_yticks(range(len(run.names)), [f"{task} {name}" for task, name in enumerate(run.names)])
