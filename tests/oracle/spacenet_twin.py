"""SpaceNet as published, on dense matrices and masks.

It takes over what is drawn at random: which neurons are selected, where connections are allocated and their weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from oracle.dense_topology import importance_growth, magnitude_drop
from torch.nn import functional

from sparserl.continual.supervised.tasks import Batch


@dataclass
class Twin:
    """SpaceNet on dense matrices: one of everything per layer, in double precision."""

    cumulative: bool
    closed_units: list[list[int]]
    weights: list[np.ndarray] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)
    current: list[np.ndarray] = field(default_factory=list)
    previous: list[np.ndarray] = field(default_factory=list)
    open: list[np.ndarray] = field(default_factory=list)
    selected: list[np.ndarray] = field(default_factory=list)
    importance: list[np.ndarray] = field(default_factory=list)
    summed: list[np.ndarray] = field(default_factory=list)

    def begin(
        self,
        drawn: Sequence[Mapping[int, float]],
        selected: Sequence[Collection[int]],
        shapes: Sequence[tuple[int, int]],
        units: Sequence[int],
    ) -> None:
        """Takes over what was drawn for a task.

        Args:
            drawn: Of each layer, position to weight of its connections.
            selected: Neurons that it may use, of each hidden layer.
            shapes: Of each layer, (n_out, n_in).
            units: Outputs of the task.
        """
        first = not self.weights
        if first:
            self.weights = [np.zeros(shape) for shape in shapes]
            self.biases = [np.zeros(n_out) for n_out, _ in shapes]
            self.current = [np.zeros(shape, bool) for shape in shapes]
            self.previous = [np.zeros(shape, bool) for shape in shapes]
            self.open = [np.ones(n_out, bool) for n_out, _ in shapes]
        self.previous = [old | own for old, own in zip(self.previous, self.current, strict=True)]
        if self.closed_units:  # classifier rows are put away
            self.weights[-1][:] = 0
        self.current = [np.zeros(shape, bool) for shape in shapes]
        for layer in range(len(shapes)):
            for position, weight in drawn[layer].items():
                assert not self.previous[layer].ravel()[position]
                self.current[layer].ravel()[position] = True
                self.weights[layer].ravel()[position] = weight
        self.open[-1] = np.isin(np.arange(shapes[-1][0]), units)
        self.selected = [
            np.isin(np.arange(n_out), list(chosen)) for chosen, (n_out, _) in zip(selected, shapes, strict=False)
        ]
        self.importance = [np.zeros(shape) for shape in shapes]
        self.summed = [np.zeros(n_in) for _, n_in in shapes]

    def neuron_importance(self, layer: int) -> np.ndarray:
        """Of the neurons that feed `layer`: outgoing connections of inputs, incoming ones of the others."""
        now = self.importance[layer - 1].sum(axis=1) if layer else self.importance[0].sum(axis=0)
        found = self.summed[layer] if self.cumulative else now
        return found * self.open[layer - 1] if layer else found

    def step(self, batch: Batch, learning_rate: float) -> None:
        """One step of plain gradient descent."""
        weights = [torch.tensor(one, requires_grad=True) for one in self.weights]
        biases = [torch.tensor(one, requires_grad=True) for one in self.biases]
        x = batch.x.double()
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = functional.linear(torch.relu(x) if layer else x, weight, bias)
        closed = torch.zeros_like(x)
        for sample, task in enumerate(batch.task.tolist()):
            if self.closed_units:
                closed[sample, self.closed_units[task]] = -math.inf
        functional.cross_entropy(x + closed, batch.y).backward()  # type: ignore[no-untyped-call]
        for layer in range(len(weights)):
            gradient = _array(weights[layer].grad) * self.current[layer]
            moved = learning_rate * gradient
            self.weights[layer] = self.weights[layer] - moved
            self.biases[layer] = self.biases[layer] - learning_rate * _array(biases[layer].grad) * self.open[layer]
            self.importance[layer] += np.abs(moved) * np.abs(gradient)
        for layer in range(len(weights)):
            self.summed[layer] += self.importance[layer - 1].sum(axis=1) if layer else self.importance[0].sum(axis=0)

    def rewire(self, drop_fraction: float) -> None:
        """Moves the least important connections of hidden layers between the most important neurons."""
        for layer in range(len(self.weights) - 1):
            old, frozen = self.current[layer].copy(), self.previous[layer]
            own = np.flatnonzero(old)
            slots = magnitude_drop(self.importance[layer].ravel()[own].tolist(), drop_fraction)
            outputs, inputs = self.neuron_importance(layer + 1), self.neuron_importance(layer)
            dropped = np.zeros_like(old)
            dropped.ravel()[own[slots]] = True
            rows = self.selected[layer] & self.open[layer]
            columns = self.selected[layer - 1] & self.open[layer - 1] if layer else np.ones(old.shape[1], bool)
            taken = (old & ~dropped) | frozen | ~np.outer(rows, columns)
            grown = importance_growth(outputs, inputs, taken, dropped, len(slots))
            self.current[layer] &= ~dropped
            self.weights[layer][dropped] = 0
            self.importance[layer][dropped] = 0
            self.current[layer].ravel()[grown] = True

    def reserve(self, counts: Sequence[int]) -> None:
        """Closes the most important open neurons of each hidden layer."""
        for layer, count in enumerate(counts):
            importance = np.where(self.open[layer], self.neuron_importance(layer + 1), -1)
            self.open[layer] = self.open[layer].copy()
            self.open[layer][np.argsort(-importance, kind="stable")[:count]] = False


def _array(values: Any) -> np.ndarray:
    own: np.ndarray = values.numpy()
    return own
