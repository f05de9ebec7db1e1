"""Training on all tasks so far at once: what a continual learner could reach if it kept everything."""

from __future__ import annotations

from typing import Any

from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.strategies.replay import sample_bytes
from sparserl.continual.supervised.strategy import Strategy


class Joint(Strategy):
    """At each task a network starts anew from the same initial weights, and is trained on all tasks up to this one.

    So row t of the accuracy matrix is the joint model of tasks 0..t, which intransigence compares with. The optimizer
    starts anew too, whatever the learner's options say.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._learned = 0

    def trained_tasks(self, task: int) -> range:
        """All so far."""
        return range(task + 1)

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Forgets everything."""
        learner.network.load_state_dict(learner.new_network().state_dict())
        learner.optimizer = learner.new_optimizer()

    def end_task(self, learner: SupervisedLearner) -> None:
        """Keeps all samples of the task."""
        self._learned = learner.task + 1

    def state_dict(self) -> dict[str, Any]:
        """The number of tasks whose samples are kept."""
        return {"learned": self._learned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it."""
        self._learned = state["learned"]

    def memory(self) -> dict[str, int]:
        """Bytes of the samples of all tasks so far."""
        finished = self.sequence.tasks[: self._learned]
        return {"samples": sum(sample_bytes(task.train, len(task.train)) for task in finished)}
