"""Where the runs of a sweep lie: in folders named after their ids, or in those of another version of sparserl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sparserl import config as yaml_config
from sparserl.errors import SparserlError
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
    sought = {_task_and_seed(folder.name) for folder in folders if not folder.exists()}
    if not sought:
        return folders
    others = sorted({file.parent for file in out.glob("*/config.yaml")} - set(folders))
    meanings = {other: _meaning_of(other / "config.yaml") for other in others if _task_and_seed(other.name) in sought}

    def found(job: Job, folder: Path) -> Path:
        if folder.exists() or not meanings:
            return folder
        wanted = _meaning(job.recorded)
        return next((other for other, meaning in meanings.items() if meaning == wanted), folder)

    return [found(job, folder) for job, folder in zip(jobs, folders, strict=True)]


def _task_and_seed(folder: str) -> tuple[str, ...]:
    """What the names of folders of one run have in common in all versions."""
    parts = folder.split("__")
    return (*parts[:1], *parts[-2:-1])


@cache  # a run keeps its config, and each trial of a search looks at the runs of all others
def _meaning_of(file: Path) -> dict[str, Any] | None:
    """What the config of a run folder means today; None if it is refused: by an option that there is no more, say."""
    try:
        return _meaning(yaml_config.load_yaml(file))
    except SparserlError:
        return None


def _meaning(data: Mapping[str, Any]) -> dict[str, Any]:
    """All options with the values that hold, but for those of W&B, some of which the environment says."""
    plain = build_config(data).resolved().plain()
    return {name: value for name, value in plain.items() if name != "wandb"}
