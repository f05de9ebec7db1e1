"""Going on with a run: the checkpoint that it goes on from, and what is left of an attempt that was cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sparserl.errors import CheckpointError, ConfigError, SparserlError, one_line
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import RunFolder, full_checkpoints, step_in, step_name
from sparserl.recording.run_lock import only_writer
from sparserl.recording.whole_checkpoints import cut_logs, set_aside, whole_state, whole_steps


@contextmanager
def resumed(folder: RunFolder, from_step: int | None = None, *, beyond_end: bool = False) -> Iterator[dict[str, Any]]:
    """While this process alone writes a run that goes on: the checkpoint that it goes on from; nothing is changed yet.

    Args:
        folder: The run.
        from_step: Step of the checkpoint; the newest one if None.
        beyond_end: Whether the run may be finished.

    Raises:
        ConfigError: If the run is finished, another process writes it, or it has no checkpoint of that step; or if it
            is to go beyond its end, and what it needs for that was not kept.
        CheckpointError: If there is no checkpoint, or it or what it needs is damaged. If an older one is whole, the
            message says how to go on from there: a run does not go back by itself.
    """
    if not beyond_end:
        _refuse_finished(folder)
    with only_writer(folder.path):
        if not beyond_end:
            _refuse_finished(folder)  # who held the lock until now may have finished it
        yield _state_of(folder, from_step)


def _refuse_finished(folder: RunFolder) -> None:
    if folder.is_done:
        raise ConfigError(
            f"{folder.path} is finished; there is nothing to resume, unless --total-steps makes a run of "
            "`sparserl train` longer"
        )


def _state_of(folder: RunFolder, from_step: int | None) -> dict[str, Any]:
    checkpoints = full_checkpoints(folder)
    kept_nothing = ConfigError(f"{folder.path} cannot go beyond its end: what --keep-replay keeps is not there")
    if not checkpoints and folder.is_done:
        raise kept_nothing
    if not checkpoints:
        raise CheckpointError(f"{folder.path} has no checkpoint yet; start the run again in another --run-dir")
    if from_step is None:
        chosen = checkpoints[-1]
    else:
        chosen = folder.checkpoints / step_name(from_step)
        if chosen not in checkpoints:
            steps = ", ".join(map(str, whole_steps(folder))) or "none"
            raise ConfigError(f"{folder.path} has no checkpoint of step {from_step}; whole ones are of step: {steps}")
    try:
        return whole_state(folder, chosen)
    except CheckpointError as error:
        if folder.is_done and not any(folder.replay.glob("*")):
            raise kept_nothing from None
        older = [step for step in whole_steps(folder) if step != step_in(chosen)]
        if not older:
            raise
        how = f"continue from step {older[-1]}, the newest whole one, by --from-step {older[-1]}"
        raise CheckpointError(f"{error}; {how}") from None


@contextmanager
def restoring() -> Iterator[None]:
    """While a run takes over the state of a checkpoint, which has changed nothing on the disk yet.

    Raises:
        CheckpointError: Instead of whatever else goes wrong: an edited value that no other check has seen.
    """
    try:
        yield
    except SparserlError:
        raise
    except Exception as error:
        what = one_line(f"{type(error).__name__}: {error}", 200)
        raise CheckpointError(f"the checkpoint does not fit this run ({what})") from error


def tidy(folder: RunFolder, state: Mapping[str, Any]) -> None:
    """Once nothing is refused any more: cuts the logs, cleans up after a crash, and sets aside what is newer than a
    checkpoint that is not the newest, and says so.

    Args:
        folder: Of the run.
        state: The checkpoint that it goes on from.
    """
    cut_logs(folder, state)
    checkpoint.tidy(folder.checkpoints)
    step = state["global_step"]
    aside = set_aside(folder, step)
    if aside is not None:
        print(f"what was saved after step {step} is in {aside}, and rows after it are cut from the logs")
