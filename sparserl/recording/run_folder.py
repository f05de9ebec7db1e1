"""A run is a folder: resolved config, versions, CSV logs, checkpoints, result, and `DONE` last.

CSV is the primary record; trackers are fed from it and never read back.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sparserl import __version__
from sparserl.errors import CheckpointError, ConfigError
from sparserl.json_text import json_text
from sparserl.recording import checkpoint

DISTRIBUTIONS = (
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "stable_baselines3",
    "numba",
    "scikit_learn",
    "wandb",
)
CHECKPOINTS_KEPT = 2
"""Newest full checkpoints of a run that stay."""
BEST, FINAL = "best", "final"
"""Beside them: the policy with the best evaluation, and that of the end of a finished run."""
WhichCheckpoint = Literal["best", "last"]
"""Of a run that is looked at."""
LENGTH = "total_steps"
"""Key of a config that may grow when its run is done."""
USUAL_CHECKPOINT: WhichCheckpoint = "last"
"""Unless it is said which: what Stable-Baselines3's `learn` ends with, and not chosen by what it is judged by."""
_MOST_DIGITS = 18
"""Of a step; what has more is not ours."""


class CsvLog:
    """An append-only CSV file with a fixed header; every row is on disk when `write` returns.

    Args:
        path: The file; a new one gets the header.
        columns: Its columns, of a new one: a file of before keeps its own. Keys of a row that are no column are an
            error, missing ones stay empty.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, list(columns)
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), self.columns)
        else:
            with path.open("w", newline="") as file:
                csv.writer(file).writerow(self.columns)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows."""
        text = io.StringIO()
        csv.DictWriter(text, self.columns).writerows(rows)
        with self.path.open("a", newline="") as file:
            file.write(text.getvalue())

    @property
    def size_bytes(self) -> int:
        """Present length of the file."""
        return self.path.stat().st_size

    def truncate(self, size_bytes: int) -> None:
        """Forgets rows written after the file had this length."""
        os.truncate(self.path, size_bytes)


class RunFolder:
    """Paths and one-time files of a run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.replay = path / "replay"
        self.snapshots = path / "topology"
        self.not_finite = path / "not_finite"

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config_yaml: str,
        command: str,
        threads: int,
        parts: Sequence[str] = ("checkpoints", "topology"),
        files: Mapping[Path, bytes] | None = None,
    ) -> RunFolder:
        """Makes the folder with `config.yaml`, `command.txt` and `versions.json`.

        Args:
            path: The folder.
            config_yaml: Resolved config.
            command: Command line that starts the run.
            threads: Recorded in `versions.json`.
            parts: Folders inside.
            files: Further files by their path in the folder.

        Raises:
            ConfigError: If something of this name exists, or the folder cannot be written.
        """
        folder = cls(path)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise ConfigError(f"{path} exists; choose another --run-dir, or continue it with --resume {path}") from None
        except OSError as error:
            raise ConfigError(f"cannot create {path}: {error.strerror}") from None
        try:
            for part in parts:
                (path / part).mkdir()
            for name, content in (files or {}).items():
                (path / name).parent.mkdir(exist_ok=True)
                (path / name).write_bytes(content)
            (path / "config.yaml").write_text(config_yaml)
            (path / "command.txt").write_text(command + "\n")
            (path / "versions.json").write_text(json_text(versions(threads), indent=2) + "\n")
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise ConfigError(f"cannot write into {path}: {error.strerror}") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run.

        Raises:
            ConfigError: If there is no such folder, or it is not a run.
        """
        if not path.is_dir():
            raise ConfigError(f"no run folder at {path}")
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
        return cls(path)

    def extend(self, config_yaml: str, command: str) -> None:
        """Makes a run go on beyond its end: until it has reached the new one it is not finished.

        Args:
            config_yaml: The config with the new length.
            command: Command line that extends it; a line of `command.txt`, below those of before.
        """
        (self.path / "DONE").unlink(missing_ok=True)  # first: whatever happens next, the run can be resumed
        (self.path / "result.json").unlink(missing_ok=True)
        if (self.checkpoints / FINAL).exists():
            checkpoint.remove(self.checkpoints / FINAL)
        write_atomically(self.path / "config.yaml", config_yaml)
        written = (self.path / "command.txt").read_text()
        write_atomically(self.path / "command.txt", f"{written}{command}\n")

    @property
    def is_done(self) -> bool:
        """Whether the run has ended."""
        return (self.path / "DONE").exists()

    def log(self, name: str, columns: Sequence[str]) -> CsvLog:
        """The CSV log `name`.csv."""
        return CsvLog(self.path / f"{name}.csv", columns)

    def finish(self, result: Mapping[str, Any], draw: Callable[[Path], object]) -> None:
        """Writes `result.json`, then `plot.png`, and `DONE` last: a run that has it is complete.

        Args:
            result: What `result.json` says.
            draw: Writes a picture to a path.
        """
        said = self.path / "result.json"
        write_atomically(said, json_text(result, indent=2) + "\n")
        checkpoint.flush(said)  # on disk before `DONE` says so
        unfinished = self.path / "plot.tmp.png"
        draw(unfinished)
        unfinished.replace(self.path / "plot.png")
        (self.path / "DONE").touch()


