"""Charts as SVG: what is drawn is what the numbers say, in the ink of the page."""

from __future__ import annotations

import re
from typing import IO
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparserl.plots.style import COLOURS, MARKERS, legend_letters, line_styles
from sparserl.report import charts
from sparserl.report.charts import draw_chart, labels
from sparserl.report.document import Chart, Interval, IntervalChart, Line, LineChart, Point, ScatterChart

LINES = Chart(
    "curves",
    LineChart([Line("a", [0, 50_000], [1, 3], [0, 2], [2, 4]), Line("b", [0, 50_000], [2, 2])], "env steps", "return"),
)
INTERVALS = Chart("intervals", IntervalChart([Interval("a", 2.0, 1.0, 4.0), Interval("b", 3.0)], "return", mark=0.5))
POINTS = Chart(
    "points",
    ScatterChart([Point("a", 100, 5, 4, 6), Point("b", 300_000, 7)], "parameters", "return", log_x=True),
)
KINDS = pytest.mark.parametrize("chart", [LINES, INTERVALS, POINTS], ids=lambda chart: chart.title)


def drawn(chart: Chart, name: str = "one") -> ElementTree.Element:
    return ElementTree.fromstring(draw_chart(chart, line_styles(labels(chart)), name))


def texts(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter("text")]


@KINDS
def test_names_of_lines_axes_and_chart_are_text(chart: Chart) -> None:
    svg = drawn(chart)
    assert {"a", "b", chart.drawing.x} <= set(texts(svg))
    assert (svg.get("role"), svg.get("aria-label")) == ("img", chart.title)
    first = svg[0]
    assert (first.tag, first.text) == ("title", chart.title)


@KINDS
def test_ink_and_font_are_those_of_the_page(chart: Chart) -> None:
    svg = draw_chart(chart, line_styles(labels(chart)), "one")
    assert "#000000" not in svg
    assert "currentColor" in svg
    assert svg.startswith('<svg viewBox="')
    for foreign in ("font-family", "http", "<image", "<metadata", "#ffffff"):
        assert foreign not in svg, foreign


@KINDS
def test_ids_are_of_one_chart_alone(chart: Chart) -> None:
    def ids(name: str) -> set[str]:
        svg = draw_chart(chart, line_styles(labels(chart)), name)
        found = re.findall(r' id="([^"]*)"', svg)
        assert len(found) == len(set(found))
        assert set(re.findall(r'(?:href="|url\()#(\w+)', svg)) <= set(found)
        return set(found)

    one = ids("one")
    assert one == ids("one")  # no chance
    assert one
    assert not one & ids("two")


def test_each_group_has_its_colour_and_a_band_if_it_has_an_interval() -> None:
    svg = draw_chart(LINES, line_styles("ab"), "one")
    assert all(colour.lower() in svg for colour in COLOURS[:2])
    assert COLOURS[2].lower() not in svg
    assert svg.count("fill-opacity: 0.2") == 1  # that of a; b has none
    assert "shaded: interval" in texts(drawn(LINES))


def test_without_intervals_nothing_is_said_of_them() -> None:
    chart = Chart("c", LineChart([Line("a", [0, 1], [1, 2])], "tasks learned", "accuracy"))
    assert "shaded: interval" not in texts(drawn(chart))


def test_whole_numbers_at_the_axis_stay_whole_and_large_ones_short() -> None:
    few = Chart("c", LineChart([Line("a", [1, 2, 3], [1, 2, 3])], "tasks learned", "y"))
    at_x = [text for text in texts(drawn(few)) if re.fullmatch(r"[\d.]+", text)][:3]
    assert at_x == ["1", "2", "3"]
    assert {"0", "50k"} <= set(texts(drawn(LINES)))
    assert {"100", "100k"} <= set(texts(drawn(POINTS)))


@pytest.mark.parametrize(
    ("sizes", "at_x"),
    [
        ((800, 5130), ["1,000", "2,000", "5,000"]),
        ((2051, 3811), ["2,000", "3,000", "4,000"]),
        ((5130, 5130), ["1,000", "2,000", "5,000", "10,000"]),
        ((950, 10_000), ["1k", "2k", "5k", "10k"]),
        ((2e5, 3e12), ["100k", "1M", "10M", "100M", "1G", "10G", "100G", "1T", "10T"]),
    ],
)
def test_numbers_at_a_logarithmic_axis_are_numbers(sizes: tuple[float, float], at_x: list[str]) -> None:
    points = [Point("a", sizes[0], 5), Point("b", sizes[1], 7)]
    svg = drawn(Chart("c", ScatterChart(points, "parameters", "y", log_x=True)))
    assert texts(svg)[: texts(svg).index("parameters")] == at_x


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Those of the charts that are drawn."""
    found: list[Axes] = []

    def keep(figure: Figure, file: IO[str], **_: object) -> None:
        found.extend(figure.axes)
        file.write('<svg viewBox=""></svg>')

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def points(axis: Axes) -> list[list[float]]:
    return [line.get_xydata().tolist()[0] for line in axis.get_lines() if line.get_marker() in MARKERS]  # type: ignore[union-attr]


def bars(axis: Axes) -> list[list[list[float]]]:
    return [segment.tolist() for bar in axis.collections for segment in bar.get_segments()]  # type: ignore[attr-defined]


def test_intervals_are_where_their_numbers_are(axes: list[Axes]) -> None:
    drawn(INTERVALS)
    (axis,) = axes
    (first, row), (second, next_row) = points(axis)
    assert (first, second) == (2.0, 3.0)
    bottom, top = axis.get_ylim()
    assert top < row < next_row < bottom  # the first one above
    assert bars(axis) == [[[1.0, row], [4.0, row]]]  # that of a; b has none
    assert [line.get_xdata() for line in axis.get_lines() if line.get_linestyle() == ":"] == [[0.5, 0.5]]


def test_points_are_where_their_numbers_are(axes: list[Axes]) -> None:
    drawn(POINTS)
    (axis,) = axes
    assert points(axis) == [[100, 5], [300_000, 7]]
    assert bars(axis) == [[[100, 4], [100, 6]]]
    assert axis.get_xscale() == "log"


def test_a_value_beside_its_interval_does_not_move_it(axes: list[Axes]) -> None:
    drawn(Chart("c", IntervalChart([Interval("a", 0.0, 1.0, 2.0)], "x")))
    drawn(Chart("c", ScatterChart([Point("a", 5.0, 0.0, 1.0, 2.0)], "x", "y")))
    of_rows, of_points = axes
    assert [x for x, _ in bars(of_rows)[0]] == [1.0, 2.0]
    assert [y for _, y in bars(of_points)[0]] == [1.0, 2.0]


def test_long_names_are_broken() -> None:
    name = " ".join(["long_label"] * 12)
    for chart in (
        Chart("c", IntervalChart([Interval(name, 1.0)], "x")),
        Chart("c", LineChart([Line(name, [0, 1], [0, 1])], "x", "y")),
    ):
        svg = drawn(chart)
        longest = max(map(len, texts(svg)))
        assert longest <= legend_letters(charts.WIDTH)
        assert float(svg.get("viewBox", "").split()[2]) == 72 * charts.WIDTH


def test_markup_in_a_label_is_text() -> None:
    name = "<script>alert(1)</script> & $x$ #000000"
    svg = drawn(Chart(name, LineChart([Line(name, [0, 1], [0, 1])], name, name)))
    assert texts(svg).count(name) == 3
    assert not list(svg.iter("script"))


def test_an_empty_chart_has_no_labels() -> None:
    assert labels(Chart("c", LineChart([], "x", "y"))) == []
