"""Which run folders a report is of, and what their files say whatever ran."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparserl.errors import ConfigError
from sparserl.plots import read_columns
from sparserl.records import RunFolder
from sparserl.report.document import RunLine


def find_runs(paths: Iterable[Path]) -> list[RunFolder]:
    """Run folders: those named, and those inside a folder that holds runs, by name.

    Raises:
        ConfigError: If a folder is not there, or neither a run nor holds one.
    """
    return [folder for path in paths for folder in _runs_at(path)]


def _runs_at(path: Path) -> list[RunFolder]:
    if not path.is_dir() or (path / "config.yaml").is_file():
        return [RunFolder.open(path)]
    found = []
    for place, inside, files in os.walk(path):
        inside.sort()
        if "config.yaml" in files:
            found.append(RunFolder(Path(place)))
            inside.clear()  # what a tracker keeps inside a run may look like one
    if not found:
        raise ConfigError(f"{path} is not a run folder, and holds none: there is no config.yaml")
    return found


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has its result; one that was kept as a record may have lost the empty `DONE`."""
    return folder.is_done or (folder.path / "result.json").is_file()


def run_line(folder: RunFolder, label: str, seed: int) -> RunLine:
    """What a report says of a run in its list of runs."""
    command = folder.path / "command.txt"
    return RunLine(
        folder.path,
        label,
        seed,
        "done" if is_finished(folder) else "unfinished",
        _last_step(folder.path),
        command.read_text().strip() if command.is_file() else "",
        read_versions(folder.path),
    )


def _last_step(path: Path) -> int:
    """The last env or gradient step that the logs know of; 0 before there is one."""
    steps = [0.0]
    for name in ("progress.csv", "eval.csv"):
        try:
            steps.append(float(read_columns(path / name)["global_step"][-1]))
        except (ConfigError, KeyError):  # not written yet
            continue
    return int(max(steps))


def read_result(path: Path) -> dict[str, Any]:
    """What the `result.json` of a run says.

    Raises:
        ConfigError: If it cannot be read.
    """
    return _read_json(path / "result.json")


def read_versions(path: Path) -> dict[str, Any]:
    """What the `versions.json` of a run says; nothing if there is none."""
    return _read_json(path / "versions.json") if (path / "versions.json").is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(data).__name__}")
    return data
