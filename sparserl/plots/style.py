"""What all pictures of runs share: colours and lines, the mean over seeds and its interval, legends, and writing."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

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
PANEL_WIDTH, PANELS_A_ROW = 3.8, 3
"""Inches of one of several panels beside each other, and how many there are at most."""
LEGEND_LETTERS, LEAST_LETTERS, HANDLE_LETTERS = 64, 12, 8
"""That fit beside each other beneath a picture of `WIDTH`, beneath any, and that the line before them is as wide as."""

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

_RUNS = re.compile(r" \(n = (\d+)(?:, (\d+) unfinished)?\)$")
"""How the label of a curve says of how many runs it is."""


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


@dataclass(frozen=True)
class PictureOptions:
    """What users say of a picture, whatever it shows.

    Attributes:
        size: Width and height in inches; by what there is to draw if None.
        smooth: Latest values of which each point of a learning curve is the mean, >= 1.
        keys: Short key in labels of curves -> key of the config in full, which the legend says.
    """

    size: tuple[float, float] | None = None
    smooth: int = 1
    keys: Mapping[str, str] = field(default_factory=dict)


DEFAULT = PictureOptions()


def by_task(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by what they learned, in the order in which that comes first; each has a panel of its own."""
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run)
    return tasks


def task_panels(
    tasks: Sequence[str], heights: Sequence[float], n_labels: int, options: PictureOptions = DEFAULT
) -> tuple[Figure, dict[str, list[Axes]]]:
    """A picture with panels above each other for each task, under its name, that share their x axis.

    Args:
        tasks: At least one; up to `PANELS_A_ROW` stand beside each other.
        heights: Inches of each panel of a task.
        n_labels: Lines of the legend.
        options: Of the picture.
    """
    rows = -(-len(tasks) // PANELS_A_ROW)
    columns = -(-len(tasks) // rows)
    width = WIDTH if columns == 1 else PANEL_WIDTH * columns
    size = options.size or (width, rows * (sum(heights) + 0.6) + 0.2 * n_labels)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows * len(heights), columns, squeeze=False, height_ratios=[*heights] * rows)
    blocks = grid.reshape(rows, len(heights), columns).transpose(0, 2, 1).reshape(-1, len(heights))
    for axis in blocks[len(tasks) :].flat:
        axis.remove()
    panels: dict[str, list[Axes]] = dict(zip(tasks, map(list, blocks), strict=False))
    for task, axes in panels.items():
        axes[0].set_title(task)
        for axis in axes[1:]:
            axis.sharex(axes[0])
        for axis in axes[:-1]:
            axis.tick_params(labelbottom=False)
    return figure, panels


def set_row_label(axis: Axes, text: str) -> None:
    """Says what the y axes of a row of panels are, at the first of them."""
    spec = axis.get_subplotspec()
    if spec is not None and spec.is_first_col():
        axis.set_ylabel(text)


def trailing_mean(values: FloatArray, count: int) -> FloatArray:
    """(E,) mean of the latest `count` values up to each, fewer at the beginning.

    Example:
        >>> trailing_mean(np.array([1.0, 3.0, 8.0]), 2).tolist()
        [1.0, 2.0, 5.5]
    """
    return np.array([values[max(0, end - count) : end].mean() for end in range(1, len(values) + 1)])


def draw_curves(axis: Axes, curves: Mapping[Run, Curve], label: str, style: LineStyle, smooth: int = 1) -> None:
    """Draws the mean over seeds as far as all of them have come, and the bootstrap interval of it, shaded.

    Where seeds were not measured at the same x, values between two measurements are on the straight line between them.
    A thin line is a seed that has come further than another. One seed has no interval.

    Args:
        axis: Where to draw.
        curves: Of each seed.
        label: Of all of them; how many there are is added.
        style: Likewise.
        smooth: Each seed is smoothed by `trailing_mean` of so many first; the mean of what was measured is faint
            behind, if that differs.
    """
    if not curves:
        return
    if smooth > 1:
        x, values = _at_common_x(list(curves.values()))
        axis.plot(x, values.mean(axis=0), style.line, color=style.colour, linewidth=0.8, alpha=0.4)
        curves = {run: (of_seed, trailing_mean(of_run, smooth)) for run, (of_seed, of_run) in curves.items()}
    x, values = _at_common_x(list(curves.values()))
    unfinished = sum(not run.finished for run in curves)
    said = label + _said_runs([(len(curves), unfinished)])
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


def percent_ticks() -> FuncFormatter:
    """Shares as percent, each with the digits that it needs: 98.5%, 99%."""
    return FuncFormatter(lambda share, _: f"{100 * share:.6g}%")


def legend_letters(width: float) -> int:
    """That fit beside each other in the legend of a picture of some inches, behind the line that they are about."""
    return max(LEAST_LETTERS, int((LEGEND_LETTERS + HANDLE_LETTERS) * width / WIDTH) - HANDLE_LETTERS)


def add_legend(figure: Figure, axes: Axes | Sequence[Axes], title: str | None = None) -> None:
    """Says beneath a picture what the lines of some panels are.

    Args:
        figure: The picture.
        axes: The panel, or several; what is said alike in them but for the number of runs is said once.
        title: Above the names.
    """
    panels = [axes] if isinstance(axes, Axes) else axes
    drawn = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in panels]
    by_label = _joined({label: handle for panel in drawn for handle, label in panel})
    labels = list(by_label)
    letters = legend_letters(figure.get_figwidth())
    longest = max(map(len, labels), default=0)
    columns = max(1, min(len(labels) - 1, (letters + HANDLE_LETTERS) // (longest + HANDLE_LETTERS)))
    legend = figure.legend(
        list(by_label.values()),
        [_filled(label, letters) for label in labels],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        title=title and "\n".join(textwrap.fill(line, letters) for line in title.splitlines()),
    )
    legend.get_title().set_multialignment("center")


def _joined(by_label: Mapping[str, Any]) -> dict[str, Any]:
    """The same with one label where `draw_curves` made several, of different numbers of runs."""
    counts: dict[str, list[tuple[int, int]]] = {}
    handles: dict[str, Any] = {}
    for label, handle in by_label.items():
        found = _RUNS.search(label)
        name = label[: found.start()] if found else label
        handles[name] = handle
        if found:
            counts.setdefault(name, []).append((int(found[1]), int(found[2] or 0)))
    return {name + _said_runs(counts.get(name, [])): handle for name, handle in handles.items()}


def _said_runs(counts: Sequence[tuple[int, int]]) -> str:
    """How many runs curves are of, and how many of these are unfinished, at least and at most; nothing for none."""
    if not counts:
        return ""
    ends = ((min(of_panels), max(of_panels)) for of_panels in zip(*counts, strict=True))
    runs, unfinished = (f"{low}" if low == high else f"{low} to {high}" for low, high in ends)
    return f" (n = {runs}{f', {unfinished} unfinished' * (unfinished != '0')})"


def _filled(label: str, letters: int) -> str:
    """Lines of a label; how many runs it is of stays in one of them."""
    return textwrap.fill(label.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), letters).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def legend_title(axes: Axes | Sequence[Axes], options: PictureOptions = DEFAULT) -> str | None:
    """What the curves and bands of `draw_curves` are, and keys in their labels; nothing if there is nothing to say."""
    panels = [axes] if isinstance(axes, Axes) else axes
    band = f"mean over n runs, {LEVEL_PERCENT} % bootstrap interval" * any(axis.collections for axis in panels)
    smooth = f"each point the mean of the latest {options.smooth} values; faint: not smoothed" * (options.smooth > 1)
    keys = ", ".join(f"{short}: {key}" for short, key in options.keys.items() if short != key)
    return "\n".join(filter(None, (band, smooth, keys))) or None


def write_figure(figure: Figure, out: Path) -> None:
    """Writes a picture; the ending decides the format.

    Raises:
        ConfigError: If it cannot be written, or is too small for what is in it.
    """
    check_ending(out, FORMATS)
    with writing(out) as path, rc_context(FILE_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
        try:
            figure.savefig(path, metadata=dict(FORMATS[out.suffix.lower()]))
        except UserWarning:
            width, height = figure.get_size_inches()
            raise ConfigError(
                f"{width:g},{height:g} inches have no room for what is to be drawn; ask for more"
            ) from None


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
