"""What every run has in its config, and what that asks for: its folder, its trackers, its films."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from sparserl import config as yaml_config
from sparserl.errors import ConfigError
from sparserl.ranges import CountOrZero, Seed, Workers, check_ranges
from sparserl.recording import wandb_environment
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.trackers import JobType, TensorBoardTracker, Tracker, WandbConfig, WandbTracker
from sparserl.recording.video import Camera


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

    def plain(self) -> dict[str, Any]:
        """The resolved config as plain data."""
        data: dict[str, Any] = yaml_config.plain(self)
        return data


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