def step_name(step: int) -> str:
    """Name of a full checkpoint, snapshot or video at a step; sort by `step_in`, since steps from a billion on have
    longer names."""
    return f"step-{step:09d}"


def step_in(path: Path) -> int | None:
    """The step whose `step_name`, whatever the suffix, a path has; None if it has none."""
    digits = path.stem.removeprefix("step-")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS
    return int(digits) if is_number and path.stem == step_name(int(digits)) else None


def by_step(paths: Iterable[Path]) -> list[Path]:
    """The paths that have the name of a step, in the order of steps; others are left out."""
    steps = {path: step for path in paths if (step := step_in(path)) is not None}
    return sorted(steps, key=steps.__getitem__)


def full_checkpoints(folder: RunFolder) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return by_step(path for path in folder.checkpoints.glob("step-*") if path.suffix == "")


def last_checkpoint(folder: RunFolder) -> Path | None:
    """The final policy where there is one, otherwise the newest complete checkpoint; None if there is neither."""
    final, full = folder.checkpoints / FINAL, full_checkpoints(folder)
    return final if final.exists() else full[-1] if full else None


def remove_stale_checkpoints(folder: RunFolder) -> None:
    """Deletes all full checkpoints of a run but the newest `CHECKPOINTS_KEPT`."""
    for stale in full_checkpoints(folder)[:-CHECKPOINTS_KEPT]:
        checkpoint.remove(stale)


def check_is_of_run(state: Mapping[str, Any], identity: Any) -> None:
    """Raises CheckpointError if a checkpoint is of a run with another identity.

    How long the run is does not count: one that is extended goes on from checkpoints of before.
    """
    if _without_length(state.get("run")) != _without_length(identity):
        raise CheckpointError("the checkpoint belongs to another run: its config differs from config.yaml")


def _without_length(run: Any) -> Any:
    return {key: value for key, value in run.items() if key != LENGTH} if isinstance(run, Mapping) else run


def check_logs(folder: RunFolder, csv_bytes: Mapping[str, int]) -> None:
    """Raises CheckpointError if a log lacks rows that it had when the checkpoint was written.

    Before a recorder is made, because making one starts the logs that are not there.

    Args:
        folder: The run.
        csv_bytes: Name of each log -> its length at that time.
    """
    for name, size_bytes in csv_bytes.items():
        path = folder.path / f"{name}.csv"
        if not path.is_file() or path.stat().st_size < size_bytes:
            raise CheckpointError(f"{path} is shorter than when the checkpoint was written")


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one step, so that a reader or a crash never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def versions(threads: int) -> dict[str, Any]:
    """What a number depends on: Python, libraries, CPU, threads, commit (None where unknown)."""
    versions: dict[str, Any] = {"python": platform.python_version(), "sparserl": __version__}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {**versions, "platform": platform.platform(), "cpu": cpu_model(), "threads": threads, **_commit()}


def cpu_model() -> str:
    """Name of the CPU, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a package may lie in a checkout of something else
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):  # not a checkout, or no git
        return {"commit": None, "dirty": None}
