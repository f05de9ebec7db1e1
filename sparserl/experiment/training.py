"""The one loop of every run: what learns gets ready, takes over a checkpoint if there is one, learns, leaves a result.

A `Training` is what learns, with its environments or its data. There is one for each kind of run; everything that kinds
have in common is here, and what else a run can meet (signals, failures, values that are not finite) is said here.
"""

from __future__ import annotations

import contextlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
import yaml

from sparserl.errors import ConfigError, NotFiniteError, RunFailed, RunStopped
from sparserl.experiment.input_files import stored
from sparserl.experiment.recorded_run import RunConfig, free_folder, trackers
from sparserl.experiment.resuming import restoring, tidy
from sparserl.experiment.run_config import written_config
from sparserl.experiment.run_failure import finishing, getting_ready, how_to_resume, run_failed
from sparserl.experiment.signals import handled
from sparserl.kernels import compile_kernels
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.recording.trackers import JobType, Tracker

C = TypeVar("C", bound=RunConfig)

Shown = Callable[[dict[str, Any], RunFolder], object]
"""Shows the result of a run."""


class Recorder(Protocol):
    """Records a run.

    Attributes:
        trackers: Further sinks of metrics.
        stop_requested: Set from outside: save at the next boundary and stop.
        stopped_at: Step at which it did; None if it did not.
    """

    trackers: Sequence[Tracker]
    stop_requested: bool
    stopped_at: int | None

    def restore(self, state: dict[str, Any]) -> None:
        """Puts what learns where a checkpoint was taken; its environments are not the recorder's."""

    def result(self) -> dict[str, Any]:
        """What `result.json` says of outcome and cost, at the end of the run."""

    def save_not_finite(self, error: NotFiniteError) -> Path:
        """Keeps the state in which something was not finite, to be looked at; gives its folder."""

    def log_models(self, result: Mapping[str, Any]) -> None:
        """Gives trackers what was learned, once the run is done."""


@dataclass(frozen=True)
class Source:
    """Where a run takes what its config does not say.

    Attributes:
        config: File that its config was read from; None if it came from elsewhere.
        data_dir: Folder that holds a folder for each data set; the usual one if None. For classifiers.
        download: Whether missing data is fetched into it. For classifiers.
    """

    config: Path | None = None
    data_dir: Path | None = None
    download: bool = False


