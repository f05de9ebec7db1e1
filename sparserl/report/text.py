"""A report in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable

from sparserl.report.document import Document, Table

LABEL_WIDTH = 40
"""Longer names of rows are broken; numbers never are."""


def print_document(document: Document) -> None:
    """Prints the tables and notes of a report, and which runs are not in it."""
    console = Console(markup=False, highlight=False)  # labels may hold brackets
    for section in document.sections:
        if not section.notes and not section.tables:  # charts alone
            continue
        console.print(section.title, style="bold", soft_wrap=True)
        for note in section.notes:
            console.print(note, soft_wrap=True)
        console.print()
        for table in section.tables:
            print_whole(console, _rich(table))
            for note in table.note.splitlines():
                console.print(note, soft_wrap=True)
            console.print()
    for line in document.runs:
        if line.status == "unfinished":
            console.print(
                f"not finished, in no number: {line.path} ({line.label}, seed {line.seed}, step {line.step:,})",
                soft_wrap=True,
            )
        elif line.status == "broken":
            console.print(f"cannot be read, in no number: {line.path}: {line.problem}", soft_wrap=True)


def _rich(table: Table) -> RichTable:
    drawn = RichTable(title=table.title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    name, *numbers = table.columns
    drawn.add_column(name, max_width=LABEL_WIDTH)
    for column in numbers:
        drawn.add_column(column, justify="right", no_wrap=True)
    for row in table.rows:
        if row:
            called, *cells = row
            indent = len(called) - len(called.lstrip())
            drawn.add_row(Padding(called.lstrip(), (0, 0, 0, indent)), *cells)
        else:
            drawn.add_section()
    return drawn


def print_whole(console: Console, table: RichTable) -> None:
    """Prints a table in full, even where that is wider than the terminal: half a number is none."""
    unlimited = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table)
