"""The page of a report, as its text and in a browser that is offline."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.train_runs import write_train_run

from sparserl.cli import report
from sparserl.errors import ConfigError
from sparserl.report.document import (
    Chart,
    Document,
    Interval,
    IntervalChart,
    Line,
    LineChart,
    Point,
    RunLine,
    ScatterChart,
    Section,
    Table,
)
from sparserl.report.page import write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCRIPT = "<script>document.title = 'taken'</script>"
CURVES = LineChart(
    [Line(SCRIPT, [0, 50_000], [1, 3], [0, 2], [2, 4]), Line("b", [0, 50_000], [2, 2])], "env steps", "return"
)
DOCUMENT = Document(
    "4 runs",
    f"sparserl report runs --baseline {SCRIPT}",
    [
        Section(
            f"Hopper-v5 {SCRIPT}",
            ["a note", "another " + "longword" * 40],
            [
                Table(
                    "",
                    ["group", *["non-zero\nparameters"] * 12],
                    [
                        ["a (2 seeds)", *[""] * 12],
                        ["  final return", *["1,234,567\n[1,234,000, 1,235,000]"] * 12],
                        [],
                        [SCRIPT, *["actor 0.25\ncritic 0.50"] * 12],
                    ],
                    note="beneath it",
                ),
                Table("costs", ["group", "seconds"], [["a", "3"], ["b", "4"]]),
            ],
            [
                Chart("curves", CURVES, "what they are"),
                Chart("intervals", IntervalChart([Interval("a", 2.0, 1.0, 4.0), Interval("b", 3.0)], "return", 0.5)),
                Chart("points", ScatterChart([Point("a", 100, 5, 4, 6), Point("b", 300, 7)], "x", "y", log_x=True)),
                Chart("nothing", LineChart([], "x", "y")),
            ],
        ),
        Section("with charts alone", charts=[Chart("curves again", CURVES)]),
    ],
    [
        RunLine(
            Path("runs/" + "long/" * 30 + "a0"),
            SCRIPT,
            0,
            "done",
            50_000,
            f"sparserl train --run-dir {'long_' * 40}",
            {"numpy": "2.4"},
        ),
        RunLine(Path("runs/a1"), "a", 1, "done", 50_000, "", {"numpy": "2.4", "sparserl": None}),
        RunLine(Path("runs/a2"), "a", 2, "unfinished", 12_345, f"sparserl train {SCRIPT}", {"numpy": "2.5"}),
        RunLine(Path("runs/a3"), "a", 3, "done", 50_000, "sparserl train --seed 3", {}),
    ],
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(DOCUMENT, path)
    return path


# --- as text ----------------------------------------------------------------------------------------


def test_the_same_document_is_the_same_file(path: Path, tmp_path: Path) -> None:
    write_page(DOCUMENT, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]  # nothing half written


def test_nothing_is_fetched_and_nothing_runs(path: Path) -> None:
    html = path.read_text()
    assert "<script" not in html
    assert "http" not in html
    assert set(re.findall(r'(?:href|src)="([^"#]*)', html)) <= {"data:,", ""}


def test_no_number_is_a_formula(path: Path) -> None:
    text = path.read_text()
    assert "mathdefault" not in text
    assert "$" not in text


def test_ids_are_unique_and_links_lead_somewhere(path: Path) -> None:
    html = path.read_text()
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(ids)


def test_curves_come_before_tables(path: Path) -> None:
    section, rest = path.read_text().split('id="section-1"')[1].split("</section>", 1)
    assert 0 < section.index("<svg") < section.rindex("</svg>") < section.index("<table")
    assert "<svg" in rest.split('id="runs"')[0]


def test_what_has_one_label_looks_alike_in_all_charts(path: Path) -> None:
    """b is the second label of the document, and the first of a chart in which it stands alone."""
    alone = Chart("alone", LineChart([Line("b", [0, 1], [0, 1])], "x", "y"))
    both = Chart("both", LineChart([Line("a", [0, 1], [1, 0]), Line("b", [0, 1], [0, 1])], "x", "y"))
    other = path.with_name("alike.html")
    write_page(Document("", "", [Section("s", charts=[both]), Section("t", charts=[alone])], []), other)
    *_, of_alone = re.findall("<svg.*?</svg>", other.read_text(), flags=re.DOTALL)
    other.unlink()
    assert "#d55e00" in of_alone
    assert "#0072b2" not in of_alone


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*page\.html: No such file or directory$"):
        write_page(Document("", "", [], []), tmp_path / "nowhere" / "page.html")


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        run = write_train_run(tmp_path / "runs" / f"a{seed}", [0, 400], seed=seed, versions={"numpy": "2.4"})
        (run / "progress.csv").write_text(
            "global_step,topology/density,topology/explored_fraction\n10,0.5,0.5\n20,0.5,0.6\n"
        )
    out = tmp_path / "page.html"
    assert report.run([str(tmp_path / "runs"), "--html", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    assert "topology" not in printed  # charts alone
    html = out.read_text()
    for words in ("Hopper-v5: return", "Sample efficiency", "Hopper-v5: topology", "Explored fraction", "--seed 1"):
        assert words in html, words


# --- in a browser -----------------------------------------------------------------------------------

Theme = Literal["light", "dark"]
THEMES = pytest.mark.parametrize("theme", get_args(Theme))

CONTRASTS = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = ([r, g, b]) => [r, g, b]
        .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
            if (colour[3] !== 0) throw new Error("a background that shines through");
        }
        throw new Error("no background");
    };
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join("").trim();
        if (!own || element.tagName === "title") continue;
        const style = getComputedStyle(element);
        const colour = rgba(element.tagName === "text" ? style.fill : style.color);
        const [one, other] = [luminance(colour), luminance(behind(element))].sort((a, b) => b - a);
        found.push([(one + 0.05) / (other + 0.05) * (colour[3] === 255) * style.opacity, element.tagName, own]);
    }
    return found;
}"""