class Training(ABC, Generic[C]):
    """What learns in a run, with what it learns from.

    Attributes:
        config: Of the run, with the paths of files as they are found.
    """

    command: ClassVar[JobType]
    """Sub-command that resumes it."""
    job_type: ClassVar[JobType]
    """What trackers call it."""
    parts: ClassVar[Sequence[str]]
    """Folders in its run folder."""

    def __init__(self, config: C):
        self.config = config
        torch.set_num_threads(config.threads)

    @classmethod
    @abstractmethod
    def begin(cls, config: C, source: Source) -> Training[C]:
        """A new run, as far as it needs no folder.

        Raises:
            ConfigError: If parts of the config do not go together, or something that it names cannot be had.
        """

    @classmethod
    @abstractmethod
    def config_of(cls, folder: RunFolder) -> C:
        """Config of an existing run, with the paths of the files in its folder, which are checked.

        Raises:
            ConfigError: If one is missing or was edited.
        """

    @classmethod
    @abstractmethod
    def reopen(cls, config: C, folder: RunFolder, source: Source) -> Training[C]:
        """That of a run that goes on, before its checkpoint is taken over; raises as `begin`."""

    @classmethod
    def longer(cls, config: C, total_steps: int) -> C:
        """The config of an existing run that is to have so many steps.

        Raises:
            ConfigError: If it is no more than it has, or such runs cannot be extended.
        """
        raise ConfigError(f"--total-steps is for runs of `sparserl train`, not of `sparserl {cls.command}`")

    def check_length(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError if a checkpoint is of a run of another length, whose rest would go another way."""

    def extend(self, folder: RunFolder) -> None:
        """Says in the folder how long the run is now, if it is longer than it says."""

    @property
    @abstractmethod
    def about(self) -> list[str]:
        """Its size in words, in lines."""

    @property
    def is_sparse(self) -> bool:
        """Whether it needs the kernels."""
        return True

    def create_folder(self, path: Path | None, command: str | None) -> RunFolder:
        """Makes the folder of the run, and keeps there what the run reads.

        Args:
            path: Must not exist; the first free one of `free_folder` if None.
            command: Command line that starts the run, for `command.txt`; one that repeats it if None.

        Raises:
            ConfigError: If it exists or cannot be written.
        """
        config, files = self._stored()
        path = path or free_folder(self.config)
        return RunFolder.create(
            path,
            config_yaml=yaml.safe_dump(config.plain(), sort_keys=False),
            command=command or shlex.join(["sparserl", self.command, "--config", str(path / "config.yaml")]),
            threads=config.threads,
            parts=self.parts,
            files=files,
        )

    def _stored(self) -> tuple[C, dict[Path, bytes]]:
        """The config as it is written into the folder, and files that lie there, by their path in it."""
        return stored(self.config)

    @abstractmethod
    def record(self, folder: RunFolder, *, show_progress: bool) -> Recorder:
        """What records the run; called once."""

    def written(self, folder: RunFolder) -> dict[str, Any]:
        """The config of the run as its folder says it, or will say it."""
        return written_config(folder)

    def restore_envs(self, state: Mapping[str, Any]) -> None:
        """Puts environments where a checkpoint was taken, after the recorder has restored what acts in them."""

    @abstractmethod
    def learn(self, *, is_new: bool) -> None:
        """Learns to the end, or until the recorder stops it."""

    def close(self) -> None:
        """Closes what evaluates."""

    @property
    @abstractmethod
    def named(self) -> dict[str, Any]:
        """What `result.json` says of the config."""

    def save_outcome(self, folder: RunFolder) -> None:
        """Saves what was learned, where that is not done by checkpoints."""

    @abstractmethod
    def draw(self, folder: RunFolder, out: Path) -> None:
        """Draws the finished run."""

    def clean_up(self) -> None:
        """Deletes what a finished run no longer needs."""


def carry_out(
    training: Training[Any],
    folder: RunFolder,
    state: dict[str, Any] | None = None,
    *,
    show_progress: bool = False,
    shown: Shown = lambda result, folder: None,
) -> dict[str, Any]:
    """Trains a run to its end; the caller holds the lock of its folder.

    Args:
        training: What learns.
        folder: Of the run.
        state: The checkpoint that it goes on from; None if it begins.
        show_progress: Whether to draw a progress bar.
        shown: Called with the result before trackers end, which may wait for their network.

    Returns:
        What `result.json` says.

    Raises:
        SparserlError: If it is refused before it learns; then the folder of a new run is gone.
        RunFailed: If it fails, with how to go on.
        RunStopped: If Ctrl-C or SIGTERM stopped it, with how to go on.
        KeyboardInterrupt: If a second one stopped it at once.
    """
    command = training.command
    with contextlib.closing(training):
        with getting_ready(folder, command, is_new=state is None):
            recorder = _ready(training, folder, state, show_progress=show_progress)
        _learn(training, recorder, folder, is_new=state is None)
    with finishing(folder, command):
        result = {**training.named, **recorder.result()}
        training.save_outcome(folder)
        folder.finish(result, lambda out: training.draw(folder, out))
        training.clean_up()
        shown(result, folder)
        if training.config.wandb.checkpoints:
            recorder.log_models(result)
        _close_trackers(recorder, result)
    return result


def _ready(
    training: Training[Any], folder: RunFolder, state: dict[str, Any] | None, *, show_progress: bool
) -> Recorder:
    if training.is_sparse:
        compile_kernels(lambda message: print(message, flush=True))
    recorder = training.record(folder, show_progress=show_progress)
    if state is not None:
        training.check_length(state)
        with restoring():
            recorder.restore(state)
            training.restore_envs(state)
    recorder.trackers = trackers(
        training.config,
        folder,
        run_config=training.written(folder),
        job_type=training.job_type,
        resumed_at=None if state is None else state["global_step"],
    )
    if state is not None:  # nothing is refused any more
        tidy(folder, state)
        training.extend(folder)
    return recorder


def _learn(training: Training[Any], recorder: Recorder, folder: RunFolder, *, is_new: bool) -> None:
    """Learns; whatever goes wrong, the folder stays and the error says how to go on."""
    command = training.command
    failure: RunFailed
    try:
        with _stop_on_signal(recorder):
            training.learn(is_new=is_new)
    except NotFiniteError as error:
        failure = RunFailed(f"{error}; {_after_not_finite(recorder, error, folder, command)}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped at once; {how_to_resume(folder, command)}") from None
    except Exception as error:
        failure = run_failed(error, folder, command)
    else:
        if recorder.stopped_at is None:
            return
        failure = RunStopped(f"stopped at step {recorder.stopped_at}; {how_to_resume(folder, command)}")
    try:
        _close_trackers(recorder, {})
    finally:
        raise failure


def _after_not_finite(recorder: Recorder, error: NotFiniteError, folder: RunFolder, command: JobType) -> str:
    """Where the state of that moment is, and what can be done."""
    path = recorder.save_not_finite(error)
    at = "" if error.step is not None else f", of step {checkpoint.load(path)['global_step']:,},"
    saved = f"that state{at} is in {path}"
    full = full_checkpoints(folder)
    if not full:
        return f"{saved}; {how_to_resume(folder, command)}"
    again = "resuming repeats it unless the environment is mended, and other settings need a new run"
    return f"{saved}, the last checkpoint before it is {full[-1].name}; {again}; {how_to_resume(folder, command)}"


def _close_trackers(recorder: Recorder, summary: Mapping[str, Any]) -> None:
    """All of them, in their order, whichever fails."""
    with contextlib.ExitStack() as ending:
        for tracker in reversed(recorder.trackers):
            ending.callback(tracker.close, summary)


@contextmanager
def _stop_on_signal(recorder: Recorder) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) saves at the next boundary and stops; a second one stops at once."""

    def request(signum: int, frame: Any) -> None:
        del signum, frame
        if recorder.stop_requested:
            raise KeyboardInterrupt
        recorder.stop_requested = True

    with handled(request):
        yield
