"""Sinks for metrics: W&B and TensorBoard, both written directly and never read back."""

from __future__ import annotations

import atexit
import json
import math
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from sparserl.errors import ConfigError
from sparserl.extras import how_to_install
from sparserl.json_text import json_text
from sparserl.ranges import Count, check_ranges
from sparserl.recording import wandb_environment
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import write_atomically
from sparserl.recording.wandb_environment import unless_set

V = TypeVar("V")

JobType = Kind
OBJECTIVE: dict[JobType, tuple[str, str]] = {
    "train": ("eval/return_mean", "max,last"),
    "continual": ("cl/accuracy_seen", "last"),
    "continual_rl": ("cl/return_seen", "last"),
    "fit": ("fit/accuracy_validation", "max,last"),
}
"""Job type -> the metric that tells runs apart, and what W&B's summary keeps of it."""
WANDB_SETTINGS = {
    "WANDB_SILENT": "true",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "300",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
}
"""What W&B reads from the environment, unless it is set there: no server out of reach holds a run up for long."""


class Tracker(Protocol):
    """A sink for metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`: env steps of an agent, gradient steps of a continual learner."""

    def log_video(self, step: int, name: str, path: Path) -> None:
        """Records a film that is on disk."""

    def log_model(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Records a checkpoint; its folder may go when this returns."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Ends the record with the run's result; call it once."""


@dataclass(frozen=True)
class WandbConfig:
    """Where `--track` sends metrics."""

    mode: wandb_environment.Mode = field(default_factory=wandb_environment.mode)
    """online needs an account; offline writes below the run folder and can be synced later. WANDB_MODE if not given."""
    project: str = field(default_factory=wandb_environment.project)
    """Project name. WANDB_PROJECT if not given."""
    entity: str | None = field(default_factory=wandb_environment.entity)
    """Team or user; the account's default if None. WANDB_ENTITY if not given."""
    tags: tuple[str, ...] = field(default_factory=wandb_environment.tags)
    """Tags of the run. WANDB_TAGS if not given."""
    checkpoints: bool = False
    """Also upload, when the run is done, what it learned: the last checkpoint, and the best by evaluation."""
    video_every_steps: Count | None = None
    """Also film an episode at the first evaluation after every so many env steps (as MP4 with the `video` extra, else
    as GIF); an episode of 1,000 steps takes some ten seconds without a graphics card. None films nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, "--wandb.")

    @property
    def uploads(self) -> dict[str, bool]:
        """Name of each option that asks for more than metrics -> whether it does."""
        return {"checkpoints": self.checkpoints, "video-every-steps": self.video_every_steps is not None}


class WandbTracker:
    """Writes to Weights & Biases, with `global_step` as the only x axis.

    Once it has started nothing that fails here stops the run: the first failure is said, and W&B keeps what it was
    given in the run folder, where `wandb sync` finds it.

    Args:
        config: Mode and names.
        folder: Run folder; local files go below it.
        name: Run name, with the seed.
        group: Name of the runs that differ in the seed alone, which are averaged.
        run_config: The resolved config, nested.
        job_type: The command.
        resumed: Whether an earlier process of the run was tracked: what that one logged is not logged again, and where
            W&B cannot be reached the run goes on offline.

    Raises:
        ConfigError: If W&B cannot start, for example online without an account or a network.
    """

    def __init__(
        self,
        config: WandbConfig,
        *,
        folder: Path,
        name: str,
        group: str,
        run_config: Mapping[str, Any],
        job_type: JobType,
        resumed: bool = False,
    ):
        import wandb  # half a second to import, and most runs do not track

        run_id = folder / "wandb_id.txt"
        wandb_defaults()
        self._wandb, self._said = wandb, False
        self._files = Path(os.environ.get("WANDB_DIR") or folder) / "wandb"

        def begin(mode: wandb_environment.Mode) -> Any:
            return wandb.init(
                mode=mode,
                project=config.project,
                entity=config.entity,
                tags=list(config.tags),
                name=unless_set("WANDB_NAME", name),
                group=unless_set("WANDB_RUN_GROUP", group),
                job_type=job_type,
                dir=unless_set("WANDB_DIR", str(folder)),
                config=dict(run_config),
                id=run_id.read_text().strip() if run_id.exists() else None,
                # Offline, too: `wandb sync` then appends this part to the earlier ones, and does not write over them.
                resume="allow" if mode == "online" or run_id.exists() else None,
            )

        # A command line that resumes takes no --wandb.mode: the environment is where it can be said.
        mode = (wandb_environment.stated_mode() if resumed else None) or config.mode
        self._logged = Logged(folder / "wandb_logged.json", resumed=resumed, keeps=mode != "disabled")
        atexit.register(self._logged.close)  # registered before W&B's own, which writes all rows, and run after it
        try:
            try:
                self._run = begin(mode)
            except Exception as error:
                if not resumed or mode != "online":
                    raise
                reason = wandb_reason(error)
                print(
                    f"sparserl: W&B cannot be reached ({reason}); the run goes on offline, later: {self._how_to_sync}",
                    file=sys.stderr,
                )
                wandb.teardown()  # its service would hold the run's id for the attempt that failed
                self._run = begin("offline")
            self._run.define_metric("global_step")
            self._run.define_metric("*", step_metric="global_step")
            objective, kept = OBJECTIVE[job_type]
            self._run.define_metric(objective, step_metric="global_step", summary=kept)
        except Exception as error:  # its own, of its network, of its settings
            hint = "WANDB_MODE=disabled goes on without it" if resumed else "try --wandb.mode offline"
            raise ConfigError(f"W&B did not start ({wandb_reason(error)}); {hint}") from None
        run_id.write_text(self._run.id)
        self._is_offline = mode == "offline"

    @property
    def _how_to_sync(self) -> str:
        return f"wandb sync {shlex.quote(str(self._files))}/offline-run-*"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`."""
        new = self._logged.new(step, metrics)
        if new:
            self._attempt(lambda: self._run.log({"global_step": step, **new}))
            self._logged.add(step, metrics)

    def log_video(self, step: int, name: str, path: Path) -> None:
        """Records a film that is on disk; W&B takes a copy."""
        if self._logged.new(step, {name: path}):
            self._attempt(
                lambda: self._run.log({"global_step": step, name: self._wandb.Video(str(path), format=path.suffix[1:])})
            )
            self._logged.add(step, {name: path})

    def log_model(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Records a checkpoint as a version, called `name`, of the run's artifact of type `model`."""

        def upload() -> None:
            artifact = self._wandb.Artifact(f"model-{self._run.id}", type="model", metadata=dict(metadata))
            artifact.add_dir(str(folder))
            self._run.log_artifact(artifact, aliases=[name])

        self._attempt(upload)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Puts the result into the run's summary and ends it."""
        self._attempt(lambda: self._run.summary.update({f"result/{key}": value for key, value in summary.items()}))
        self._attempt(lambda: self._run.finish())
        self._logged.close()
        atexit.unregister(self._logged.close)
        if self._is_offline:
            tqdm.write(
                f"sparserl: what W&B was told is on the disk alone; to send it: {self._how_to_sync}", file=sys.stderr
            )

    def _attempt(self, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception as error:
            if not self._said:
                self._said = True
                kept = f"`wandb sync` sends what is in {self._files}"
                said = f"sparserl: W&B failed ({wandb_reason(error)}) and the run does without it; {kept}"
                tqdm.write(said, file=sys.stderr)  # around the progress bar


SURE_S = 30.0
"""Age of rows that W&B has written: twice what it was seen to take."""


class Logged:
    """How far the history of a run has come, over its processes: one that resumes from a checkpoint repeats, with the
    same numbers, what an earlier one has logged after it.

    W&B keeps rows in memory for some seconds, which a process that is killed takes along. So rows of the last `SURE_S`
    do not count until `close`; such a run may have them twice.

    Args:
        path: File that says so; one that cannot be read says nothing.
        resumed: Whether there may be an earlier process.
        keeps: Whether what is logged now is kept anywhere.
    """

    def __init__(self, path: Path, *, resumed: bool, keeps: bool = True):
        self._path, self._keeps = path, keeps
        self._before: tuple[int, frozenset[str]] = (-1, frozenset())
        if resumed:
            with suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(path.read_text())
                self._before = int(stored["global_step"]), frozenset(stored["names"])
        self._step, self._names = self._before[0], set(self._before[1])
        self._unsure: deque[tuple[float, int, frozenset[str]]] = deque()

    def new(self, step: int, metrics: Mapping[str, V]) -> dict[str, V]:
        """Those of some metrics that no earlier process has logged."""
        reached, names = self._before
        if step != reached:
            return dict(metrics) if step > reached else {}
        return {name: value for name, value in metrics.items() if name not in names}

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Remembers what has been logged."""
        self._names = self._names.union(metrics) if step == self._step else set(metrics)
        self._step = step
        now = time.monotonic()
        self._unsure.append((now, step, frozenset(self._names)))
        self._write(now - SURE_S)

    def close(self) -> None:
        """Everything is on the disk."""
        self._write(math.inf)

    def _write(self, until: float) -> None:
        """Writes how far the history had come at a time."""
        sure = None
        while self._unsure and self._unsure[0][0] <= until:
            sure = self._unsure.popleft()
        if sure is not None and self._keeps:
            _, step, names = sure
            write_atomically(self._path, json_text({"global_step": step, "names": sorted(names)}) + "\n")


def wandb_defaults() -> None:
    """Sets `WANDB_SETTINGS` where the environment says nothing else."""
    for variable, value in WANDB_SETTINGS.items():
        os.environ.setdefault(variable, value)


def wandb_reason(error: Exception) -> str:
    """What W&B says of a failure, in one line, without its advice to programmers."""
    said, _, _ = str(error).partition("\nConsider ")
    return " ".join(said.split()) or type(error).__name__


class TensorBoardTracker:
    """Writes TensorBoard event files under the same metric names.

    Args:
        folder: Run folder; files go to `tensorboard/` below it.
        resumed_at: Step of the checkpoint that the run goes on from: what an earlier process logged after it is not
            shown. None if the run begins.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, resumed_at: int | None = None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(f"TensorBoard is not installed; {how_to_install('tensorboard')} brings it") from None
        purged = None if resumed_at is None else resumed_at + 1  # what is of the checkpoint's step was logged before it
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purged)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_video(self, step: int, name: str, path: Path) -> None:
        """Nothing: it is in the run folder."""

    def log_model(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Nothing: it is in the run folder."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Ends the file."""
        del summary
        self._writer.close()