SIZES = """name => [...document.querySelectorAll(name)].map(e => {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    return style.visibility === "visible" && style.display !== "none" ? [box.width, box.height] : [0, 0];
})"""


@dataclass(frozen=True)
class Opened:
    """The page, what it asked for, and what went wrong."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if executable is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def themes(browser: Browser, path: Path) -> dict[str, Opened]:
    found = {}
    for theme in get_args(Theme):
        opened = found[theme] = Opened(browser.new_page(offline=True, color_scheme=theme))
        opened.page.on("request", lambda request, to=opened: to.requests.append(request.url))
        opened.page.on("console", lambda message, to=opened: to.errors.append(message.text))
        opened.page.on("pageerror", lambda error, to=opened: to.errors.append(str(error)))
        opened.page.goto(path.as_uri())
    return found


@THEMES
def test_it_opens_offline_and_shows_everything(theme: Theme, themes: dict[str, Opened], path: Path) -> None:
    opened = themes[theme]
    assert [request for request in opened.requests if not request.startswith("data:")] == [path.as_uri()]
    assert opened.errors == []
    assert opened.page.title() == "sparserl report: 4 runs"  # nobody ran a script
    for name, number, width, height in (("table", 4, 80, 40), ("figure", 4, 300, 100), ("svg", 4, 300, 80)):
        sizes = opened.page.evaluate(SIZES, name)
        assert len(sizes) == number, name
        assert all(box[0] >= width and box[1] >= height for box in sizes), (name, sizes)


@THEMES
def test_text_stands_out(theme: Theme, themes: dict[str, Opened]) -> None:
    found = themes[theme].page.evaluate(CONTRASTS)
    assert {"P", "TD", "TH", "CODE", "A", "FIGCAPTION", "SPAN", "LI", "text"} <= {tag for _, tag, _ in found}
    assert min(found)[0] >= 4.5, min(found)


def test_the_themes_differ(themes: dict[str, Opened]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    found = {theme: opened.page.evaluate(paper) for theme, opened in themes.items()}
    assert found == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(width: int, themes: dict[str, Opened]) -> None:
    page = themes["light"].page
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide, narrow, runs, _ = page.evaluate(
        "[...document.querySelectorAll('.box')].map(e => e.scrollWidth - e.clientWidth)"
    )
    assert wide > 100  # it scrolls inside its box
    assert runs > 100
    assert narrow == 0


def test_what_is_said(themes: dict[str, Opened]) -> None:
    page = themes["light"].page
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(t => [...t.tBodies].map(b => [...b.rows].map(r => "
        "[...r.cells].map(c => c.innerText))))"
    )
    ((whole, part), (last,)), _, (runs,), (versions,) = tables
    assert whole == ["a (2 seeds)"]
    assert part[:2] == ["final return", "1,234,567\n[1,234,000, 1,235,000]"]
    assert last[:2] == [SCRIPT, "actor 0.25\ncritic 0.50"]
    assert [(run[1], run[3], run[4]) for run in runs] == [
        ("done", "0", "50,000"),
        ("done", "1", "50,000"),
        ("unfinished", "2", "12,345"),
        ("done", "3", "50,000"),
    ]
    assert versions == [["numpy", "2.4 (2 runs), 2.5 (1 run)"], ["sparserl", "unknown"]]
    text = page.locator("body").inner_text()
    assert DOCUMENT.command in text
    for said in ("1 of 4 not finished and in no number", "1 of 4 runs recorded no versions", "not recorded"):
        assert said in text, said
    headings = page.locator("h2").all_inner_texts()
    assert headings == [f"Hopper-v5 {SCRIPT}", "with charts alone", "Runs", "Commands", "Versions"]
    assert page.locator("figcaption").all_inner_texts() == ["curves", "intervals", "points", "curves again"]
    assert SCRIPT in page.locator("svg text").all_text_contents()
