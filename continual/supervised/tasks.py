"""What a task, a sequence of tasks, and a batch of labelled samples are.

Decides what the three scenarios mean for outputs and labels. Independent of where data comes from, what learns it, and
how forgetting is fought.

Source:
    van de Ven et al. 2022, "Three types of incremental learning"; Hsu et al. 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from sparserl.layers.sparse_cnn import ImageShape

Scenario = Literal["class", "task", "domain"]
"""`class`: one head, choose among all classes seen so far. `task`: the task is given, choose among its classes.
`domain`: all tasks share the same outputs."""

Integers = npt.NDArray[np.int64]
ForEach = float | npt.NDArray[np.float32]
"""One number for all features, or (F,) one for each."""


@dataclass(frozen=True)
class Part:
    """Labelled samples, as stored.

    Attributes:
        features: (N, F) uint8.
        labels: (N,) int64 class ids.
        image: Channels, height and width of a sample, where the file of pictures says them.
    """

    features: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    image: ImageShape | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples of one task; they are standardised when they are taken, so tasks can share one array.

    Attributes:
        features: (N, F) uint8 or float32, as stored.
        rows: (n,) int64 which of them.
        labels: (n,) int64 output unit of each of the n.
        mean: Subtracted from `features * scale`; (F,) in the order in which features are stored.
        std: Divides the difference, likewise.
        scale: Multiplies stored features first, 1/255 for pictures.
        order: (F,) int64, feature k is the stored feature `order[k]`; None as stored.
    """

    features: npt.NDArray[Any]
    rows: Integers
    labels: Integers
    mean: ForEach
    std: ForEach
    scale: float = 1.0
    order: Integers | None = None

    def __len__(self) -> int:
        return int(self.rows.size)

    def bytes_of(self, count: int) -> int:
        """Bytes of `count` of them, as stored, with their labels and tasks as int64."""
        return count * int(self.features.shape[1] * self.features.itemsize + 8 + 8)

    def take(self, indices: Integers | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, F) float32, standardised, and labels (B,) int64 of the samples at `indices` in [0, n)."""
        stored = self.features[self.rows[indices]]
        if self.order is not None:
            stored = stored[:, self.order]
        x = torch.from_numpy(stored.astype(np.float32)).mul_(self.scale)
        return x.sub_(self._ordered(self.mean)).div_(self._ordered(self.std)), torch.tensor(self.labels[indices])

    def _ordered(self, numbers: ForEach) -> float | torch.Tensor:
        if isinstance(numbers, float):
            return numbers
        return torch.from_numpy(numbers if self.order is None else numbers[self.order])


@dataclass(frozen=True, eq=False)
class Task:
    """One task.

    Attributes:
        index: In the sequence, from 0.
        name: What it is, e.g. `"classes 2 3"` or `"permutation 4"`.
        classes: Original class ids.
        outputs: Output units of these classes, in the same order.
        train: Training samples.
        test: Held-out samples.
        validation: Samples held out of the training samples, to choose by; None if there are none.
    """

    index: int
    name: str
    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    train: Samples
    test: Samples
    validation: Samples | None = None

    @property
    def parts(self) -> list[Samples]:
        """Its training, test and validation samples, as far as there are any."""
        return [self.train, self.test, *([] if self.validation is None else [self.validation])]


@dataclass(frozen=True, eq=False)
class TaskSequence:
    """Tasks in the order in which they are learned.

    Attributes:
        name: Name in `SEQUENCES`.
        scenario: How outputs and tasks relate.
        tasks: At least one.
        n_features: Inputs of the network.
        n_outputs: Outputs of the network.
        record: How the seed made it (order of classes, permutations), as plain data for the run's record.
        feature_names: Of the inputs, if they have some.
        image: Channels, height and width of a sample, if it is a picture; inputs have this order.
    """

    name: str
    scenario: Scenario
    tasks: tuple[Task, ...]
    n_features: int
    n_outputs: int
    record: dict[str, Any]
    feature_names: tuple[str, ...] | None = None
    image: ImageShape | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    def competing(self, task: int, after: int) -> tuple[int, ...]:
        """Output units among which the class of a sample of `task` is chosen once tasks 0..`after` are learned."""
        if self.scenario == "task":
            return self.tasks[task].outputs
        if self.scenario == "domain":
            return tuple(range(self.n_outputs))
        return tuple(sorted({unit for seen in self.tasks[: after + 1] for unit in seen.outputs}))


@dataclass(frozen=True, eq=False)
class Batch:
    """Labelled samples, ready for a network.

    Attributes:
        x: (B, F) float32.
        y: (B,) int64 output units.
        task: (B,) int64 task that each sample is of.
        index: (B,) int64 which of the samples of its task each one is.
    """

    x: torch.Tensor
    y: torch.Tensor
    task: torch.Tensor
    index: torch.Tensor

    def __len__(self) -> int:
        return self.y.numel()

    @classmethod
    def of(cls, task: int, samples: Samples, indices: Integers | slice) -> Batch:
        """The samples of one task at `indices`."""
        x, y = samples.take(indices)
        index = np.arange(len(samples))[indices] if isinstance(indices, slice) else indices
        return cls(x, y, torch.full_like(y, task), torch.from_numpy(index))

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """All samples of some batches, in order."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            torch.cat([batch.x for batch in batches]),
            torch.cat([batch.y for batch in batches]),
            torch.cat([batch.task for batch in batches]),
            torch.cat([batch.index for batch in batches]),
        )

    def __getitem__(self, indices: torch.Tensor) -> Batch:
        return Batch(self.x[indices], self.y[indices], self.task[indices], self.index[indices])
