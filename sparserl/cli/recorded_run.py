"""What `train` and `continual` have in common: a run in a folder that can be stopped, can fail, and can go on."""

from __future__ import annotations

import itertools
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sparserl import checkpoint
from sparserl.errors import CheckpointError, ConfigError
from sparserl.records import RunFolder, check_logs, full_checkpoints
from sparserl.tracking import JobType, TensorBoardTracker, Tracker, WandbConfig, WandbTracker


@dataclass(frozen=True)
class RunOptions:
    """What a command line says of a run beside its config."""

    preset: str | None = None
    """Preset to start from, see `sparserl list presets`; the one that fits the run if None."""
    config: Path | None = None
    """YAML file over the preset; the config.yaml of an earlier run repeats it."""
    resume: Path | None = None
    """Run folder to continue from its newest checkpoint; takes no other option but --progress, and --data-dir where
    there is one."""
    run_dir: Path | None = None
    """Folder of the run, which must not exist; runs/<name>__s<seed> (or the next free number) if None."""
    progress: bool = True
    """Draw a progress bar."""
    dry_run: bool = False
    """Print the resolved config and stop."""


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


class TrackedConfig(Protocol):
    """The part of a run's config that trackers need; `name` is without the seed, so that seeds are averaged."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def track(self) -> bool: ...
    @property
    def tensorboard(self) -> bool: ...
    @property
    def wandb(self) -> WandbConfig: ...


def free_folder(config: TrackedConfig) -> Path:
    """`runs/<name>__s<seed>`, or the first of `...__2`, `...__3`, ... that is free: a repeated command is a new run."""
    path = Path("runs") / f"{config.name.replace('/', '-')}__s{config.seed}"
    numbered = (path.with_name(f"{path.name}__{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def refuse_other_options(arguments: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ConfigError if a command line with `--resume` has a flag that would change the run."""
    others = [word for word in arguments if word.startswith("--") and word.split("=")[0] not in allowed]
    if others:
        raise ConfigError(f"--resume continues the run as it was configured and takes no {others[0]}")


def newest_state(folder: RunFolder) -> dict[str, Any]:
    """The newest checkpoint of a run that can go on; changes nothing.

    Raises:
        ConfigError: If the run is finished.
        CheckpointError: If there is no checkpoint, or it or a log is damaged.
    """
    if folder.is_done:
        raise ConfigError(f"{folder.path} is finished; there is nothing to resume")
    found = full_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder.path} has no checkpoint yet; start the run again in another --run-dir")
    state = checkpoint.load(found[-1])
    check_logs(folder, state["recorder"]["csv_bytes"])
    return state


def start_trackers(
    recorder: Recorder,
    config: TrackedConfig,
    folder: RunFolder,
    *,
    run_config: Mapping[str, Any],
    job_type: JobType,
    is_new: bool,
) -> None:
    """Gives the recorder the trackers that the config asks for.

    Raises:
        ConfigError: If one does not start; the folder of a new run is removed, so the same command can be given again.
    """
    trackers: list[Tracker] = []
    try:
        if config.track:
            trackers.append(
                WandbTracker(
                    config.wandb,
                    folder=folder.path,
                    name=f"{config.name}__s{config.seed}",
                    group=config.name,
                    run_config=run_config,
                    job_type=job_type,
                )
            )
        if config.tensorboard:
            trackers.append(TensorBoardTracker(folder.path))
    except ConfigError:
        if is_new:
            shutil.rmtree(folder.path)
        raise
    recorder.trackers = trackers


def close_trackers(recorder: Recorder, summary: Mapping[str, Any]) -> None:
    """Ends every tracker, with the run's result if it has one."""
    for tracker in recorder.trackers:
        tracker.close(summary)


def learn_or_say_how_to_resume(
    learn: Callable[[], object], recorder: Recorder, folder: RunFolder, *, command: JobType
) -> int:
    """Runs `learn`; whatever goes wrong, the folder stays and the user is told how to go on.

    Args:
        learn: Trains to the end, or until the recorder stops it.
        recorder: Of this run.
        folder: Of this run.
        command: Sub-command that resumes it.

    Returns:
        Exit status: 0 trained to the end, 1 failed, 130 stopped.
    """
    try:
        with _stop_on_signal(recorder):
            learn()
    except KeyboardInterrupt:
        print(f"\nstopped at once; {_how_to_resume(folder, command)}", file=sys.stderr)
        return 130
    except Exception as error:
        close_trackers(recorder, {})
        traceback.print_exc()
        how = _how_to_resume(folder, command)
        print(f"sparserl: the run failed ({type(error).__name__}: {error}); {how}", file=sys.stderr)
        return 1
    if recorder.stopped_at is not None:
        close_trackers(recorder, {})
        print(f"\nstopped at step {recorder.stopped_at}; {_how_to_resume(folder, command)}", file=sys.stderr)
        return 130
    return 0


def _how_to_resume(folder: RunFolder, command: JobType) -> str:
    if not full_checkpoints(folder):
        return f"{folder.path} has no checkpoint yet, so it cannot be resumed"
    return f"continue with: sparserl {command} --resume {shlex.quote(str(folder.path))}"


@contextmanager
def _stop_on_signal(recorder: Recorder) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) saves at the next boundary and stops; a second one stops at once."""

    def request(signum: int, frame: Any) -> None:
        del signum, frame
        if recorder.stop_requested:
            raise KeyboardInterrupt
        recorder.stop_requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
