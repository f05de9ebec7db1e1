"""What `train` and `continual` have in common: a run in a folder that can be stopped, can fail, and can go on."""

from __future__ import annotations

import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from sparserl.errors import CheckpointError, ConfigError, NotFiniteError, SparserlError, one_line
from sparserl.experiment.run_failure import how_to_resume, run_failed
from sparserl.experiment.signals import handled
from sparserl.ranges import CountOrZero, Seed, Workers, check_ranges
from sparserl.recording import checkpoint, wandb_environment
from sparserl.recording.run_folder import RunFolder, full_checkpoints, step_in, step_name
from sparserl.recording.run_lock import only_writer
from sparserl.recording.trackers import JobType, TensorBoardTracker, Tracker, WandbConfig, WandbTracker
from sparserl.recording.video import Camera
from sparserl.recording.whole_checkpoints import cut_logs, set_aside, whole_state, whole_steps


@dataclass(frozen=True)
class RunOptions:
    """What a command line says of a run beside its config."""

    preset: str | None = None
    """Preset to start from, see `sparserl list presets`; the one that fits the run if None."""
    config: Path | None = None
    """YAML file over the preset; the config.yaml of an earlier run repeats it."""
    resume: Path | None = None
    """Run folder to continue from its newest checkpoint; takes no other option but --from-step, --progress, and
    --data-dir where there is one."""
    from_step: CountOrZero | None = None
    """With --resume: continue from the checkpoint of this step instead. What is newer is set aside in the folder."""
    run_dir: Path | None = None
    """Folder of the run, which must not exist; runs/<name>__s<seed> (or the next free number) if None."""
    progress: bool = True
    """Draw a progress bar."""
    dry_run: bool = False
    """Print the resolved config and stop."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.from_step is not None and self.resume is None:
            raise ConfigError("--from-step is for a run that goes on: add --resume DIR")


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

    def save_not_finite(self, error: NotFiniteError) -> Path:
        """Keeps the state in which something was not finite, to be looked at; gives its folder."""

    def log_models(self, result: Mapping[str, Any]) -> None:
        """Gives trackers what was learned, once the run is done."""


@dataclass(frozen=True)
class RecordedConfig(ABC):
    """What every run has in its config, whatever it trains.

    Raises:
        ConfigError: If a value is out of range, or an option has no effect.
    """

    seed: Seed = 0
    """Root seed of everything random."""
    threads: Workers = 1
    """CPU threads of the networks' products."""
    energy: bool = False
    """Also estimate the energy used (needs the `energy` extra)."""
    tensorboard: bool = False
    """Also write TensorBoard files."""
    track: bool = False
    """Also log to W&B."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Where `--track` sends metrics."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.track:
            wandb_environment.check()
        else:
            for option, is_on in self.wandb.uploads.items():
                if is_on:
                    raise ConfigError(f"--wandb.{option} is for runs that are tracked: add --track")

    @property
    @abstractmethod
    def name(self) -> str:
        """Run name without the seed, so that seeds are averaged."""


def free_folder(config: RecordedConfig) -> Path:
    """`runs/<name>__s<seed>`, or the first of `...__2`, `...__3`, ... that is free: a repeated command is a new run."""
    path = Path("runs") / f"{config.name.replace('/', '-')}__s{config.seed}"
    numbered = (path.with_name(f"{path.name}__{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def refuse_untracked(arguments: Sequence[str], config: RecordedConfig) -> None:
    """Raises ConfigError if flags say where a run is tracked that is not.

    A config file may say so: it is for several runs, or of one that took it from the environment.
    """
    given = next((word.split("=")[0] for word in arguments if word.startswith("--wandb.")), None)
    if given is not None and not config.track:
        raise ConfigError(f"{given} is for runs that are tracked: add --track")


def refuse_other_options(arguments: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ConfigError if a command line with `--resume` has a flag that would change the run."""
    others = [word for word in arguments if word.startswith("--") and word.split("=")[0] not in allowed]
    if others:
        raise ConfigError(f"--resume continues the run as it was configured and takes no {others[0]}")


@contextmanager
def resumed(folder: RunFolder, from_step: int | None = None) -> Iterator[dict[str, Any]]:
    """While this process alone writes a run that goes on: the checkpoint that it goes on from; nothing is changed yet.

    Args:
        folder: The run.
        from_step: Step of the checkpoint; the newest one if None.

    Raises:
        ConfigError: If the run is finished, another process writes it, or it has no checkpoint of that step.
        CheckpointError: If there is no checkpoint, or it or what it needs is damaged. If an older one is whole, the
            message says how to go on from there: a run does not go back by itself.
    """
    _refuse_finished(folder)
    with only_writer(folder.path):
        _refuse_finished(folder)  # who held the lock until now may have finished it
        yield _state_of(folder, from_step)


