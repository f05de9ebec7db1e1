"""What all pictures of runs share: colours and lines, the mean over seeds and its interval, legends, and writing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparserl.errors import ConfigError, unknown_name
from sparserl.metrics.bootstrap import band, resample
from sparserl.metrics.statistics import LEVEL_PERCENT
from sparserl.recording.run_logs import Curve, FloatArray
from sparserl.seeding import stream
from sparserl.written_files import replacing

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
class LineStyle:
    """How the line of a group is drawn. Line and marker tell groups apart where colours do not."""

    colour: str
    line: str
    marker: str

    def of_line(self, n_points: int) -> dict[str, Any]:
        """Keywords for `Axes.plot`, of a line with so many points; of equal lines, each has its markers elsewhere."""
        every = max(1, n_points // MARKERS_A_LINE)
        first = every * MARKERS.index(self.marker) // len(MARKERS)
        return {"color": self.colour, "linestyle": self.line, "marker": self.marker, "markevery": (first, every)}


def line_styles(labels: Iterable[str]) -> dict[str, LineStyle]:
    """A style for each of some labels; no two lines are alike up to 28, no two points up to 63."""
    return {
        label: LineStyle(*(among[index % len(among)] for among in (COLOURS, LINES, MARKERS)))
        for index, label in enumerate(dict.fromkeys(labels))
    }


@dataclass(frozen=True)
class Run:
    """A run to draw.

    Attributes:
        path: Its folder.
        label: Runs of equal label are seeds of one method.
        finished: Whether it has come to its end; if not, the legend says so.
        task: What it learned, in words: an env, or a sequence with its scenario.
    """

    path: Path
    label: str
    finished: bool = True
    task: str = ""


def draw_curves(axis: Axes, curves: Mapping[Run, Curve], label: str, style: LineStyle) -> None:
    """Draws the mean over seeds as far as all of them have come, and the bootstrap interval of it, shaded.

    Where seeds were not measured at the same x, values between two measurements are on the straight line between them.
    A thin line is a seed that has come further than another. One seed has no interval.

    Args:
        axis: Where to draw.
        curves: Of each seed.
        label: Of all of them; how many there are is added.
        style: Likewise.
    """
    if not curves:
        return
    x, values = _at_common_x(list(curves.values()))
    unfinished = sum(not run.finished for run in curves)
    said = f"{label} (n = {len(curves)}{f', {unfinished} unfinished' * bool(unfinished)})"
    axis.plot(x, values.mean(axis=0), **style.of_line(len(x)), label=said)
    if len(curves) > 1:
        low, high = _interval_of_mean(values, stream(0, "plot", label))
        axis.fill_between(x, low, high, color=style.colour, alpha=0.2, linewidth=0)
    end = x[-1] if len(x) else -np.inf
    for own_x, own_values in curves.values():
        further = own_x > end
        if further.any():
            reached = np.append(x[-1:], own_x[further])
            axis.plot(reached, np.interp(reached, own_x, own_values), style.line, color=style.colour, linewidth=0.7)


def _at_common_x(curves: Sequence[Curve]) -> tuple[FloatArray, FloatArray]:
    """(E,) x between the last beginning and the first end at which any curve has a value, and (S, E) values there."""
    x = np.unique(np.concatenate([of_seed for of_seed, _ in curves]))
    x = x[(x >= max(of_seed[0] for of_seed, _ in curves)) & (x <= min(of_seed[-1] for of_seed, _ in curves))]
    return x, np.array([np.interp(x, *curve) for curve in curves])


def _interval_of_mean(values: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Bootstrap interval of the mean over seeds at each x: (S, E) -> (E,), (E,); a seed is drawn as a whole."""
    shares = np.eye(len(values))[resample(len(values), rng)].mean(axis=1)
    return band(shares @ values, LEVEL_PERCENT)


def add_legend(
    figure: Figure, axes: Axes | Sequence[Axes], title: str | None = None, letters: int = LEGEND_LETTERS
) -> None:
    """Says beneath a picture what the lines of some panels are.

    Args:
        figure: The picture.
        axes: The panel, or several; what is said alike in them is said once.
        title: Above the names.
        letters: That fit beside each other.
    """
    panels = [axes] if isinstance(axes, Axes) else axes
    drawn = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in panels]
    by_label = {label: handle for panel in drawn for handle, label in panel}
    labels = list(by_label)
    figure.legend(
        list(by_label.values()),
        [textwrap.fill(label, letters) for label in labels],
        loc="outside lower center",
        ncols=2 if len(labels) > 2 and max(map(len, labels)) <= letters // 2 - 4 else 1,
        frameon=False,
        title=title,
    )


def legend_title(axis: Axes) -> str | None:
    """What the curves and bands of `draw_curves` are; nothing if there is no band."""
    return f"mean over n runs, {LEVEL_PERCENT} % bootstrap interval" if axis.collections else None


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
