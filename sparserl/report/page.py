"""A report as one HTML file that needs nothing besides itself.

Decides what stands where; the template beside it decides markup and look. Refuses to compute numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import jinja2

from sparserl.plots.style import line_styles
from sparserl.report.charts import draw_chart, labels
from sparserl.report.document import Chart, Document, RunLine, Section
from sparserl.written_files import write_text

TEMPLATE = "page.html"


def write_page(document: Document, path: Path) -> None:
    """Writes a report as a page, in one step.

    Raises:
        ConfigError: If the file cannot be written.
    """
    page = _template().render(
        document=document,
        sections=_with_pictures(document.sections),
        blocks=_blocks,
        n_unfinished=sum(run.status == "unfinished" for run in document.runs),
        n_broken=sum(run.status == "broken" for run in document.runs),
        n_unknown=sum(not run.versions for run in document.runs),
        versions=_versions(document.runs),
    )
    write_text(path, page)


def _template() -> jinja2.Template:
    text = files("sparserl.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _with_pictures(sections: Sequence[Section]) -> list[tuple[Section, list[tuple[Chart, str]]]]:
    """Sections, each with its charts and their SVG; what has one label looks alike in all of them."""
    known = line_styles(label for section in sections for chart in section.charts for label in labels(chart))
    return [
        (
            section,
            [
                (chart, draw_chart(chart, known, f"{index}.{number}"))
                for number, chart in enumerate(section.charts)
                if labels(chart)  # not empty
            ],
        )
        for index, section in enumerate(sections)
    ]


def _blocks(rows: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Rows between the empty ones."""
    return [list(block) for filled, block in groupby(rows, bool) if filled]


def _versions(runs: Sequence[RunLine]) -> dict[str, list[tuple[str, int]]]:
    """Name -> its values, and of how many runs each is, the most frequent first."""
    known = [run.versions for run in runs if run.versions]
    names = dict.fromkeys(name for versions in known for name in versions)
    return {
        name: Counter("unknown" if (value := one.get(name)) is None else str(value) for one in known).most_common()
        for name in names
    }
