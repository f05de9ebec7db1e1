"""WSN: each task uses the connections of highest score; what one has used never changes, and others may use it too.

Every connection of a hidden layer has a weight and a score. A pass uses the share `capacity` of a layer's connections
whose |score| is highest; weights that are used are trained, unless an earlier task has used them. Scores learn by the
straight-through gradient: that of the product of weight and choice, times weight and sign of the score. After a task
the choice is kept, one bit a connection, and answers for it.

Source:
    Kang et al. 2022, "Forget-free Continual Learning with Winning Subnetworks" (ICML), and its released code
    (networks/subnet.py and main_wsn_pmnist.py).

Known differences from the released code:
    - Truly sparse: scores are over all weights of a dense layer there. Here a layer has connections at random
      positions, the share `pool` of all, and scores exist for these alone; no gradient is formed of the others.
      `capacity` is a share of them.
    - Exactly as many connections are used as the code's percentile stands for; there all that tie with the last.
    - A task keeps the network of its last step; there that of the epoch of least validation loss, whose learning rate
      falls where that stops falling.
    - First weights go by the connections that there are (`sparse_fan_in`); there by the dense layer, uniform.
    - Choices are not compressed further (Huffman coding in the paper).
    - Outputs have biases; hidden neurons have none, as there.

The task must be known when it answers: two tasks use different connections. Classifiers alone: passes of agents are
recorded once and repeated, which connections that are chosen anew at each step do not allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sparserl.continual.learner import Group, Kind, Learner
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import BringsConnections
from sparserl.errors import CheckpointError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.convert import connections_of
from sparserl.layers.fused_adam import state_from_tree, state_tree
from sparserl.layers.linear import biases_of
from sparserl.ranges import PositiveShare
from sparserl.seeding import stream
from sparserl.topology.criteria import largest
from sparserl.topology.structure import Flags


@dataclass(frozen=True)
class WSNOptions(Options):
    """Connections that there are, and those that a task uses.

    Raises:
        ConfigError: If a value is out of range.
    """

    pool: PositiveShare = 0.2
    """Connections of each hidden layer, as a share of all possible ones, in (0, 1]; each has a weight and a score."""
    capacity: PositiveShare = 0.5
    """Of these, share that a task uses, in (0, 1]."""

    group: ClassVar[str] = "wsn"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"pool": 0.2, "capacity": 0.5}}

    def stored(self, n_out: int, n_in: int) -> int:
        """Connections of a hidden layer, at least one."""
        return max(1, round(self.pool * n_out * n_in))

    def chosen(self, stored: int) -> int:
        """How many of a layer's connections a task uses.

        Example:
            >>> [WSNOptions(capacity=share).chosen(11) for share in (0.01, 0.3, 0.5, 1.0)]
            [1, 4, 6, 11]
        """
        return stored - round((1.0 - self.capacity) * (stored - 1))


class WSN(BringsConnections):
    """WSN on the hidden layers of a classifier; each task has outputs of its own."""

    counted_by = "wsn.pool"
    options: WSNOptions

    # Before anything is trained.

    def connections(self, sizes: Sequence[int], n_tasks: int) -> int:
        return sum(self.options.stored(n_out, n_in) for n_in, n_out in pairwise(sizes[:-1])) + sizes[-2] * sizes[-1]

    def attach(self, learner: Any) -> None:
        """Gives the network no connections yet, and draws scores as the code draws them."""
        super().attach(learner)
        learner.require_heads()
        self._network: TaskNetwork = learner.networks[0]
        (self._group,) = learner.groups.values()
        self._seed, self._keeps_optimizer = learner.seed, not learner.config.reset_optimizer
        self.of_one_task = () if self._keeps_optimizer else ("optimizer",)
        self._layers: dict[str, SparseLinear] = dict(self._network.hidden)
        self._scores: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            layer.use(np.empty(0, np.int64))  # its state says from the beginning that passes use some alone
            bound = layer.n_in**-0.5
            drawn = stream(self._seed, "scores", name).uniform(
                -bound, bound, self.options.stored(layer.n_out, layer.n_in)
            )
            self._scores[name] = nn.Parameter(torch.from_numpy(drawn.astype(np.float32)))
        self._optimizer = learner.optimizer_of(self._scores.values())
        self._masks: dict[str, list[np.ndarray]] = {name: [] for name in self._layers}

    # Around a task.

    def begin_task(self, learner: Any) -> None:
        """Freezes what earlier tasks have used, and the outputs of others."""
        if learner.task == 0:
            self._allocate()
        elif not self._keeps_optimizer:
            self._optimizer = learner.optimizer_of(self._scores.values())
        frozen = self._group.frozen
        for name, layer in self._layers.items():
            frozen.freeze(layer.values, torch.from_numpy(np.flatnonzero(self._owner(name) >= 0)))
            frozen.freeze(biases_of(layer), torch.arange(layer.n_out))
        self._network.freeze_other_heads(frozen, learner.task)

    def _allocate(self) -> None:
        evolver = self._group.evolver
        assert evolver is not None
        *hidden, output = self._network.shared
        for name in hidden:
            evolver.allocate(name, self._scores[name].numel(), "sparse_fan_in")
        evolver.allocate(output, self._network.sizes[-1] * self._network.sizes[-2], "uniform")

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        """Of the connections that have the highest scores now."""
        for name, layer in self._layers.items():
            layer.use(largest(self._scores[name].detach().numpy(), self.options.chosen(layer.nnz)))
        return super().loss(learner, batch)

    @torch.no_grad()
    def before_step(self, learner: Learner, group: Group) -> None:
        """Forms the gradients of scores, and takes those of weights away that no pass has used."""
        for name, layer in self._layers.items():
            scores, gradient = self._scores[name], layer.values.grad
            assert gradient is not None
            scores.grad = gradient * layer.values * scores.sign()
            gradient[torch.from_numpy(~self._now(layer))] = 0.0

    def after_step(self, learner: Learner, group: Group) -> None:
        """Moves the scores, at the learning rate of the weights."""
        self._optimizer.param_groups[0]["lr"] = group.optimizer.param_groups[0]["lr"]
        self._optimizer.step()

    def end_task(self, learner: Learner) -> None:
        """Keeps the choice of the last step."""
        for name, layer in self._layers.items():
            self._masks[name].append(np.packbits(self._now(layer)))

    def _now(self, layer: SparseLinear) -> Flags:
        """(nnz,) what passes use."""
        flags = np.zeros(layer.nnz, bool)
        flags[slice(None) if layer.topology.used is None else layer.topology.used] = True
        return flags

    def _mask(self, name: str, task: int) -> Flags:
        """(nnz,) what `task` uses."""
        return np.unpackbits(self._masks[name][task], count=self._scores[name].numel()).astype(bool)

    def _owner(self, name: str) -> np.ndarray:
        """(nnz,) the first task that has used each connection, or -1."""
        owner = np.full(self._scores[name].numel(), -1)
        for task in reversed(range(len(self._masks[name]))):
            owner[self._mask(name, task)] = task
        return owner

    # What it leaves behind.

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """The connections that `task` uses; for a task that has not ended, those of the last step."""
        if task >= learner.task:
            return self._network.of_task(task)
        layers = [
            connections_of(layer, self._mask(name, task), biases_of(layer)) for name, layer in self._layers.items()
        ]
        return self._network.with_hidden(task, layers)

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        """Connections belong to the first task that uses them; those that none has used to nobody."""
        usages = []
        for name, layer in self._layers.items():
            owner = self._owner(name)
            owned = np.bincount(owner[owner >= 0], minlength=learner.task)[: learner.task]
            size = layer.n_out * layer.n_in
            usages.append(ConnectionUsage(name, tuple(owned.tolist()), int(owned.sum()), size, layer.n_out, 0))
        return [*usages, *network.head_usage(learner.task)]

    def memory(self) -> dict[str, int]:
        """Scores, and a bit for each task and connection."""
        masks = sum(mask.nbytes for masks in self._masks.values() for mask in masks)
        return {"scores": sum(scores.nbytes for scores in self._scores.values()), "choices": masks}

    def state_dict(self) -> dict[str, Any]:
        """Scores and their optimizer, choices of finished tasks, and where connections came from."""
        assert self._group.evolver is not None
        return {
            "scores": {name: scores.detach() for name, scores in self._scores.items()},
            "masks": self._masks,
            "optimizer": state_tree(self._optimizer.state_dict()),
            "evolver": self._group.evolver.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self._group.evolver is not None
        for name, scores in self._scores.items():
            if state["scores"][name].shape != scores.shape or self._layers[name].nnz not in (0, scores.numel()):
                raise CheckpointError("the checkpoint's scores are not one for each connection")
            scores.copy_(state["scores"][name])
        self._masks = {name: [np.asarray(mask) for mask in state["masks"][name]] for name in self._masks}
        self._optimizer.load_state_dict(state_from_tree(state["optimizer"]))
        self._group.evolver.load_state_dict(state["evolver"])
