"""A trained agent with fewer connections, as a run of its own that is finished when it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparserl.agents.run_recorder import RunRecorder
from sparserl.config import plain
from sparserl.experiment.agent_training import AgentTraining
from sparserl.experiment.origin import Origin
from sparserl.experiment.resolving import resolve
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.training import Source
from sparserl.recording.run_folder import USUAL_CHECKPOINT, WhichCheckpoint
from sparserl.recording.trackers import WandbConfig


class PruneRecorder(RunRecorder):
    """Records a run that takes no step: one evaluation, and no checkpoint to go on from."""

    def save_checkpoint(self) -> None:
        """None: what is done needs none."""

    def result(self) -> dict[str, Any]:
        """Without what belongs to the training of the run before, which this one has not seen."""
        return {**super().result(), **dict.fromkeys(("flops_train", "flops_train_short", "steps_per_second"))}


class PruneTraining(AgentTraining):
    """An agent that is evaluated as it was pruned, at the env step at which it had been saved."""

    recorder = PruneRecorder

    @classmethod
    def begin(cls, config: TrainConfig, source: Source) -> PruneTraining:
        training = super().begin(config, source)
        assert isinstance(training, PruneTraining)
        return training

    def begin_with(self, origin: Origin) -> None:
        super().begin_with(origin)
        self.agent.num_timesteps = origin.step

    def learn(self, *, is_new: bool) -> None:
        del is_new
        self.agent.learn(0, callback=self._recorder, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]  # as there


def pruned_config(
    run: Path, density: float, by: str, *, checkpoint: WhichCheckpoint = USUAL_CHECKPOINT, episodes: int = 10
) -> TrainConfig:
    """The config of a run that is another one, pruned; no tracker is told of it.

    Args:
        run: Folder of a run of `sparserl train`.
        density: Of each network afterwards, in (0, 1).
        by: Name in `sparserl.topology.pruning.PRUNE`.
        checkpoint: Which of its policies.
        episodes: Of its evaluation.

    Raises:
        SparserlError: As `resolve`.
    """
    origin = {"run": str(run), "checkpoint": checkpoint, "prune_by": by}
    untracked = {"track": False, "tensorboard": False, "wandb": plain(WandbConfig())}
    evaluated = {"eval": {"episodes": episodes}, "measure_learning": "never"}
    wish = {"origin": origin, "topology": {"density": density}, **evaluated, **untracked}
    config = resolve("train", wish).resolved()
    assert isinstance(config, TrainConfig)
    return config
