"""What recorders of classifiers share: logs of steps, checkpoints, and the data that a run must find again.

It draws nothing at random, so a recorded run learns exactly as an unrecorded one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded
from sparserl.continual.supervised.sequence_recorder import BaseSequenceRecorder
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Samples, TaskSequence
from sparserl.errors import CheckpointError, NotFiniteError
from sparserl.metrics.gradients import gradient_metrics
from sparserl.recording import checkpoint
from sparserl.recording.finite import check_losses, check_weights
from sparserl.recording.run_folder import RunFolder, check_is_of_run, remove_stale_checkpoints, step_name
from sparserl.recording.state_structure import ANYTHING, check_structure
from sparserl.topology.evolver import TopologyEvolver


class ClassifierRecorder(BaseSequenceRecorder[SupervisedLearner]):
    """Records one run of a classifier into its folder; it draws nothing at random.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        log_every_steps: Gradient steps between rows of progress.csv.
        checkpoint_every_steps: Gradient steps between checkpoints.
        recorder: Further arguments of `Recorder`.
    """

    def __init__(
        self,
        learner: SupervisedLearner,
        folder: RunFolder,
        *,
        log_every_steps: int,
        checkpoint_every_steps: int,
        **recorder: Any,
    ):
        super().__init__(learner, folder, total_steps=learner.total_steps, **recorder)
        self.log_every_steps, self.checkpoint_every_steps = log_every_steps, checkpoint_every_steps
        self._data = checksum(learner.sequence)

    @property
    def evolver(self) -> TopologyEvolver | None:
        """That of the learner, if it has one."""
        return self.learner.evolver

    def _step_of(self, event: Mapping[str, Any]) -> int:
        return self.learner.began + int(event["update"])  # gradient steps are the x axis here

    # What happens at an event.

    def _check_losses(self, event: SequenceStarted | Step | TaskEnded) -> None:
        if isinstance(event, Step):
            check_losses(self.learner.steps, event.losses)

    def _check_network(self) -> None:
        check_weights(self.learner.steps, self.learner.weights())

    def _log_is_due(self, step: Step) -> bool:
        ends_task = (step.epoch + 1, step.batch + 1) == (step.epochs, step.batches)
        return self.learner.steps % self.log_every_steps == 0 or ends_task

    def _of_gradients(self) -> dict[str, float]:
        """`gradient_metrics` of the latest step, whose samples are not kept."""
        return gradient_metrics(self.learner.sparse_layers)

    def _save_if_due(self) -> None:
        if self.learner.steps % self.checkpoint_every_steps == 0:
            self.save_checkpoint()

    # Checkpoints.

    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on; keeps the newest checkpoints."""
        self._check_network()
        state = {
            "global_step": self.learner.steps,
            "run": self.identity,
            "data": self._data,
            "learner": self.learner.state_dict(),
            "recorder": self._state(),
        }
        checkpoint.save(self.folder.checkpoints / step_name(self.learner.steps), state)
        remove_stale_checkpoints(self.folder)

    def save_not_finite(self, error: NotFiniteError) -> Path:
        state = {"global_step": self.learner.steps, "what": str(error), "seen": error.seen}
        checkpoint.save(self.folder.not_finite, {**state, "learner": self.learner.state_dict()})
        return self.folder.not_finite

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the learner and this recorder where a checkpoint was taken.

        Args:
            state: The checkpoint.

        Raises:
            CheckpointError: If it belongs to another run, or the data has changed since.
        """
        check_is_of_run(state, self.identity)
        learner = self.learner.state_dict()
        learner |= dict.fromkeys(set(learner) & self.learner.open_state, ANYTHING)
        run = {"run": ANYTHING, "data": "", "learner": learner}
        expected = {"global_step": 0, **run, "recorder": self._expected()}
        check_structure(state, expected)
        check_data(state, self.learner.sequence)
        self.learner.load_state_dict(state["learner"])
        self._load(state["recorder"])


def check_data(state: Mapping[str, Any], sequence: TaskSequence) -> None:
    """Raises CheckpointError if what a checkpoint has was learned from other samples than those of a sequence."""
    if state.get("data") != checksum(sequence):
        raise CheckpointError(f"the data of {sequence.name} is not what it was when the run began; see --data-dir")


def checksum(sequence: TaskSequence) -> str:
    """SHA-256 of everything that can be learned from a sequence: its samples, as tasks present them."""
    digest = hashlib.sha256(repr((sequence.name, sequence.scenario, len(sequence))).encode())
    hashed: set[int] = set()  # tasks share arrays
    for task in sequence.tasks:
        digest.update(repr((task.classes, task.outputs)).encode())
        for samples in task.parts:
            numbers = [one for one in (samples.mean, samples.std, samples.scale) if isinstance(one, float)]
            digest.update(repr((*numbers, samples.features.shape)).encode())
            for array in _arrays(samples):
                if id(array) not in hashed:
                    hashed.add(id(array))
                    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(samples: Samples) -> list[np.ndarray]:
    every = (samples.features, samples.rows, samples.labels, samples.order, samples.mean, samples.std)
    return [one for one in every if isinstance(one, np.ndarray)]
