"""Which task owns each weight of hidden layers that all tasks share, one weight to one task for good (PackNet).

Decides what is kept, what may move, and what answers for a task. Independent of when a task is pruned, and what
follows the hidden layers.

Source:
    Mallya and Lazebnik 2018, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning"; equal shares
    per task as in Continual World (Wolczyk et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.layers import SparseLinear
from sparserl.layers.convert import check_all_used, connections_of
from sparserl.layers.linear import Layer, biases_of, linear

FREE = -1
"""Owner of a weight that no task has kept yet."""


class WeightOwners:
    """Owners of the weights of some layers, none at first. The layers' connections must stay where they are.

    Args:
        layers: By full name, in order; each has biases.

    Attributes:
        owner: (weights,) int16 of each layer, the task that has kept each weight or `FREE`.
    """

    def __init__(self, layers: Mapping[str, Layer]):
        self.layers = dict(layers)
        for layer in self.layers.values():
            check_all_used(layer)
        self.owner = [np.full(linear(layer).weights.numel(), FREE, np.int16) for layer in self.layers.values()]

    def freeze_owned(self, frozen: FrozenEntries, task: int) -> None:
        """Lets the training of `task` move what no task owns; biases in the first task alone."""
        for layer, owner in zip(self.layers.values(), self.owner, strict=True):
            frozen.freeze(linear(layer).weights, torch.from_numpy(np.flatnonzero(owner != FREE)))
            frozen.freeze(biases_of(layer), torch.arange(linear(layer).shape[0] if task else 0))

    def keep_largest(self, frozen: FrozenEntries, task: int, tasks_left: int) -> None:
        """Gives a task its share of each layer's free weights, zeroes the others, and freezes all that are not its.

        The share is what is free over `tasks_left`, rounded; exactly as many of the largest are kept, among equals the
        earlier one. Biases stay as frozen as they are.

        Args:
            frozen: What is retrained afterwards is left to move.
            task: Has just been trained.
            tasks_left: It and those that come after it.
        """
        for layer, owner in zip(self.layers.values(), self.owner, strict=True):
            weights = linear(layer).weights.detach().view(-1)
            free = np.flatnonzero(owner == FREE)
            largest = np.argsort(-np.abs(weights.numpy()[free]), kind="stable")
            owner[free[largest[: round(free.size / tasks_left)]]] = task
            weights[torch.from_numpy(np.flatnonzero(owner == FREE))] = 0.0
            frozen.freeze(linear(layer).weights, torch.from_numpy(np.flatnonzero(owner != task)))

    def task_layers(self, task: int) -> list[SparseLinear]:
        """The layers with the connections of `task` and of the tasks before it alone; biases are the layers' own."""
        return [
            connections_of(layer, (owner != FREE) & (owner <= task), biases_of(layer))
            for layer, owner in zip(self.layers.values(), self.owner, strict=True)
        ]

    def usage(self, n_tasks: int) -> list[ConnectionUsage]:
        """Weights of the first `n_tasks` tasks."""
        usages = []
        for (name, layer), owner in zip(self.layers.items(), self.owner, strict=True):
            owned = np.bincount(owner[owner != FREE], minlength=n_tasks)[:n_tasks]
            n_out, n_in = linear(layer).shape
            usages.append(ConnectionUsage(name, tuple(owned.tolist()), int(owned.sum()), n_out * n_in, n_out, 0))
        return usages

    def memory(self) -> dict[str, int]:
        """Bytes of the owner of each weight."""
        return {"owners": sum(owner.nbytes for owner in self.owner)}

    def state_dict(self) -> dict[str, Any]:
        """Owners."""
        return {"owner": self.owner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.owner = [np.asarray(owner).copy() for owner in state["owner"]]
