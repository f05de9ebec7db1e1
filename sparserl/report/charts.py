"""Charts of a report as SVG that stands inside a page and takes its ink from there.

Decides how a chart is drawn. Independent of what is charted.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sparserl.plots.style import STYLE, LineStyle, add_legend, legend_letters
from sparserl.report.document import Chart, IntervalChart, LineChart, ScatterChart

WIDTH, HEIGHT = 5.0, 2.9
"""Inches of a chart without its legend."""
NAME_LETTERS = 30
"""That fit beside a row."""
ROW = 0.24
"""Inches of a line of text."""
STEPS = (1, 2, 5, 10)
"""Between numbers at an axis, times a power of ten."""
PART_OF_DECADE = 0.6
"""Of a logarithmic axis: below this the steps between numbers are equal."""
FEW_DECADES = 2.5
"""Of a logarithmic axis: up to here every one of `STEPS` has a number."""
LARGE = 10_000
"""From here on numbers at an axis have a unit prefix."""
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
INK = "#000000"
"""Of text, axes and one colour of the palette: what follows the theme of the page."""


def labels(chart: Chart) -> list[str]:
    """What a chart shows, in order; nothing if it is empty."""
    match chart.drawing:
        case LineChart(lines=parts) | IntervalChart(rows=parts) | ScatterChart(points=parts):
            return [part.label for part in parts]


def draw_chart(chart: Chart, styles: Mapping[str, LineStyle], name: str) -> str:
    """An `<svg>` element.

    Args:
        chart: What to draw; not empty.
        styles: Of each of its labels.
        name: Of this chart alone, among those of a page.
    """
    style = STYLE | {"svg.hashsalt": name, "grid.color": INK, "grid.alpha": 0.15}  # ids are unique in the page
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        _DRAW[type(chart.drawing)](figure, chart.drawing, styles)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    return _for_a_page(file.getvalue(), chart.title)


# --- kinds of charts --------------------------------------------------------------------------------


def _draw_lines(figure: Figure, chart: LineChart, styles: Mapping[str, LineStyle]) -> None:
    axis = figure.subplots()
    for line in chart.lines:
        style = styles[line.label]
        axis.plot(line.x, line.y, label=line.label, **style.of_line(len(line.x)))
        if line.low is not None and line.high is not None:
            axis.fill_between(line.x, line.low, line.high, color=style.colour, alpha=0.2, linewidth=0)
    every_x = [x for line in chart.lines for x in line.x]
    axis.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS, integer=all(float(x).is_integer() for x in every_x)))
    _name_axes(axis, chart.x, chart.y, every_x)
    _add_legend(figure, axis, "shaded: interval" if axis.collections else None)


def _draw_intervals(figure: Figure, chart: IntervalChart, styles: Mapping[str, LineStyle]) -> None:
    axis = figure.subplots()
    names = [textwrap.fill(row.label, NAME_LETTERS) for row in chart.rows]
    heights = []
    height = 0.0  # of the rows above, in lines of text
    for row, name in zip(chart.rows, names, strict=True):
        of_row = 1.4 + name.count("\n")
        heights.append(height + of_row / 2)
        height += of_row
        style = styles[row.label]
        axis.plot(row.value, heights[-1], **_of_point(style))
        if row.low is not None and row.high is not None:
            middle, reach = (row.low + row.high) / 2, (row.high - row.low) / 2
            axis.errorbar(middle, heights[-1], xerr=reach, **_of_interval(style))
    if chart.mark is not None:
        axis.axvline(chart.mark, color=INK, linestyle=":", linewidth=1)
    axis.set_yticks(heights, names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(height, 0)
    axis.margins(x=0.08)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    figure.set_figheight(0.8 + ROW * height)
    _name_axes(axis, chart.x, "", [row.value for row in chart.rows])


def _draw_points(figure: Figure, chart: ScatterChart, styles: Mapping[str, LineStyle]) -> None:
    axis = figure.subplots()
    for point in chart.points:
        style = styles[point.label]
        axis.plot(point.x, point.y, label=point.label, **_of_point(style))
        if point.low is not None and point.high is not None:
            middle, reach = (point.low + point.high) / 2, (point.high - point.low) / 2
            axis.errorbar(point.x, middle, yerr=reach, **_of_interval(style))
    if chart.log_x:
        axis.set_xscale("log")
        decades = np.ptp(np.log10([point.x for point in chart.points]))
        of_powers = LogLocator(subs=STEPS[:-1] if decades <= FEW_DECADES else (1,))
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS) if 0 < decades < PART_OF_DECADE else of_powers)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))  # its own writes formulas
        axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(x=0.1)
    _name_axes(axis, chart.x, chart.y, [point.x for point in chart.points])
    _add_legend(figure, axis, None)


_DRAW: Mapping[type, Callable[[Figure, Any, Mapping[str, LineStyle]], None]] = {
    LineChart: _draw_lines,
    IntervalChart: _draw_intervals,
    ScatterChart: _draw_points,
}


def _of_point(style: LineStyle) -> dict[str, Any]:
    return {"color": style.colour, "marker": style.marker, "linestyle": "", "markersize": 6}


def _of_interval(style: LineStyle) -> dict[str, Any]:
    """Of a bar that is drawn by itself: its value may lie outside of it."""
    return {"color": style.colour, "fmt": "none", "capsize": 3}


def _name_axes(axis: Axes, x: str, y: str, values: Iterable[float]) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if max(map(abs, values)) >= LARGE:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _add_legend(figure: Figure, axis: Axes, title: str | None) -> None:
    """Beneath the axes, which stay as high as they are."""
    lines = sum(len(textwrap.wrap(label, legend_letters(WIDTH))) for label in axis.get_legend_handles_labels()[1])
    figure.set_figheight(HEIGHT + ROW * (lines + (title is not None)))
    add_legend(figure, axis, title)


# --- SVG inside HTML --------------------------------------------------------------------------------


def _for_a_page(svg: str, title: str) -> str:
    """The element of a file of matplotlib, with a title, in ink and font of the page. Its parts have no names, which
    would be those of parts of other charts."""
    head = f'role="img" aria-label="{escape(title)}" fill="currentColor"><title>{escape(title)}</title>'
    svg = re.sub(
        r'^.*?<svg [^>]*(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {found[1]} {head}", svg, flags=re.DOTALL
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace(" xlink:href=", " href=")
    return re.sub(rf'(?<=: ){INK}(?=[;"])', "currentColor", re.sub(r"font-family: [^;\"]+(; )?", "", svg))
