"""Pictures of runs, from their CSV files alone.

Decides how a run is drawn, and the look of every picture. Refuses to know agents and configs: whoever asks gives each
run its label.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sparserl.errors import ConfigError, unknown_name
from sparserl.metrics.bootstrap import band, resample
from sparserl.metrics.statistics import LEVEL_PERCENT
from sparserl.seeding import stream
from sparserl.written_files import replacing

FloatArray = npt.NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]
"""x, increasing, and y."""

# --- the look of all pictures -----------------------------------------------------------------------

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Those of Okabe and Ito (2008), distinguishable with colour-vision deficiencies, without yellow, which is lost on
white."""
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""Nine to seven colours: points that have no line are alike after 63 only."""
MARKERS_A_LINE = 8
WIDTH = 5.5
"""Inches: the column of a paper that has one. Printed there, text of 10 pt is 10 pt."""
LEGEND_LETTERS = 64
"""That fit beside each other beneath a picture of `WIDTH`."""

FILE_STYLE: dict[Any, Any] = {
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sparserl",  # same picture, same bytes
    "pdf.fonttype": 42,
}
STYLE: dict[Any, Any] = FILE_STYLE | {
    "font.size": 10,
    "text.parse_math": False,  # labels may hold dollars
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.handlelength": 2.8,
}
"""For `matplotlib.rc_context`, around what makes a picture."""
FORMATS: Mapping[str, Mapping[str, None]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
"""Ending of a picture -> metadata that is left out, because it differs from one time to the next."""


@dataclass(frozen=True)
class Look:
    """How the line of a group is drawn. Line and marker tell groups apart where colours do not."""

    colour: str
    line: str
    marker: str

    def of_line(self, n_points: int) -> dict[str, Any]:
        """Keywords for `Axes.plot`, of a line with so many points; of equal lines, each has its markers elsewhere."""
        every = max(1, n_points // MARKERS_A_LINE)
        first = every * MARKERS.index(self.marker) // len(MARKERS)
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker, "markevery": (first, every)}


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each of some labels; no two lines are alike up to 28, no two points up to 63."""
    return {
        label: Look(*(among[place % len(among)] for among in (COLOURS, LINES, MARKERS)))
        for place, label in enumerate(dict.fromkeys(labels))
    }


