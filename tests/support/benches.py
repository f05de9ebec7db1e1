"""What tests of benchmarks have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparserl.cli import main


def bench(kind: str, options: str, folder: Path) -> dict[str, Any]:
    """The record of a miniature run, after a look at what every record has."""
    record, picture = folder / "found.json", folder / "found.png"
    words = ["bench", kind, *options.split(), "--json", str(record), "--plot", str(picture), "--no-progress"]
    assert main(words) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads(record.read_text())
    assert found["benchmark"] == kind
    assert found["command"].startswith(f"sparserl bench {kind} --")
    assert found["versions"]["torch"]
    assert {"cpu", "commit", "threads"} <= set(found["versions"])
    assert {"options", "notes", "cpus_available", "load_average_before"} <= set(found)
    return found
