"""Samples of earlier tasks that a classifier keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sparserl.continual.supervised.tasks import Batch, Integers, TaskSequence
from sparserl.seeding import stream


class SampleMemory:
    """Training samples of earlier tasks, drawn at random when a task ends.

    A sample is kept as its index in the training data, which the sequence holds in any case; its size is that of a
    copy.

    Args:
        sequence: What the samples are of.
        seed: Root seed of what is kept and drawn.

    Attributes:
        indices: (k,) int64 indices in the training samples of each task so far, in random order.
    """

    def __init__(self, sequence: TaskSequence, seed: int):
        self._sequence, self._seed = sequence, seed
        self.indices: list[Integers] = []

    def __len__(self) -> int:
        return sum(of_task.size for of_task in self.indices)

    def keep(self, count: int) -> None:
        """Adds up to `count` samples of the next task, without replacement, and leaves as many of each earlier one."""
        task = len(self.indices)
        drawn = stream(self._seed, "kept_samples", str(task)).permutation(len(self._sequence.tasks[task].train))
        self.indices = [of_task[:count] for of_task in [*self.indices, drawn]]

    def batch(self, size: int, step: int) -> Batch:
        """`size` samples, each drawn uniformly among all, with replacement; `step` says which draw it is."""
        chosen = np.sort(stream(self._seed, "memory_batch", str(step)).integers(len(self), size=size))
        ends = np.cumsum([of_task.size for of_task in self.indices])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        return Batch.joined(
            [
                Batch.of(task, self._sequence.tasks[task].train, of_task[part - (end - of_task.size)])
                for task, (of_task, part, end) in enumerate(zip(self.indices, parts, ends, strict=True))
                if part.size
            ]
        )

    def sizes(self) -> dict[str, int]:
        """Bytes of the samples."""
        tasks = self._sequence.tasks[: len(self.indices)]
        return {"samples": sum(task.train.bytes_of(one.size) for task, one in zip(tasks, self.indices, strict=True))}

    def numbers(self) -> int:
        """Features and labels of the samples."""
        return len(self) * (self._sequence.n_features + 1)

    def state_dict(self) -> dict[str, Any]:
        """Which samples are kept."""
        return {"places": [torch.from_numpy(of_task) for of_task in self.indices]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps these samples."""
        self.indices = [of_task.numpy() for of_task in state["places"]]
