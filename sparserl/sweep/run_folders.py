"""Where the runs of a sweep lie: in folders named after their ids, or in those of another version of sparserl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparserl import config as yaml_config
from sparserl.errors import ConfigError
from sparserl.experiment.run_config import build_config
from sparserl.sweep.file import Job


def run_folders(jobs: Sequence[Job], out: Path) -> list[Path]:
    """The folder of each run, whether it is there or not.

    The id of a run is a hash of all its options, so a version with one option more gives it another; and versions may
    name runs otherwise. Where there is no folder of the present name, one is taken whose config means the same today.

    Args:
        jobs: The runs.
        out: Folder of the run folders.
    """
    folders = [out / job.folder for job in jobs]
    others = set(out.glob("*/config.yaml")) - {folder / "config.yaml" for folder in folders}
    if not others:
        return folders
    meanings = _meanings(others, jobs)

    def found(job: Job, folder: Path) -> Path:
        if folder.exists() or not meanings:
            return folder
        wanted = _meaning(job.config)
        return next((other for other, meaning in meanings.items() if meaning == wanted), folder)

    return [found(job, folder) for job, folder in zip(jobs, folders, strict=True)]


def _meanings(files: Iterable[Path], jobs: Sequence[Job]) -> dict[Path, dict[str, Any]]:
    """What the configs of run folders mean today, of those of a task and seed of the runs that can be read."""
    wanted = {_task_and_seed(job.folder) for job in jobs}
    meanings = {}
    for file in sorted(files):
        if _task_and_seed(file.parent.name) in wanted:
            with suppress(ConfigError):  # of an option that there is no more, or damaged: no run of today
                meanings[file.parent] = _meaning(yaml_config.load_yaml(file))
    return meanings


def _task_and_seed(folder: str) -> tuple[str, str]:
    """What the names of folders of one run have in common in all versions."""
    parts = folder.split("__")
    return parts[0], "".join(parts[-2:-1])


def _meaning(data: Mapping[str, Any]) -> dict[str, Any]:
    """All options with the values that hold, but for those of W&B, some of which the environment says."""
    plain = build_config(data).resolved().plain()
    return {name: value for name, value in plain.items() if name != "wandb"}
