"""A report as content: tables of text, charts of numbers, and the runs behind them.

Decides what a report may hold. Independent of how it is shown: `text` and `page` render it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# --- charts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: Its name in the legend.
        x: Increasing.
        y: One for each x; finite.
        low: Lower end of the interval at each x; None if there is no interval.
        high: Upper end, likewise.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Interval:
    """A value and its interval, None if there is none."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """A point and the interval of its y, None if there is none."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LineChart:
    """Curves over a common x; `x` and `y` name the axes, here and below."""

    lines: Sequence[Line]
    x: str
    y: str


@dataclass(frozen=True)
class IntervalChart:
    """Values with their intervals beneath each other, and a dotted line at a value that means something."""

    rows: Sequence[Interval]
    x: str
    mark: float | None = None


@dataclass(frozen=True)
class ScatterChart:
    """Points in the plane."""

    points: Sequence[Point]
    x: str
    y: str
    log_x: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with what is said above and beneath it."""

    title: str
    drawing: LineChart | IntervalChart | ScatterChart
    caption: str = ""


# --- text -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Above it; empty if it needs none.
        columns: Heads; the first column names the rows, the others hold numbers. A head may have two lines.
        rows: Cells, as many as there are columns; a cell may have several lines. An empty row parts two blocks, and a
            name that begins with blanks belongs to the one above that does not.
        note: Lines beneath it; empty if there are none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a report: title, tables, notes of one line each, charts."""

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class RunLine:
    """A run that the report knows of.

    Attributes:
        path: Its folder.
        label: Of its group; name of the run if it is in none.
        seed: Of the run.
        status: Whether it is finished, or cannot be read; only a finished run enters a number.
        step: The last one that its logs know of.
        command: Command line that started it; empty if unknown.
        versions: What `versions.json` says; empty if unknown.
        problem: Why it cannot be read; empty if it can.
    """

    path: Path
    label: str
    seed: int
    status: Literal["done", "unfinished", "broken"]
    step: int
    command: str
    versions: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Document:
    """A whole report; `command` is the command line that made it."""

    title: str
    command: str
    sections: Sequence[Section]
    runs: Sequence[RunLine]