def _refuse_finished(folder: RunFolder) -> None:
    if folder.is_done:
        raise ConfigError(f"{folder.path} is finished; there is nothing to resume")


def _state_of(folder: RunFolder, from_step: int | None) -> dict[str, Any]:
    found = full_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder.path} has no checkpoint yet; start the run again in another --run-dir")
    if from_step is None:
        chosen = found[-1]
    else:
        chosen = folder.checkpoints / step_name(from_step)
        if chosen not in found:
            steps = ", ".join(map(str, whole_steps(folder))) or "none"
            raise ConfigError(f"{folder.path} has no checkpoint of step {from_step}; whole ones are of step: {steps}")
    try:
        return whole_state(folder, chosen)
    except CheckpointError as error:
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


def trackers(
    config: RecordedConfig,
    folder: RunFolder,
    *,
    run_config: Mapping[str, Any],
    job_type: JobType,
    resumed_at: int | None,
) -> list[Tracker]:
    """The trackers that a config asks for, started.

    Args:
        config: Of the run.
        folder: Of the run.
        run_config: What they are told of it.
        job_type: The command.
        resumed_at: Step of the checkpoint that the run goes on from; None if it begins.

    Raises:
        ConfigError: If one does not start.
    """
    started: list[Tracker] = []
    if config.tensorboard:
        started.append(TensorBoardTracker(folder.path, resumed_at=resumed_at))
    if config.track:
        started.append(
            WandbTracker(
                config.wandb,
                folder=folder.path,
                name=f"{config.name}__s{config.seed}",
                group=config.name,
                run_config=run_config,
                job_type=job_type,
                resumed=resumed_at is not None,
            )
        )
    return started


def camera(
    config: RecordedConfig,
    folder: RunFolder,
    make_env: Callable[[int], gym.Env[Any, Any]],
    *,
    evaluate_every_steps: int,
    seed: int,
) -> Camera | None:
    """What films evaluations, if a config asks for it; arguments as `Camera` takes them.

    Raises:
        ConfigError: If this machine cannot film.
    """
    every = config.wandb.video_every_steps
    if every is None:
        return None
    return Camera(
        make_env, folder.path / "videos", every_steps=every, evaluate_every_steps=evaluate_every_steps, seed=seed
    )


def hand_over(recorder: Recorder, config: RecordedConfig, result: Mapping[str, Any]) -> None:
    """Gives trackers the result of a run, and what it learned if the config says so, and ends them.

    Last of all: a tracker may wait for its network, and the run is complete without it.
    """
    if config.wandb.checkpoints:
        recorder.log_models(result)
    _close_trackers(recorder, result)


def _close_trackers(recorder: Recorder, summary: Mapping[str, Any]) -> None:
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
    except NotFiniteError as error:
        print(f"\nsparserl: {error}; {_after_not_finite(recorder, error, folder, command)}", file=sys.stderr)
        _close_trackers(recorder, {})
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped at once; {how_to_resume(folder, command)}", file=sys.stderr)
        return 130
    except Exception as error:
        failure = run_failed(error, folder, command)
        print(f"sparserl: {failure}", file=sys.stderr)
        _close_trackers(recorder, {})
        return failure.exit_status
    if recorder.stopped_at is not None:
        print(f"\nstopped at step {recorder.stopped_at}; {how_to_resume(folder, command)}", file=sys.stderr)
        _close_trackers(recorder, {})
        return 130
    return 0


def _after_not_finite(recorder: Recorder, error: NotFiniteError, folder: RunFolder, command: JobType) -> str:
    """Where the state of that moment is, and what can be done."""
    path = recorder.save_not_finite(error)
    at = "" if error.step is not None else f", of step {checkpoint.load(path)['global_step']:,},"
    saved = f"that state{at} is in {path}"
    found = full_checkpoints(folder)
    if not found:
        return f"{saved}; {how_to_resume(folder, command)}"
    again = "resuming repeats it unless the environment is mended, and other settings need a new run"
    return f"{saved}, the last checkpoint before it is {found[-1].name}; {again}; {how_to_resume(folder, command)}"


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
