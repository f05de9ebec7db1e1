"""What every classifier of a sequence of tasks does, however it learns: one batch after another, and evaluation.

Decides how the position in a sequence is kept, so that a run can stop after any step. What a step does, the learner
decides; what fights forgetting is a `Strategy`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from sparserl.continual.learner import Kind
from sparserl.continual.shared.activity import summed_activity
from sparserl.continual.shared.numbers import count_numbers
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.tasks import Batch, Samples, TaskSequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.seeding import stream
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import FloatArray

SAMPLES_AT_A_TIME = 2000
"""Batch of evaluation, at most."""
ACTIVATIONS_AT_A_TIME = 2**22
"""Of the widest layer, in evaluation."""


@dataclass(frozen=True)
class Step:
    """One step of training.

    Attributes:
        task: Task that was trained.
        epoch: Epoch in it, from 0.
        epochs: Epochs of the task.
        batch: Batch in the epoch, from 0.
        batches: Batches of the epoch.
        loss: What was differentiated, before the step: the cross-entropy, for most methods; None without gradients.
    """

    task: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float | None

    @property
    def losses(self) -> dict[str, float]:
        """As they are logged."""
        return {} if self.loss is None else {"train/loss": self.loss}

    @property
    def shown(self) -> dict[str, str]:
        """As a progress bar shows them."""
        return {name.removeprefix("train/"): f"{loss:.3f}" for name, loss in self.losses.items()}


class TaskLearner:
    """Learns the tasks of a sequence one after the other.

    Args:
        sequence: The tasks.
        strategy: The continual method.
        batch_size: Samples a step.
        seed: Root seed of everything random.

    Attributes:
        task: Task that is being, or will next be, learned.
        epoch: Epoch in it that the next step belongs to.
        batch: Batch of that epoch that the next step takes.
        steps: Steps so far.
        evolver: Moves connections of its network; None where they stay.
    """

    evolver: TopologyEvolver | None = None
    kind: Kind = "classifier"
    open_state: ClassVar[frozenset[str]] = frozenset({"strategy"})
    """Keys of `state_dict` whose values have not the same keys at all times."""

    def __init__(self, sequence: TaskSequence, strategy: Strategy, batch_size: int, *, seed: int):
        self.sequence, self.strategy, self.batch_size, self.seed = sequence, strategy, batch_size, seed
        self.task = self.epoch = self.batch = self.steps = 0
        self._begun = False

    @property
    def n_tasks(self) -> int:
        """Tasks of the sequence."""
        return len(self.sequence)

    # Training.

    def train(self) -> Iterator[Step]:
        """Trains the present task from where it stands to the end of its last epoch, a step at a time.

        The learner is whole whenever this yields: its `state_dict` continues exactly there.
        """
        if not self._begun:
            self._begin_task()
            self._begun = True
        epochs = self.epochs_of(self.task)
        while not self.is_trained:
            order = self._order()
            batches = math.ceil(order.size / self.batch_size)
            while True:
                epoch, batch = self.epoch, self.batch
                self._before_step(epoch * batches + batch)
                loss = self._step(self._batch(order[batch * self.batch_size : (batch + 1) * self.batch_size]))
                self.steps += 1
                self.batch += 1
                if self.batch == batches:
                    self._end_epoch()
                    self.epoch, self.batch = epoch + 1, 0
                yield Step(self.task, epoch, epochs, batch, batches, loss)
                if self.batch == 0:
                    break

    @property
    def is_trained(self) -> bool:
        """Whether the training of the present task is over."""
        return self.epoch >= self.epochs_of(self.task)

    def finish_task(self) -> None:
        """Ends the present task, after `train`; the next one becomes present."""
        self._end_task()
        self.task, self.epoch, self.batch, self._begun = self.task + 1, 0, 0, False

    @abstractmethod
    def epochs_of(self, task: int) -> int:
        """Passes through the samples of a task."""

    def steps_of(self, task: int) -> int:
        """Steps of a task."""
        return math.ceil(self._samples_of(task) / self.batch_size) * self.epochs_of(task)

    @property
    def total_steps(self) -> int:
        """Steps of the whole sequence."""
        return sum(map(self.steps_of, range(self.n_tasks)))

    def _begin_task(self) -> None:
        """Before the first step of the present task."""

    def _before_step(self, step: int) -> None:
        """Before a step of the present task, counted from 0."""

    @abstractmethod
    def _step(self, batch: Batch) -> float | None:
        """Learns from a batch; gives its loss if there is one."""

    def _end_epoch(self) -> None:
        """After the last step of an epoch."""

    def _end_task(self) -> None:
        """After the last step of the present task, before it is evaluated."""

    def _samples_of(self, task: int) -> int:
        """Training samples of an epoch of a task."""
        return sum(len(self.sequence.tasks[one].train) for one in self.strategy.trained_tasks(task))

    def _order(self) -> np.ndarray:
        """Order of the samples of the present epoch, all tasks that are trained one after the other."""
        return stream(self.seed, "batches", str(self.task), str(self.epoch)).permutation(self._samples_of(self.task))

    def _batch(self, indices: np.ndarray) -> Batch:
        parts, first = [], 0
        for task in self.strategy.trained_tasks(self.task):
            samples = self.sequence.tasks[task].train
            inside = indices[(indices >= first) & (indices < first + len(samples))] - first
            if inside.size:
                parts.append(Batch.of(task, samples, inside))
            first += len(samples)
        return Batch.joined(parts)

    # Evaluation.

    def accuracy(self, task: int) -> float:
        """Share of the task's test samples that are classified correctly; NaN if none of its outputs was trained.

        In the class-incremental scenario all classes of the tasks learned so far compete.
        """
        return self.accuracy_on(task, self.sequence.tasks[task].test, self.task - 1)

    @torch.no_grad()
    def accuracy_on(self, task: int, samples: Samples, last: int) -> float:
        """The same on other samples of a task, where `last` is the last task whose classes compete."""
        competing = self.sequence.competing(task, last)
        if not set(self.sequence.tasks[task].outputs) <= set(competing):
            return math.nan
        closed = closed_outputs([competing], self.sequence.n_outputs)
        outputs = self.outputs_of_task(task, samples)
        return sum(int(((logits + closed).argmax(dim=1) == y).sum()) for logits, y in outputs) / len(samples)

    @abstractmethod
    def outputs_of_task(self, task: int, samples: Samples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, n_outputs) outputs for samples of a task and (B,) units of the right classes, a part at a time.

        Called without gradients.
        """

    def parts_of(self, samples: Samples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, F) features and (B,) labels of all samples, as many at a time as their activations leave memory for."""
        size = max(1, min(SAMPLES_AT_A_TIME, ACTIVATIONS_AT_A_TIME // self.widest))
        for start in range(0, len(samples), size):
            yield samples.take(slice(start, start + size))

    @property
    def widest(self) -> int:
        """Features or neurons of the widest layer."""
        return self.sequence.n_features

    def training_accuracy(self) -> float:
        """`accuracy` on the training samples of the present task, whose classes compete with those before."""
        return self.accuracy_on(self.task, self.sequence.tasks[self.task].train, self.task)

    def activity(self) -> tuple[dict[int, list[FloatArray]], dict[int, int]]:
        """`summed_activity` of the network that is trained, on the training samples of the present task, by output."""
        return summed_activity(self.answering(None), self.parts_of(self.sequence.tasks[self.task].train))

    def accuracies(self) -> list[float]:
        """`accuracy` of every task of the sequence."""
        return [self.accuracy(task) for task in range(len(self.sequence))]

    # What is recorded of it.

    @property
    @abstractmethod
    def about(self) -> str:
        """How large it is, in words."""

    @property
    def networks(self) -> list[TaskNetwork]:
        """Networks that are trained."""
        return []

    def usage(self) -> list[ConnectionUsage]:
        """Who uses each layer of its networks now."""
        return []

    @property
    def began(self) -> int:
        """Steps before the present network, and the clock of its topology, began."""
        return 0

    def answering(self, task: int | None) -> SparseMLP:
        """The network that answers for a task; for none, the one that is trained.

        Raises:
            ConfigError: If there is none.
        """
        del task
        raise ConfigError("no network was trained in this run")

    @property
    def sparse_layers(self) -> dict[str, SparseLinear]:
        """Those that gradients flow through, by full name."""
        return {}

    @abstractmethod
    def weights(self) -> Mapping[str, torch.Tensor]:
        """What must be finite, by name."""

    @property
    @abstractmethod
    def params_nonzero(self) -> int:
        """Connections in use, and biases."""

    @abstractmethod
    def size(self) -> dict[str, Any]:
        """What `result.json` says of what it has learned: parameters, connections, bytes."""

    def numbers_kept(self) -> int:
        """Numbers that are needed to answer for all tasks so far and to learn the next one.

        Those of a checkpoint, between two tasks, but for what begins anew with each (an optimizer, importances to the
        task, what is frozen, which follows from owners); and those of samples of earlier tasks, with their labels.
        """
        again = [self.sequence.tasks[one].train for one in self.strategy.trained_tasks(self.task) if one < self.task]
        samples = sum(len(one) for one in again) * (self.sequence.n_features + 1)
        return samples + self.strategy.numbers_kept() + sum(map(count_numbers, self._kept().values()))

    def _kept(self) -> Mapping[str, Any]:
        """What of `state_dict` beside the strategy's is needed for more than a resumed run."""
        return {}

    # State.

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, as a tree that `sparserl.recording.checkpoint` writes."""
        position = [self.task, self.epoch, self.batch, self.steps, self._begun]
        return {"position": position, "strategy": self.strategy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken, in a learner built with the same arguments."""
        self._load_position(state)
        self.strategy.load_state_dict(state["strategy"])

    def _load_position(self, state: dict[str, Any]) -> None:
        self.task, self.epoch, self.batch, self.steps, self._begun = state["position"]


def closed_outputs(competing: Iterable[Iterable[int]], n_outputs: int) -> torch.Tensor:
    """(rows, n_outputs) 0 for outputs that compete, -inf for the others."""
    rows = [list(units) for units in competing]
    closed = torch.full((len(rows), n_outputs), -math.inf)
    for row, units in enumerate(rows):
        closed[row, units] = 0.0
    return closed
