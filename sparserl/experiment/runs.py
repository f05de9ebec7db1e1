"""Beginning runs and going on with them, of whatever kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparserl.errors import ConfigError
from sparserl.experiment.agent_training import AgentTraining
from sparserl.experiment.classifier_training import ClassifierTraining
from sparserl.experiment.fit_training import FitTraining
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.resuming import resumed
from sparserl.experiment.run_config import kind_in
from sparserl.experiment.sequence_training import SequenceTraining
from sparserl.experiment.training import Shown, Source, Training, carry_out
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_lock import only_writer
from sparserl.recording.trackers import JobType

TRAININGS: dict[Kind, type[Training[Any]]] = {
    "train": AgentTraining,
    "continual": ClassifierTraining,
    "continual_rl": SequenceTraining,
    "fit": FitTraining,
}
"""Kind of run -> what carries it out."""


def begin(config: RunConfig, source: Source) -> Training[Any]:
    """A new run, as far as it needs no folder; its config is resolved.

    Raises:
        ConfigError: If parts of the config do not go together, or something that it names cannot be had.
    """
    return TRAININGS[config.kind].begin(config.resolved(), source)


def train(
    training: Training[Any],
    path: Path | None,
    command: str | None = None,
    *,
    show_progress: bool = False,
    begun: Callable[[RunFolder], object] = lambda folder: None,
    shown: Shown = lambda result, folder: None,
) -> RunFolder:
    """Trains a new run to its end.

    Args:
        training: What `begin` gives.
        path: Its folder, which must not exist; runs/<name>__s<seed> (or the next free number) if None.
        command: Command line that starts it, for `command.txt`; one that repeats it if None.
        show_progress: Whether to draw a progress bar.
        begun: Called with the new folder.
        shown: As in `carry_out`, which says what is raised.

    Raises:
        ConfigError: If the folder exists or cannot be written.
    """
    folder = training.create_folder(path, command)
    begun(folder)
    with only_writer(folder.path):
        carry_out(training, folder, show_progress=show_progress, shown=shown)
    return folder


def training_of(folder: RunFolder) -> type[Training[Any]]:
    """What carries out an existing run."""
    return TRAININGS[kind_in(folder)]


def go_on(
    path: Path,
    from_step: int | None = None,
    source: Source = Source(),  # noqa: B008  # frozen
    *,
    total_steps: int | None = None,
    command: JobType | None = None,
    show_progress: bool = False,
    begun: Callable[[int], object] = lambda step: None,
    shown: Shown = lambda result, folder: None,
) -> dict[str, Any]:
    """Goes on with a run that was stopped or has failed, or beyond the end of one.

    Args:
        path: Its folder.
        from_step: Step of the checkpoint; the newest one if None.
        source: Where its data is now.
        total_steps: Env steps that it is to have, more than its config says: then it may be finished; None: those.
        command: Sub-command that the run must be one of; any if None.
        show_progress: Whether to draw a progress bar.
        begun: Called with the step that it goes on from, when nothing more is refused but by the checkpoint.
        shown: As in `carry_out`, which says what is returned and raised.

    Raises:
        ConfigError: If the run is finished, is written by another process, or is of another command; or if a longer
            one would have gone another way, with the reason.
        CheckpointError: If there is no whole checkpoint.
    """
    folder = RunFolder.open(path)
    kind = training_of(folder)
    if command not in (None, kind.command):
        raise ConfigError(f"{path} is a run of `sparserl {kind.command}`; this takes runs of `sparserl {command}`")
    config = kind.config_of(folder)
    if total_steps is not None:
        config = kind.longer(config, total_steps)
    with resumed(folder, from_step, beyond_end=total_steps is not None) as state:
        training = kind.reopen(config, folder, source)
        begun(state["global_step"])
        return carry_out(training, folder, state, show_progress=show_progress, shown=shown)
