"""The one loop over a sequence of tasks; evaluation, logs, checkpoints and progress are consumers."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

Progress = TypeVar("Progress", covariant=True)
"""What a learner says of a step."""


class Learner(Protocol[Progress]):
    """What is trained on a sequence, a step at a time."""

    task: int

    @property
    def sequence(self) -> Sized:
        """The tasks."""

    @property
    def steps(self) -> int:
        """Steps so far."""

    def train(self) -> Iterator[Progress]:
        """Trains the present task from where it stands to its end; whole whenever this yields."""

    def finish_task(self) -> None:
        """Ends the present task; the next one becomes present."""


@dataclass(frozen=True)
class SequenceStarted:
    """Nothing is learned yet."""


@dataclass(frozen=True)
class TaskEnded:
    """A task is learned.

    Attributes:
        task: The one.
    """

    task: int


def run_sequence(learner: Learner[Progress]) -> Iterator[SequenceStarted | Progress | TaskEnded]:
    """Learns the rest of the learner's sequence, from wherever it stands.

    Whenever an event is out, the learner is whole: its state can be saved, and this be called again on it.
    """
    if learner.steps == 0:
        yield SequenceStarted()
    while learner.task < len(learner.sequence):
        yield from learner.train()
        task = learner.task
        learner.finish_task()
        yield TaskEnded(task)
