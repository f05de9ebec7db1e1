"""Which run folders a report is of, and what their files say whatever ran."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sparserl.config import load_yaml
from sparserl.errors import ConfigError, SparserlError, clipped, one_line, shown, unknown_name
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_logs import read_columns
from sparserl.recording.settings import dotted
from sparserl.report.document import RunLine

T = TypeVar("T")


def find_runs(paths: Iterable[Path]) -> list[RunFolder]:
    """Run folders: those named, and those inside a folder that holds runs, by name.

    Raises:
        ConfigError: If a folder is not there, or neither a run nor holds one.
    """
    return [folder for path in paths for folder in _runs_at(path)]


def runs_where(folders: Sequence[RunFolder], wanted: Sequence[str]) -> list[RunFolder]:
    """The runs of which something is so.

    Args:
        folders: The runs.
        wanted: `key=value`, of a dotted key of the config or of a package in `versions.json`; all must be so.

    Raises:
        ConfigError: If one is not written like that, no run has the key, or none is left.
    """
    left = [(folder, _said_by(folder)) for folder in folders] if wanted else []
    for one in wanted:
        key, is_said, value = one.partition("=")
        if not is_said:
            raise ConfigError(f"--where takes key=value, as in total_steps=100000, got {shown(one)}")
        keys = {name for _, said in left for name in said}
        if key not in keys:
            raise ConfigError(unknown_name("key for --where", key, keys))
        found = [(folder, said) for folder, said in left if key in said and _is_same(said[key], value)]
        if not found:
            values = dict.fromkeys(said[key] for _, said in left if key in said)
            raise ConfigError(f"no run has {key} {shown(value)}; there are {clipped(', '.join(values))}")
        left = found
    return [folder for folder, _ in left] if wanted else list(folders)


def _said_by(folder: RunFolder) -> dict[str, str]:
    """What config and versions of a run say, by dotted key; nothing where they cannot be read."""
    try:
        return dotted({**read_versions(folder.path), **load_yaml(folder.path / "config.yaml")})
    except SparserlError:
        return {}


def _is_same(value: str, wish: str) -> bool:
    """Whether they are the same, also as numbers."""
    try:
        return value == wish or float(value) == float(wish)
    except ValueError:
        return False


def _runs_at(path: Path) -> list[RunFolder]:
    if not path.is_dir() or (path / "config.yaml").is_file():
        return [RunFolder.open(path)]
    runs, seen = [], set()
    for folder, inside, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # links may lead in a circle, or twice to a run
            inside.clear()
            continue
        seen.add(real)
        inside.sort()
        if "config.yaml" in files:
            runs.append(RunFolder(Path(folder)))
            inside.clear()  # what a tracker keeps inside a run may look like one
    if not runs:
        raise ConfigError(f"{path} is not a run folder, and holds none: there is no config.yaml")
    return runs


def each_readable(
    folders: Iterable[RunFolder], read: Callable[[RunFolder], T], broken: dict[Path, str]
) -> list[tuple[RunFolder, T]]:
    """What can be read of some runs: one that is damaged keeps no other from a report.

    Args:
        folders: The runs.
        read: Reads one.
        broken: Gets the folder of each run that `read` fails on, and why.
    """
    readable = []
    for folder in folders:
        try:
            readable.append((folder, read(folder)))
        except Exception as error:  # files may have been edited by hand
            broken[folder.path] = reason(error).removeprefix(f"{folder.path}: ")
    return readable


def reason(error: Exception) -> str:
    """Why a run cannot be read, in one line."""
    return str(error) if isinstance(error, SparserlError) else one_line(f"{type(error).__name__}: {error}")


def refuse_if_all_broken(folders: Sequence[RunFolder], broken: Mapping[Path, str]) -> None:
    """Raises ConfigError, with the first reason, if no run can be read."""
    if not folders or len(broken) < len({folder.path for folder in folders}):
        return
    path, why = next(iter(broken.items()))
    first = why if str(path) in why else f"{path}: {why}"
    raise ConfigError(first if len(broken) == 1 else f"none of {len(broken)} runs can be read; the first: {first}")


def is_finished(folder: RunFolder) -> bool:
    """Whether a run has its result; one that was kept as a record may have lost the empty `DONE`."""
    return folder.is_done or (folder.path / "result.json").is_file()


def run_line(folder: RunFolder, label: str, seed: int, problem: str = "") -> RunLine:
    """What a report says of a run in its list of runs.

    Args:
        folder: Its folder.
        label: Of its group; its name if it is in none.
        seed: Of the run.
        problem: Why it cannot be read; empty if it can.
    """
    command = folder.path / "command.txt"
    versions = read_versions if not problem else _versions_if_readable
    return RunLine(
        folder.path,
        label,
        seed,
        "broken" if problem else "done" if is_finished(folder) else "unfinished",
        _last_step(folder.path),
        command.read_text(errors="replace").strip() if command.is_file() else "",
        versions(folder.path),
        problem,
    )


def _versions_if_readable(path: Path) -> dict[str, Any]:
    try:
        return read_versions(path)
    except ConfigError:
        return {}


def _last_step(path: Path) -> int:
    """The last env or gradient step that the logs know of; 0 before there is one."""
    steps = [0.0]
    for name in ("progress.csv", "eval.csv"):
        try:
            steps.append(float(read_columns(path / name)["global_step"][-1]))
        except (ConfigError, KeyError, ValueError, OSError):  # not written yet, or damaged
            continue
    return int(max(step for step in steps if math.isfinite(step)))


def read_result(path: Path) -> dict[str, Any]:
    """What the `result.json` of a run says.

    Raises:
        ConfigError: If it cannot be read.
    """
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value  # as older runs wrote NaN
        for key, value in _read_json(path / "result.json").items()
    }


def check_numbers(result: Mapping[str, Any], keys: Iterable[str], path: Path) -> None:
    """Raises ConfigError if what a result says under some keys is neither a number nor unknown."""
    for key in keys:
        value = result.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"{path / 'result.json'}: {key} must be a number, got {shown(value)}")


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
