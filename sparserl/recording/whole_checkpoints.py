"""Which full checkpoints of a run are whole, with the logs and the replay that they need; and what becomes of newer
ones when a run goes back to an older one.

Nothing here knows what a run trains.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import FINAL, RunFolder, by_step, check_logs, full_checkpoints, step_in

SET_ASIDE = "set_aside"
"""In a run that went back: a numbered folder for each time, with what was newer."""


def whole_state(folder: RunFolder, path: Path) -> dict[str, Any]:
    """A full checkpoint of a run that can go on from it; changes nothing.

    Args:
        folder: The run.
        path: The checkpoint.

    Raises:
        CheckpointError: If it is damaged or of another step than it says, or a log or a replay file that it needs is
            not there as it was.
    """
    state = checkpoint.load(path)
    check_step(path, state)
    check_logs(folder, _lengths(path, state))
    for name, sha256 in _replay_files(path, state).items():
        checkpoint.check_file(folder.replay / name, sha256)
    return state


def whole_steps(folder: RunFolder) -> list[int]:
    """Steps from which a run can go on, oldest first."""
    steps = []
    for path in full_checkpoints(folder):
        try:
            steps.append(int(whole_state(folder, path)["global_step"]))
        except CheckpointError:
            continue
    return steps


def check_step(path: Path, state: Mapping[str, Any]) -> None:
    """Raises CheckpointError if a checkpoint under the name of a step is of another one."""
    step = state.get("global_step")
    if type(step) is not int or step != step_in(path):
        raise CheckpointError(f"{path} is a checkpoint of step {str(step)[:40]}, not of the one in its name")


def cut_logs(folder: RunFolder, state: Mapping[str, Any]) -> None:
    """Forgets rows that were written after a whole checkpoint."""
    for name, size_bytes in state["recorder"]["csv_bytes"].items():
        os.truncate(folder.path / f"{name}.csv", size_bytes)


def set_aside(folder: RunFolder, step: int) -> Path | None:
    """Moves what is newer than a checkpoint out of the way, if there are newer full checkpoints: those, the final
    policy, snapshots of the topology and videos.

    Returns:
        Where it is now; None if there was nothing to move.
    """
    newer = [path for path in full_checkpoints(folder) if _is_after(path, step)]
    if not newer:
        return None
    others = by_step([*folder.snapshots.glob("step-*"), *(folder.path / "videos").glob("step-*")])
    moved = [path for path in others if _is_after(path, step)]
    final = folder.checkpoints / FINAL
    moved += [final] if os.path.lexists(final) else []
    aside = _free(folder.path / SET_ASIDE)
    for path in [*moved, *newer]:  # full checkpoints last: if this is interrupted, the rest is moved next time
        target = aside / path.relative_to(folder.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return aside


def _is_after(path: Path, step: int) -> bool:
    of_path = step_in(path)
    return of_path is not None and of_path > step


def _free(path: Path) -> Path:
    number = 1
    while (path / str(number)).exists():
        number += 1
    return path / str(number)


def _lengths(path: Path, state: Mapping[str, Any]) -> dict[str, int]:
    """Name of each log -> its length when the checkpoint was written."""
    recorder = state.get("recorder")
    lengths = recorder.get("csv_bytes") if isinstance(recorder, Mapping) else None
    if not isinstance(lengths, dict) or not all(type(size) is int and size >= 0 for size in lengths.values()):
        raise CheckpointError(f"{path} is no full checkpoint: it does not say how long the logs were")
    if not all(name.isidentifier() for name in lengths):
        raise CheckpointError(f"{path} is damaged: it names logs that no run has")
    return lengths


def _replay_files(path: Path, state: Mapping[str, Any]) -> dict[str, str]:
    """Name of each replay file that a checkpoint needs -> its SHA-256; none where a run has no replay."""
    replay = state.get("replay")
    if replay is None:
        return {}
    files = {}
    try:
        for part in replay["parts"][path.name]:
            name, sha256 = part["name"], part["sha256"]
            if Path(name).name != name or not isinstance(sha256, str):
                raise TypeError
            files[name] = sha256
    except (KeyError, TypeError):
        raise CheckpointError(f"{path} is damaged: it does not say where its replay is") from None
    return files
