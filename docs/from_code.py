"""Parts of pages that are made from the code at build time, so that no table stands twice.

`write(folder)` makes one Markdown file for each entry of `PARTS`; pages include them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparserl.recording.metrics_table import glossary

PARTS: dict[str, Callable[[], str]] = {"metrics": glossary}
"""Name of the file, without its ending -> its text."""


def write(folder: Path) -> None:
    """Writes all parts into a folder; a file that says the same already is left alone."""
    folder.mkdir(exist_ok=True)
    for name, made in PARTS.items():
        path, text = folder / f"{name}.md", f"{made()}\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
