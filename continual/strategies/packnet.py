"""PackNet: each task keeps the largest of the weights that nobody owns, and nobody moves them again.

Source:
    Mallya and Lazebnik 2018, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning"; equal shares
    per task and the unpruned last task as in Continual World (Wolczyk et al. 2021).

Known differences: exactly the k largest weights are kept (Continual World's comparison is strict and keeps one fewer);
biases are trained by the first task alone, as in Continual World; rows of the output layer belong to the task whose
classes they are and are not pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.continual.strategy import LayerUse, Strategy
from sparserl.continual.supervised import LearnerConfig, SupervisedLearner
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.topology.density import exact_nnz
from sparserl.topology.structure import Flags, SparseTopology

Layer = SparseLinear | nn.Linear
FREE = -1
"""Owner of a weight that no task has kept yet."""


@dataclass(frozen=True)
class PackNetOptions:
    """How a task's weights are consolidated.

    Raises:
        ConfigError: If a value is out of range.
    """

    retrain_epochs: int = 2
    """Epochs of training after pruning, of the kept weights alone; the last task is neither pruned nor retrained."""

    def __post_init__(self) -> None:
        if self.retrain_epochs < 0:
            raise ConfigError(f"packnet.retrain-epochs must not be negative, got {self.retrain_epochs}")


class PackNet(Strategy):
    """PackNet by ownership of connections; a task is answered by the connections that existed when it ended."""

    options: PackNetOptions

    def check(self, config: LearnerConfig) -> None:
        """Raises ConfigError unless the task is known when it is asked for, and each task can own a weight."""
        if self.sequence.scenario != "task":
            raise ConfigError(
                f"packnet must be told the task that it answers for: use --scenario task, not {self.sequence.scenario}"
            )
        sides = [self.sequence.n_features, *config.hidden]
        smallest = min(exact_nnz((b, a), config.density) for a, b in pairwise(sides))
        if smallest < len(self.sequence):
            raise ConfigError(f"the smallest hidden layer has {smallest} weights for {len(self.sequence)} tasks")

    def make_network(self, sizes: Sequence[int], config: LearnerConfig) -> SparseMLP:
        """The network before the first task; no weight is owned."""
        network = super().make_network(sizes, config)
        layers = [layer for layer in network if isinstance(layer, SparseLinear | nn.Linear)]
        self._hidden, self._output = layers[:-1], layers[-1]
        self._owner = [np.full(_weights(layer).numel(), FREE, np.int16) for layer in self._hidden]
        return network

    def epochs(self, task: int, epochs: int) -> int:
        """Training, then retraining of what was kept."""
        return epochs if self._is_last(task) else epochs + self.options.retrain_epochs

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Everything that nobody owns may be trained."""
        for layer, owner in zip(self._hidden, self._owner, strict=True):
            learner.frozen.freeze(_weights(layer), torch.from_numpy(np.flatnonzero(owner != FREE)))
            learner.frozen.freeze(_biases(layer), torch.arange(_shape(layer)[0] if learner.task else 0))
        n_out, n_in = _shape(self._output)
        others = np.setdiff1d(np.arange(n_out), self.sequence.tasks[learner.task].outputs)
        learner.frozen.freeze(_biases(self._output), torch.from_numpy(others))
        rows = others[:, None] * n_in + np.arange(n_in)
        learner.frozen.freeze(_weights(self._output), torch.from_numpy(rows.ravel()))

    def end_epoch(self, learner: SupervisedLearner) -> None:
        """After the last epoch of training: keeps the largest free weights, zeroes the others, starts retraining."""
        if learner.epoch != learner.config.epochs - 1:
            return
        for layer, owner in zip(self._hidden, self._owner, strict=True):
            weights = _weights(layer).detach().view(-1)
            free = np.flatnonzero(owner == FREE)
            kept = free[_largest(np.abs(weights.numpy()[free]), self._share(free.size, learner.task))]
            owner[kept] = learner.task
            weights[torch.from_numpy(np.flatnonzero(owner == FREE))] = 0.0
            learner.frozen.freeze(_weights(layer), torch.from_numpy(np.flatnonzero(owner != learner.task)))
        learner.optimizer = learner.new_optimizer()

    def _share(self, free: int, task: int) -> int:
        """Weights that a task keeps: an equal share of what is left among the tasks that are left."""
        return round(free / (len(self.sequence) - task))

    def _is_last(self, task: int) -> bool:
        return task == len(self.sequence) - 1

    def answering(self, learner: SupervisedLearner, task: int) -> nn.Module:
        """The connections of `task` and of the tasks before it, alone."""
        views = [
            _subset(layer, (owner != FREE) & (owner <= task))
            for layer, owner in zip(self._hidden, self._owner, strict=True)
        ]
        return SparseMLP([*views, self._output])

    def uses(self, learner: SupervisedLearner) -> list[LayerUse]:
        """Weights of the hidden layers by task; rows of the output layer by the task of their class."""
        found = []
        for place, (layer, owner) in enumerate(zip(self._hidden, self._owner, strict=True)):
            owned = np.bincount(owner[owner != FREE], minlength=learner.task)[: learner.task]
            n_out, n_in = _shape(layer)
            found.append(LayerUse(f"network.{place}", tuple(owned.tolist()), int(owned.sum()), n_out * n_in, n_out, 0))
        n_out, n_in = _shape(self._output)
        rows = tuple(len(task.outputs) * n_in for task in self.sequence.tasks[: learner.task])
        found.append(LayerUse(f"network.{len(self._hidden)}", rows, sum(rows), n_out * n_in, n_out, 0))
        return found

    def memory(self) -> dict[str, int]:
        """The owner of each weight."""
        return {"owners": sum(owner.nbytes for owner in self._owner)}

    def state_dict(self) -> dict[str, Any]:
        """Owners."""
        return {"owner": self._owner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._owner = [owner.numpy() for owner in state["owner"]]


def _weights(layer: Layer) -> nn.Parameter:
    """The weights that a dense or sparse layer has."""
    weights = layer.values if isinstance(layer, SparseLinear) else layer.weight
    assert isinstance(weights, nn.Parameter)
    return weights


def _biases(layer: Layer) -> nn.Parameter:
    biases = layer.bias
    assert biases is not None
    return biases


def _shape(layer: Layer) -> tuple[int, int]:
    """(n_out, n_in)."""
    if isinstance(layer, SparseLinear):
        return layer.n_out, layer.n_in
    return layer.out_features, layer.in_features


def _largest(magnitude: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest; among equals the earlier one."""
    return np.argsort(-magnitude, kind="stable")[:count]


@torch.no_grad()
def _subset(layer: Layer, keep: Flags) -> SparseLinear:
    """A sparse layer with some of a layer's connections, and its biases."""
    weights = _weights(layer).detach().flatten()
    n_out, n_in = _shape(layer)
    slots = np.flatnonzero(keep)
    flat = layer.topology.flat[slots] if isinstance(layer, SparseLinear) else slots
    return SparseLinear.of(SparseTopology(n_out, n_in, flat), weights[torch.from_numpy(slots)], layer.bias)
