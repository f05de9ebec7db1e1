"""What every run has in its config, and what that asks for: its folder, its trackers, its films."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import gymnasium as gym

from sparserl import config as yaml_config
from sparserl.errors import ConfigError
from sparserl.ranges import Seed, Workers, check_ranges
from sparserl.recording import wandb_environment
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.settings import group_name
from sparserl.recording.trackers import JobType, TensorBoardTracker, Tracker, WandbConfig, WandbTracker
from sparserl.recording.trackio_tracker import TrackioConfig, TrackioTracker
from sparserl.recording.video import Camera
from sparserl.text_files import MOST_JSON_BYTES, read_bytes


@dataclass(frozen=True)
class RunConfig(ABC):
    """What every run has in its config, whatever it trains.

    Raises:
        ConfigError: If a value is out of range, or an option has no effect.
    """

    kind: ClassVar[Kind]
    """Of the run."""
    seed: Seed = 0
    """Root seed of everything random."""
    threads: Workers = 1
    """CPU threads of the networks' products."""
    energy: bool = False
    """Also estimate the energy used (needs the `energy` extra)."""
    tensorboard: bool = False
    """Also write TensorBoard files."""
    track: bool | Literal["wandb", "trackio"] = False
    """Also log to W&B; or to trackio, which needs no account and no network (extra `trackio`)."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Where `--track` sends metrics."""
    trackio: TrackioConfig = field(default_factory=TrackioConfig)
    """Where `--track trackio` writes metrics."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.tracked_at == "wandb":
            wandb_environment.check()
        else:
            for option, is_on in self.wandb.uploads.items():
                if is_on:
                    self.refuse_untracked(f"wandb.{option}")

    @property
    def tracked_at(self) -> str | None:
        """What else its metrics go to; None if nothing."""
        return "wandb" if self.track is True else self.track or None

    def refuse_untracked(self, option: str) -> None:
        """Raises ConfigError if an option, such as `wandb.project`, says how a run is tracked that is not so."""
        place = option.partition(".")[0]
        if place != self.tracked_at:
            flag = "--track" if place == "wandb" else f"--track {place}"
            raise ConfigError(f"--{option.replace('_', '-')} is for runs that are tracked: add {flag}")

    @property
    @abstractmethod
    def task_label(self) -> str:
        """What it learns, in words: an env, a data set, or a task sequence with its scenario."""

    @property
    @abstractmethod
    def labels(self) -> list[str]:
        """How it learns: algorithm and method, and what is special about topology and wrappers."""

    @property
    def name(self) -> str:
        """Run name without the seed."""
        return "__".join([self.task_label, *self.labels])

    @property
    def title(self) -> str:
        """What the run is, in words."""
        return f"{' '.join(self.labels)} on {self.task_label}, seed {self.seed}"

    @property
    def files(self) -> dict[str, Path]:
        """Dotted key of each option that is a file and is given -> its path."""
        return {}

    def with_files(self, files: Mapping[str, Path]) -> Self:
        """The same with other paths for some of `files`."""
        del files
        return self

    def kept_file(self, option: str) -> tuple[str, bytes]:
        """What a run keeps of one of its `files`: a name, and the content.

        Raises:
            ConfigError: If it cannot be read.
        """
        path = self.files[option]
        return path.name, read_bytes(path, MOST_JSON_BYTES)

    def resolved(self) -> Self:
        """The same run with the values that hold in place of None, as its `config.yaml` says it."""
        return self

    def plain(self) -> dict[str, Any]:
        """The config as plain data."""
        data: dict[str, Any] = yaml_config.plain(self)
        return data


def folder_name(name: str) -> str:
    """A name of runs as the beginning of a folder's: shells, Windows and W&B take every character of it as it is.

    Example:
        >>> folder_name("my_envs:Pole-v0__ds_td3__d0.1")
        'my_envs-Pole-v0__ds_td3__d0.1'
    """
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", name)


def free_folder(config: RunConfig) -> Path:
    """`runs/<name>__s<seed>`, or the first of `...__2`, `...__3`, ... that is free: a repeated command is a new run."""
    path = Path("runs") / f"{folder_name(config.name)}__s{config.seed}"
    numbered = (path.with_name(f"{path.name}__{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def trackers(
    config: RunConfig,
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
    name = f"{config.name}__s{config.seed}"
    of_folder, beginning = folder.path.name, folder_name(name)  # which may end in what tells runs of a sweep apart
    said: dict[str, Any] = {
        "folder": folder.path,
        "name": name + (of_folder.removeprefix(beginning) if of_folder.startswith(beginning) else ""),
        "group": group_name(config.name, run_config),
        "run_config": run_config,
        "resumed": resumed_at is not None,
    }
    if config.tracked_at == "wandb":
        started.append(WandbTracker(config.wandb, job_type=job_type, **said))
    if config.tracked_at == "trackio":
        started.append(TrackioTracker(config.trackio, **said))
    return started


def camera(
    config: RunConfig,
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
