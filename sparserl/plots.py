"""Pictures of runs, from their CSV files alone.

Decides how a run is drawn. Refuses to know agents and configs: whoever asks gives each run its label.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparserl.errors import ConfigError

FloatArray = npt.NDArray[np.float64]

COLOURS = ("#4477AA", "#EE7733", "#228833", "#CC3311", "#AA3377", "#66CCEE", "#BBBBBB")
"""Distinguishable with the common colour-vision deficiencies (P. Tol's schemes)."""


@dataclass(frozen=True)
class Run:
    """A run to draw.

    Attributes:
        path: Its folder.
        label: Runs of equal label are seeds of one method.
    """

    path: Path
    label: str


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file, as text; cells that the last row lacks, because it is still being written, are empty.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    if not rows:
        raise ConfigError(f"{path} has no rows yet")
    return rows


def read_columns(path: Path) -> dict[str, FloatArray]:
    """Numeric columns of a CSV file; an empty or non-numeric cell is NaN.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    return numeric_columns(read_rows(path))


def numeric_columns(rows: Sequence[Mapping[str, str]]) -> dict[str, FloatArray]:
    """Columns of some rows of a CSV file, at least one; an empty or non-numeric cell is NaN."""
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0]}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def evaluation_curve(path: Path) -> tuple[FloatArray, FloatArray]:
    """Env steps and mean return over the episodes of each evaluation of a run."""
    columns = read_columns(path / "eval.csv")
    steps = np.unique(columns["global_step"])
    means = [columns["return"][columns["global_step"] == step].mean() for step in steps]
    return steps, np.array(means)


def plot_runs(runs: Sequence[Run], out: Path) -> None:
    """Draws return over env steps, and beneath it density and explored fraction of the sparse layers.

    A thick line is the mean over seeds at the steps that all of them reached, with the range between the lowest and
    the highest seed shaded; a thin line is one seed.

    Raises:
        ConfigError: If a run has no evaluation yet, or the picture cannot be written.
    """
    topology = [run for run in runs if not np.isnan(_progress(run, "topology/density")[1]).all()]
    figure = Figure(figsize=(8, 9 if topology else 4.5), layout="constrained")
    panels = figure.subplots(
        3 if topology else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 1, 1][: 3 if topology else 1]
    )
    axes: list[Axes] = list(panels[:, 0])
    labels = list(dict.fromkeys(run.label for run in runs))
    for label, colour in zip(labels, colours(len(labels)), strict=True):
        seeds = [run for run in runs if run.label == label]
        draw_curves(axes[0], [evaluation_curve(run.path) for run in seeds], label, colour)
        for axis, name in zip(axes[1:], ("topology/density", "topology/explored_fraction"), strict=False):
            curves = [_progress(run, name) for run in seeds if run in topology]
            if curves:
                draw_curves(axis, curves, label, colour)
    axes[0].set_ylabel("return of an evaluation episode")
    axes[0].legend(loc="best", fontsize="small")
    for axis, title in zip(
        axes[1:], ("density of\nsparse layers", "explored fraction\nof sparse layers"), strict=False
    ):
        axis.set_ylabel(title)
        axis.set_ylim(0, 1)
    axes[-1].set_xlabel("env steps")
    for axis in axes:
        axis.grid(alpha=0.3)
    write_figure(figure, out)


def _progress(run: Run, name: str) -> tuple[FloatArray, FloatArray]:
    columns = read_columns(run.path / "progress.csv")
    return columns["global_step"], columns[name]


def colours(count: int) -> list[str]:
    """One of `COLOURS` for each of some things, from the first again when they run out."""
    return [COLOURS[position % len(COLOURS)] for position in range(count)]


def draw_curves(
    axis: Axes, curves: Sequence[tuple[FloatArray, FloatArray]], label: str, colour: str, style: str = "-"
) -> None:
    """Draws the mean over seeds where all of them have a value, thick, between the lowest and the highest, shaded.

    Args:
        axis: Where to draw.
        curves: x and y of each seed; a single one is drawn as it is.
        label: Of all of them.
        colour: Likewise.
        style: Likewise, of the line.
    """
    if len(curves) == 1:
        axis.plot(*curves[0], style, color=colour, label=f"{label} (1 seed)")
        return
    values: Mapping[float, list[float]] = defaultdict(list)
    for steps, means in curves:
        axis.plot(steps, means, style, color=colour, linewidth=0.6, alpha=0.6)
        for step, mean in zip(steps, means, strict=True):
            values[step].append(mean)
    shared = np.array(sorted(step for step, seeds in values.items() if len(seeds) == len(curves)))
    matrix = np.array([values[step] for step in shared])
    axis.plot(
        shared, matrix.mean(axis=1), style, color=colour, linewidth=2, label=f"{label} (mean of {len(curves)} seeds)"
    )
    axis.fill_between(shared, matrix.min(axis=1), matrix.max(axis=1), color=colour, alpha=0.15, linewidth=0)


def write_figure(figure: Figure, out: Path) -> None:
    """Writes a picture; the ending decides the format.

    Raises:
        ConfigError: If it cannot be written.
    """
    with writing(out):
        figure.savefig(out, dpi=120)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns what stops a picture from being written into a ConfigError that names it."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a file format that matplotlib does not know
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise ConfigError(f"cannot write {out}: {reason}") from None
