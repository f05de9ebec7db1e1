"""Samples of earlier tasks that a classifier keeps.

A sample is kept as its index in the training data, which the sequence holds in any case; its size is that of a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sparserl.continual.supervised.tasks import Batch, Integers, TaskSequence
from sparserl.seeding import stream


class SampleMemory:
    """Training samples of earlier tasks, chosen when a task ends.

    Args:
        sequence: What the samples are of.
        seed: Root seed of what is kept and drawn.

    Attributes:
        indices: Of each group of samples, a task or a class of one, the (k,) int64 indices among the training samples
            of its task, in the order in which they stay where fewer may.
        tasks: The task of each group.
    """

    def __init__(self, sequence: TaskSequence, seed: int):
        self._sequence, self._seed = sequence, seed
        self.indices: list[Integers] = []
        self.tasks: list[int] = []

    def __len__(self) -> int:
        return sum(group.size for group in self.indices)

    def keep(self, count: int) -> None:
        """Adds up to `count` samples of the next task, drawn without replacement, and leaves as many of earlier ones.

        All groups must be tasks.
        """
        task = len(self.indices)
        drawn = stream(self._seed, "kept_samples", str(task)).permutation(len(self._sequence.tasks[task].train))
        self.keep_first(task, [drawn], count)

    def keep_first(self, task: int, groups: Sequence[Integers], count: int) -> None:
        """Adds the first `count` samples of each group of a task, and leaves as many of each earlier group."""
        self.indices = [group[:count] for group in [*self.indices, *groups]]
        self.tasks = [*self.tasks, *[task] * len(groups)]

    def batch(self, size: int, step: int) -> Batch:
        """`size` samples, each drawn uniformly among all, with replacement; `step` says which draw it is."""
        chosen = np.sort(stream(self._seed, "memory_batch", str(step)).integers(len(self), size=size))
        return samples_at(self._sequence, self._task_of_each[chosen], np.concatenate(self.indices)[chosen])

    @property
    def _task_of_each(self) -> Integers:
        """(samples,) its task."""
        return np.repeat(np.array(self.tasks, np.int64), [group.size for group in self.indices])

    def sizes(self) -> dict[str, int]:
        """Bytes of the samples."""
        return {"samples": bytes_of(self._sequence, self._task_of_each)}

    def numbers(self) -> int:
        """Features and labels of the samples."""
        return len(self) * (self._sequence.n_features + 1)

    def state_dict(self) -> dict[str, Any]:
        """Which samples are kept."""
        return {"places": [torch.from_numpy(group) for group in self.indices], "tasks": list(self.tasks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps these samples."""
        self.indices = [group.numpy() for group in state["places"]]
        self.tasks = list(state.get("tasks", range(len(self.indices))))  # older checkpoints have a group a task


class ReservoirMemory:
    """Samples with the network's outputs on them, each of those learned from kept with the same probability.

    A sample that is learned from several times counts as often, each time with its outputs of that moment.

    Args:
        sequence: What the samples are of.
        capacity: Most samples.
        seed: Root seed of what is kept and drawn.

    Attributes:
        tasks: (k,) int64 task of each sample.
        indices: (k,) int64 which of the task's training samples it is.
        outputs: (k, n_outputs) float32 of the network when it was kept.
        seen: Samples that might have been kept so far.

    Source:
        Vitter 1985, algorithm R.
    """

    def __init__(self, sequence: TaskSequence, capacity: int, seed: int):
        self._sequence, self._capacity, self._seed = sequence, capacity, seed
        self.tasks, self.indices = np.empty(0, np.int64), np.empty(0, np.int64)
        self.outputs = np.empty((0, sequence.n_outputs), np.float32)
        self.seen = 0

    def __len__(self) -> int:
        return int(self.indices.size)

    def add(self, batch: Batch, outputs: torch.Tensor) -> None:
        """Keeps each sample of a batch, with its (B, n_outputs) outputs, with probability capacity / samples so far."""
        numbers = self.seen + np.arange(len(batch))
        drawn = stream(self._seed, "reservoir", str(self.seen)).integers(numbers + 1)
        self.seen += len(batch)
        slots = np.where(numbers < self._capacity, numbers, drawn)
        rows = np.flatnonzero(slots < self._capacity)
        more = min(self.seen, self._capacity) - len(self)
        for name, given in (("tasks", batch.task), ("indices", batch.index), ("outputs", outputs)):
            kept: Any = getattr(self, name)
            kept = np.concatenate([kept, np.empty((more, *kept.shape[1:]), kept.dtype)])
            kept[slots[rows]] = given.numpy()[rows]  # of several with one slot the last one stays
            setattr(self, name, kept)

    def batch(self, size: int, step: int) -> tuple[Batch, torch.Tensor]:
        """`size` samples and their outputs, drawn as those of `SampleMemory`."""
        chosen = stream(self._seed, "memory_batch", str(step)).integers(len(self), size=size)
        batch = samples_at(self._sequence, self.tasks[chosen], self.indices[chosen])
        return batch, torch.from_numpy(self.outputs[chosen])

    def sizes(self) -> dict[str, int]:
        """Bytes of the samples, and of their outputs."""
        return {"samples": bytes_of(self._sequence, self.tasks), "outputs": self.outputs.nbytes}

    def numbers(self) -> int:
        """Features, labels and outputs of the samples, and how many were seen."""
        return len(self) * (self._sequence.n_features + 1 + self._sequence.n_outputs) + 1

    def state_dict(self) -> dict[str, Any]:
        """Which samples are kept with which outputs, and how many were seen."""
        kept = {name: torch.from_numpy(getattr(self, name)) for name in ("tasks", "indices", "outputs")}
        return {**kept, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with these."""
        self.tasks, self.indices, self.outputs = (state[name].numpy() for name in ("tasks", "indices", "outputs"))
        self.seen = state["seen"]


def samples_at(sequence: TaskSequence, tasks: Integers, indices: Integers) -> Batch:
    """Training samples of a sequence, in the order given.

    Args:
        sequence: The tasks.
        tasks: (B,) task of each sample, B >= 1.
        indices: (B,) which of its training samples it is.
    """
    parts = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    batch = Batch.joined(
        [Batch.of(int(tasks[part[0]]), sequence.tasks[tasks[part[0]]].train, indices[part]) for part in parts]
    )
    return batch if len(parts) == 1 else batch[torch.from_numpy(np.argsort(np.concatenate(parts)))]


def bytes_of(sequence: TaskSequence, tasks: Integers) -> int:
    """Bytes of samples of these tasks."""
    return sum(sequence.tasks[task].train.bytes_of(int(count)) for task, count in enumerate(np.bincount(tasks)))
