"""Methods that learn by sums over samples, in one pass: no gradient, nothing to forget, in whatever order samples come.

What a method keeps is what its state holds. Symmetric matrices are kept as their triangle.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.tasks import TaskSequence

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
Scores = Callable[[Floats], Floats]
"""(B, F) features -> (B, n_outputs): the highest, of the outputs that compete, is the answer."""


class ClosedForm(Strategy):
    """Learns from batches of samples and answers by scores of the outputs; has no network that is trained.

    Attributes:
        arrays: What is kept of all samples so far, by name.
    """

    has_network: ClassVar[bool] = False

    def start(self, sequence: TaskSequence, seed: int) -> None:
        """Gets to know the sequence, of which nothing is learned yet.

        Args:
            sequence: The tasks.
            seed: Root seed of what is drawn before anything is learned.

        Raises:
            ConfigError: If the method cannot learn this sequence.
        """
        self.arrays = self._zeros(sequence.n_features, sequence.n_outputs, seed)

    @abstractmethod
    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        """`arrays` before the first sample."""

    @abstractmethod
    def learn(self, x: Floats, y: Units) -> None:
        """Learns from (B, F) features of samples and (B,) their output units."""

    def end(self) -> None:
        """After the last sample of a task."""

    @abstractmethod
    def answer(self) -> Scores:
        """What answers by all samples so far; whatever has to be solved for it is solved once, here."""

    def scores(self, x: Floats) -> Floats:
        """(B, n_outputs) of (B, F) features, as `answer` gives them."""
        return self.answer()(x)

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        """What the method takes at most, estimated."""
        return 8.0 * n_features * n_outputs

    def state_dict(self) -> dict[str, Any]:
        kept = {name: one.triangle() if isinstance(one, Symmetric) else one for name, one in self.arrays.items()}
        return as_tensors(kept)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = as_arrays(state)
        self.arrays = {
            name: Symmetric.of(kept[name], len(one.matrix)) if isinstance(one, Symmetric) else kept[name]
            for name, one in self.arrays.items()
        }


class Symmetric:
    """A symmetric matrix of sums, of which a checkpoint holds the triangle.

    Args:
        size: Rows.

    Attributes:
        matrix: (size, size).
    """

    def __init__(self, size: int):
        self.matrix: Floats = np.zeros((size, size))

    def triangle(self) -> Floats:
        """(size (size + 1) / 2,) its upper triangle, row by row."""
        upper: Floats = self.matrix[np.triu_indices(len(self.matrix))]
        return upper

    @classmethod
    def of(cls, triangle: Floats, size: int) -> Symmetric:
        """The inverse of `triangle`.

        Example:
            >>> Symmetric.of(np.array([1.0, 2.0, 3.0]), 2).matrix.tolist()
            [[1.0, 2.0], [2.0, 3.0]]
        """
        made, upper = cls(size), np.triu_indices(size)
        made.matrix[upper] = triangle
        made.matrix.T[upper] = triangle
        return made


def as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of arrays as a checkpoint holds them; what is none stays as it is."""
    return {name: torch.from_numpy(one.copy()) if isinstance(one, np.ndarray) else one for name, one in arrays.items()}


def as_arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `as_tensors`."""
    return {name: one.numpy().copy() if isinstance(one, torch.Tensor) else one for name, one in tensors.items()}


def add_to_classes(sums: Floats, x: Floats, y: Units) -> None:
    """Adds (B, F) samples to (C, F) sums of their classes (B,)."""
    for unit in np.unique(y):
        sums[unit] += x[y == unit].sum(axis=0)


def class_sums(x: Floats, y: Units, sums: Floats, counts: Units) -> None:
    """Adds samples to (C, F) sums and (C,) counts of their classes."""
    add_to_classes(sums, x, y)
    counts += np.bincount(y, minlength=len(counts))


def means_of(sums: Floats, counts: Units) -> Floats:
    """(C, F) means of classes; 0 of those without samples."""
    means: Floats = sums / np.maximum(counts, 1)[:, np.newaxis]
    return means


def of_unit_norm(x: Floats) -> Floats:
    """(B, F) samples of length 1; those that are 0 stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    divided: Floats = np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0.0)
    return divided
