"""Sinks for metrics: W&B and TensorBoard, both written directly and never read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sparserl.errors import ConfigError

JobType = Literal["train", "continual", "continual_rl"]
OBJECTIVE: dict[JobType, tuple[str, str]] = {
    "train": ("eval/return_mean", "max,last"),
    "continual": ("cl/accuracy_seen", "last"),
    "continual_rl": ("cl/return_seen", "last"),
}
"""Job type -> the metric that tells runs apart, and what W&B's summary keeps of it."""


class Tracker(Protocol):
    """A sink for metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`: env steps of an agent, gradient steps of a continual learner."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Ends the record with the run's result; call it once."""


@dataclass(frozen=True)
class WandbConfig:
    """Where `--track` sends metrics."""

    mode: Literal["online", "offline", "disabled"] = "online"
    """online needs an account; offline writes below the run folder and can be synced later."""
    project: str = "sparserl"
    """Project name."""
    entity: str | None = None
    """Team or user; the account's default if None."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""


class WandbTracker:
    """Writes to Weights & Biases, with `global_step` as the only x axis.

    Args:
        config: Mode and names.
        folder: Run folder; local files go below it.
        name: Run name, with the seed.
        group: Run name without the seed, so that seeds are averaged.
        run_config: The resolved config, nested.
        job_type: The command.

    Raises:
        ConfigError: If W&B cannot start, for example online without an account.
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
    ):
        import wandb  # half a second to import, and most runs do not track

        run_id = folder / "wandb_id.txt"
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self._run = wandb.init(
                mode=config.mode,
                project=config.project,
                entity=config.entity,
                tags=list(config.tags),
                name=name,
                group=group,
                job_type=job_type,
                dir=folder,
                config=dict(run_config),
                id=run_id.read_text().strip() if run_id.exists() else None,
                resume="allow" if config.mode == "online" else None,
            )
        except wandb.Error as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"W&B did not start ({line}); try --wandb.mode offline") from None
        run_id.write_text(self._run.id)
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")
        objective, kept = OBJECTIVE[job_type]
        self._run.define_metric(objective, step_metric="global_step", summary=kept)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`."""
        self._run.log({"global_step": step, **metrics})

    def close(self, summary: Mapping[str, Any]) -> None:
        """Puts the result into the run's summary and ends it."""
        self._run.summary.update({f"result/{key}": value for key, value in summary.items()})
        self._run.finish()


class TensorBoardTracker:
    """Writes TensorBoard event files under the same metric names.

    Args:
        folder: Run folder; files go to `tensorboard/` below it.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("TensorBoard is not installed; install sparserl[tensorboard]") from None
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics at `global_step` `step`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Ends the file."""
        del summary
        self._writer.close()
