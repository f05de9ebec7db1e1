"""Pictures of runs, from their CSV files and topology snapshots alone.

Decides how a run is drawn. Refuses to know agents and configs: whoever asks gives each run its label.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sparserl.errors import ConfigError, unknown_name

FloatArray = npt.NDArray[np.float64]

COLOURS = ("#4477AA", "#EE7733", "#228833", "#CC3311", "#AA3377", "#66CCEE", "#BBBBBB")
"""Distinguishable with the common colour-vision deficiencies (P. Tol's schemes)."""
ABSENT, INITIAL, GROWN = 0, 1, 2
CONNECTIVITY_COLOURS = ("#FFFFFF", "#4477AA", "#EE7733")
MAX_PIXELS = 512
MAX_PICTURES = 6


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
    """Rows of a CSV file, as text.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ConfigError(f"{path} has no rows yet")
    return rows


def read_columns(path: Path) -> dict[str, FloatArray]:
    """Numeric columns of a CSV file; an empty or non-numeric cell is NaN.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    rows = read_rows(path)
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


def plot_connectivity(path: Path, layer: str, out: Path) -> None:
    """Draws which connections a layer has at some moments of a run: those of the start, and those grown since.

    A layer of more than 512 neurons a side is binned; a pixel then shows the newest kind of connection in it.

    Args:
        path: Run folder.
        layer: Full name, e.g. `critic.qf0.1`.
        out: Picture to write.

    Raises:
        ConfigError: If the run has no snapshots or no such layer, or the picture cannot be written.
    """
    files = sorted((path / "topology").glob("step-*.safetensors"))
    if not files:
        raise ConfigError(f"{path} has no topology snapshots (a dense run has none)")
    chosen = [
        files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(MAX_PICTURES, len(files))).round().astype(int))
    ]
    first = safetensors.torch.load_file(files[0])
    if layer not in first:
        raise ConfigError(unknown_name("layer", layer, [name for name in first if not name.endswith(".shape")]))
    n_out, n_in = first[f"{layer}.shape"].tolist()
    initial = first[layer].numpy()
    figure = Figure(figsize=(3.2 * len(chosen), 4.2), layout="constrained")
    panels = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for axis, file in zip(panels, chosen, strict=True):
        flat = safetensors.torch.load_file(file)[layer].numpy()
        axis.imshow(
            _picture(flat, initial, n_out, n_in),
            cmap=ListedColormap(list(CONNECTIVITY_COLOURS)),
            vmin=ABSENT,
            vmax=GROWN,
            aspect="auto",
            interpolation="nearest",
            extent=(0, n_in, n_out, 0),
        )
        survivors = np.isin(flat, initial, assume_unique=True).sum()
        step = int(file.stem.removeprefix("step-"))
        axis.set_title(
            f"step {step:,}\n{flat.size:,} connections\n{survivors / initial.size:.0%} of the first", fontsize="small"
        )
        axis.set_xlabel("input neuron")
    panels[0].set_ylabel("output neuron")
    handles = [
        Patch(color=CONNECTIVITY_COLOURS[kind], label=text)
        for kind, text in ((INITIAL, "since the start"), (GROWN, "grown"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    figure.suptitle(f"{layer} ({n_out} x {n_in})")
    write_figure(figure, out)


def _picture(
    flat: npt.NDArray[np.int64], initial: npt.NDArray[np.int64], n_out: int, n_in: int
) -> npt.NDArray[np.int64]:
    height, width = min(n_out, MAX_PIXELS), min(n_in, MAX_PIXELS)
    kind = np.where(np.isin(flat, initial, assume_unique=True), INITIAL, GROWN)
    picture = np.full((height, width), ABSENT)
    np.maximum.at(picture, ((flat // n_in) * height // n_out, (flat % n_in) * width // n_in), kind)
    return picture


def write_figure(figure: Figure, out: Path) -> None:
    """Writes a picture; the ending decides the format.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a file format that matplotlib does not know
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise ConfigError(f"cannot write {out}: {reason}") from None
