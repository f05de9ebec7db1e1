"""The one loop over a sequence of tasks. Evaluation happens here; logs, checkpoints and progress are consumers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparserl.continual.supervised import Step, SupervisedLearner


@dataclass(frozen=True)
class SequenceStarted:
    """Nothing is learned yet.

    Attributes:
        accuracies: (T,) at random initialisation, NaN where undefined.
    """

    accuracies: list[float]


@dataclass(frozen=True)
class TaskEnded:
    """A task is learned and every task of the sequence was evaluated.

    Attributes:
        task: The one that was learned.
        accuracies: (T,) one row of the accuracy matrix, NaN where undefined.
    """

    task: int
    accuracies: list[float]


Event = SequenceStarted | Step | TaskEnded


def run_sequence(learner: SupervisedLearner) -> Iterator[Event]:
    """Learns the rest of the learner's sequence, from wherever it stands.

    Whenever an event is out, the learner is whole: its state can be saved, and this be called again on it.
    """
    if learner.steps == 0:
        yield SequenceStarted(learner.accuracies())
    while learner.task < len(learner.sequence):
        yield from learner.train()
        task = learner.task
        learner.finish_task()
        yield TaskEnded(task, learner.accuracies())
