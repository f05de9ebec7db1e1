"""PackNet: each task keeps the largest of the weights that nobody owns, and nobody moves them again.

Decides when a task is pruned and retrained, and what of the output layer is its own. Who owns the weights of hidden
layers is `sparserl.continual.shared.weight_owners`.

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

from sparserl.continual.shared.weight_owners import WeightOwners
from sparserl.continual.supervised.learner import LearnerConfig, SupervisedLearner
from sparserl.continual.supervised.strategy import LayerUse, Strategy
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.linear import biases_of, shape_of, weights_of
from sparserl.ranges import RepeatsOrZero, check_ranges
from sparserl.topology.density import exact_nnz


@dataclass(frozen=True)
class PackNetOptions:
    """How a task's weights are consolidated.

    Raises:
        ConfigError: If a value is out of range.
    """

    retrain_epochs: RepeatsOrZero = 2
    """Epochs of training after pruning, of the kept weights alone; the last task is neither pruned nor retrained."""

    def __post_init__(self) -> None:
        check_ranges(self, "packnet.")


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
        self._output = layers.pop()
        self._hidden = WeightOwners({f"network.{place}": layer for place, layer in enumerate(layers)})
        return network

    def epochs(self, task: int, epochs: int) -> int:
        """Training, then retraining of what was kept."""
        return epochs if self._is_last(task) else epochs + self.options.retrain_epochs

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Everything that nobody owns may be trained."""
        self._hidden.freeze_owned(learner.frozen, learner.task)
        n_out, n_in = shape_of(self._output)
        others = np.setdiff1d(np.arange(n_out), self.sequence.tasks[learner.task].outputs)
        learner.frozen.freeze(biases_of(self._output), torch.from_numpy(others))
        rows = others[:, None] * n_in + np.arange(n_in)
        learner.frozen.freeze(weights_of(self._output), torch.from_numpy(rows.ravel()))

    def end_epoch(self, learner: SupervisedLearner) -> None:
        """After the last epoch of training: keeps the largest free weights, zeroes the others, starts retraining."""
        if learner.epoch != learner.config.epochs - 1:
            return
        self._hidden.keep_largest(learner.frozen, learner.task, len(self.sequence) - learner.task)
        learner.optimizer = learner.new_optimizer()

    def _is_last(self, task: int) -> bool:
        return task == len(self.sequence) - 1

    def answering(self, learner: SupervisedLearner, task: int) -> nn.Module:
        """The connections of `task` and of the tasks before it, alone."""
        return SparseMLP([*self._hidden.views(task), self._output])

    def uses(self, learner: SupervisedLearner) -> list[LayerUse]:
        """Weights of the hidden layers by task; rows of the output layer by the task of their class."""
        hidden = self._hidden.uses(learner.task)
        n_out, n_in = shape_of(self._output)
        rows = tuple(len(task.outputs) * n_in for task in self.sequence.tasks[: learner.task])
        return [*hidden, LayerUse(f"network.{len(hidden)}", rows, sum(rows), n_out * n_in, n_out, 0)]

    def memory(self) -> dict[str, int]:
        """The owner of each weight."""
        return self._hidden.memory()

    def state_dict(self) -> dict[str, Any]:
        """Owners."""
        return self._hidden.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._hidden.load_state_dict(state)
