"""A document in a terminal: nothing is cut, nothing is taken for markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparserl.report.document import Document, RunLine, Section, Table
from sparserl.report.text import print_document


def run_line(name: str, status: str) -> RunLine:
    return RunLine(Path(name), "td3", 3, "done" if status == "done" else "unfinished", 1234, "", {})


def test_a_document_is_printed_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    rows = [["[bold]a[/bold]", *["1.00\n[0.50, 1.50]"] * 4], [], ["  indented", *["2.00"] * 4]]
    table = Table("a title [x]", ["group", "first\nhead", "two", "three", "four"], rows, note="one note\nanother [y]")
    long = "a note that is longer than the terminal is wide, but must not be broken"
    section = Section("section [z]", notes=[long], tables=[table])
    print_document(Document("", "", [section], [run_line("ended", "done"), run_line("begun", "unfinished")]))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["section [z]", long]
    assert lines[3] == "a title [x]"
    found = [line.split() for line in lines]
    assert ["[bold]a[/bold]", *["1.00"] * 4] in found
    assert ["[0.50,", "1.50]"] * 4 in found
    assert any(line.startswith("   indented") for line in lines)
    assert lines[-4:-2] == ["one note", "another [y]"]
    assert lines[-1] == "not finished, in no number: begun (td3, seed 3, step 1,234)"
    assert not any("ended" in line for line in lines)