# --- reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run to draw.

    Attributes:
        path: Its folder.
        label: Runs of equal label are seeds of one method.
        finished: Whether it has come to its end; if not, the legend says so.
    """

    path: Path
    label: str
    finished: bool = True


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


def evaluation_curve(path: Path) -> Curve:
    """Env steps and mean return over the episodes of each evaluation of a run."""
    columns = read_columns(path / "eval.csv")
    steps = np.unique(columns["global_step"])
    means = [columns["return"][columns["global_step"] == step].mean() for step in steps]
    return steps, np.array(means)


# --- curves of runs of `sparserl train` -------------------------------------------------------------

RETURN = "return"
X_AXES: Mapping[str, tuple[str, str]] = {
    "steps": ("global_step", "env steps"),
    "flops": ("cost/flops_train", "FLOPs of training"),
    "seconds": ("time/elapsed_s", "wall time (s)"),
}
"""Name of an axis -> column of progress.csv that grows from 0, and title."""
Y_AXES: Mapping[str, str] = {
    RETURN: "return of an evaluation episode",
    "topology/density": "density of\nsparse layers",
    "topology/explored_fraction": "explored fraction\nof sparse layers",
}
"""Column of progress.csv -> title, where that is another; those that are drawn unless one is named."""


def plot_runs(runs: Sequence[Run], out: Path, title: str = "", *, x: str = "steps", y: str | None = None) -> None:
    """Draws return over env steps, and beneath it density and explored fraction of the sparse layers; or one column.

    Runs of equal label make one curve, as in `draw_curves`.

    Args:
        runs: At least one.
        out: Picture to write.
        title: Of the picture.
        x: One of `X_AXES`.
        y: `return`, or a column of progress.csv, to be drawn alone.

    Raises:
        ConfigError: If a run has no evaluation yet, a name is unknown, or the picture cannot be written.
    """
    if x not in X_AXES:
        raise ConfigError(unknown_name("x axis", x, X_AXES))
    found = {name: _curves_of(runs, name, x) for name in (Y_AXES if y is None else (y,))}
    panels = {name: curves for name, curves in found.items() if curves}
    if not panels:
        raise ConfigError(f"no run has a value of {y} yet")
    with rc_context(STYLE):
        heights = [3.0, *[1.3] * (len(panels) - 1)]
        groups = looks(run.label for run in runs)
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.6 + 0.2 * len(groups)), layout="constrained")
        axes: list[Axes] = list(
            figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        )
        for axis, (name, curves) in zip(axes, panels.items(), strict=True):
            for label, look in groups.items():
                draw_curves(axis, {run: curve for run, curve in curves.items() if run.label == label}, label, look)
            axis.set_ylabel(Y_AXES.get(name, name))
            if name in Y_AXES and name != RETURN:
                axis.set_ylim(-0.03, 1.03)
        axes[0].set_title(title)
        axes[-1].set_xlabel(X_AXES[x][1])
        axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        add_legend(figure, axes[0], legend_title(axes[0]))
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
        curves = {run: (_spent(logs[run], x, steps), values) for run, (steps, values) in curves.items()}
    return {run: curve for run, curve in curves.items() if curve[0].size}


def _spent(log: Mapping[str, FloatArray], x: str, steps: FloatArray) -> FloatArray:
    """What was spent of one of `X_AXES` up to some env steps."""
    column = X_AXES[x][0]
    if column not in log:
        raise ConfigError(f"progress.csv of a run has no column {column}")
    spent: FloatArray = np.interp(steps, np.append(0.0, log["global_step"]), np.append(0.0, log[column]))
    return spent


# --- parts ------------------------------------------------------------------------------------------


def draw_curves(axis: Axes, curves: Mapping[Run, Curve], label: str, look: Look) -> None:
    """Draws the mean over seeds as far as all of them have come, and the bootstrap interval of it, shaded.

    Where seeds were not measured at the same x, values between two measurements are on the straight line between them.
    A thin line is a seed that has come further than another. One seed has no interval.

    Args:
        axis: Where to draw.
        curves: Of each seed.
        label: Of all of them; how many there are is added.
        look: Likewise.
    """
    if not curves:
        return
    places, values = _at_common_places(list(curves.values()))
    unfinished = sum(not run.finished for run in curves)
    said = f"{label} (n = {len(curves)}{f', {unfinished} unfinished' * bool(unfinished)})"
    axis.plot(places, values.mean(axis=0), **look.of_line(len(places)), label=said)
    if len(curves) > 1:
        low, high = _interval_of_mean(values, stream(0, "plot", label))
        axis.fill_between(places, low, high, color=look.colour, alpha=0.2, linewidth=0)
    end = places[-1] if len(places) else -np.inf
    for own_places, own_values in curves.values():
        further = own_places > end
        if further.any():
            reached = np.append(places[-1:], own_places[further])
            axis.plot(reached, np.interp(reached, own_places, own_values), look.line, color=look.colour, linewidth=0.7)


def _at_common_places(curves: Sequence[Curve]) -> tuple[FloatArray, FloatArray]:
    """(E,) x between the last beginning and the first end at which any curve has a value, and (S, E) values there."""
    places = np.unique(np.concatenate([own for own, _ in curves]))
    places = places[(places >= max(own[0] for own, _ in curves)) & (places <= min(own[-1] for own, _ in curves))]
    return places, np.array([np.interp(places, *curve) for curve in curves])


def _interval_of_mean(values: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Bootstrap interval of the mean over seeds at each place: (S, E) -> (E,), (E,); a seed is drawn as a whole."""
    shares = np.eye(len(values))[resample(len(values), rng)].mean(axis=1)
    return band(shares @ values, LEVEL_PERCENT)


def add_legend(figure: Figure, axis: Axes, title: str | None = None, letters: int = LEGEND_LETTERS) -> None:
    """Says beneath a picture what the lines of a panel are.

    Args:
        figure: The picture.
        axis: The panel.
        title: Above the names.
        letters: That fit beside each other.
    """
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        [textwrap.fill(label, letters) for label in labels],
        loc="outside lower center",
        ncols=2 if len(labels) > 2 and max(map(len, labels)) <= letters // 2 - 4 else 1,
        frameon=False,
        title=title,
    )


def legend_title(axis: Axes) -> str | None:
    """What the curves and bands of `draw_curves` are; nothing if there is no band."""
    return f"mean over n runs, {LEVEL_PERCENT} % bootstrap interval" if axis.collections else None


# --- writing ----------------------------------------------------------------------------------------


def write_figure(figure: Figure, out: Path) -> None:
    """Writes a picture; the ending decides the format.

    Raises:
        ConfigError: If it cannot be written.
    """
    check_ending(out, FORMATS)
    with writing(out) as path, rc_context(FILE_STYLE):
        figure.savefig(path, metadata=dict(FORMATS[out.suffix.lower()]))


def check_ending(out: Path, endings: Iterable[str]) -> None:
    """Raises ConfigError if a picture of this name is of no known format."""
    if out.suffix.lower() not in endings:
        raise ConfigError(f"cannot write {out}: {unknown_name('ending', out.suffix, endings)}")


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Gives the name to write a picture to; turns what stops it from being written into a ConfigError that names it."""
    try:
        with replacing(out) as path:
            yield path
    except ConfigError:
        raise
    except ValueError as error:  # what Pillow says of a GIF of another ending
        raise ConfigError(f"cannot write {out}: {error}") from None
