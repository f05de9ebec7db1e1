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

    A sample is kept as its place in the training data, which the sequence holds in any case; its size is that of a
    copy.

    Args:
        sequence: What the samples are of.
        seed: Root seed of what is kept and drawn.

    Attributes:
        places: (k,) int64 places in the training samples of each task so far, in random order.
    """

    def __init__(self, sequence: TaskSequence, seed: int):
        self._sequence, self._seed = sequence, seed
        self.places: list[Integers] = []

    def __len__(self) -> int:
        return sum(own.size for own in self.places)

    def keep(self, count: int) -> None:
        """Adds up to `count` samples of the next task, without replacement, and leaves as many of each earlier one."""
        task = len(self.places)
        drawn = stream(self._seed, "kept_samples", str(task)).permutation(len(self._sequence.tasks[task].train))
        self.places = [own[:count] for own in [*self.places, drawn]]

    def batch(self, size: int, step: int) -> Batch:
        """`size` samples, each drawn uniformly among all, with replacement; `step` says which draw it is."""
        chosen = np.sort(stream(self._seed, "memory_batch", str(step)).integers(len(self), size=size))
        ends = np.cumsum([own.size for own in self.places])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        return Batch.joined(
            [
                Batch.of(task, self._sequence.tasks[task].train, own[part - (end - own.size)])
                for task, (own, part, end) in enumerate(zip(self.places, parts, ends, strict=True))
                if part.size
            ]
        )

    def sizes(self) -> dict[str, int]:
        """Bytes of the samples."""
        tasks = self._sequence.tasks[: len(self.places)]
        return {"samples": sum(task.train.bytes_of(own.size) for task, own in zip(tasks, self.places, strict=True))}

    def state_dict(self) -> dict[str, Any]:
        """Which samples are kept."""
        return {"places": [torch.from_numpy(own) for own in self.places]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps these samples."""
        self.places = [own.numpy() for own in state["places"]]
