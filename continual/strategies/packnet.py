"""PackNet: each task keeps the largest of the free weights, and they never change again.

Decides when a task is pruned and retrained. Who owns the weights of hidden layers is
`sparserl.continual.shared.weight_owners`.

Source:
    Mallya and Lazebnik 2018, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning"; Continual World
    (Wolczyk et al. 2021) for equal shares per task, the unpruned last task, biases that only the first task trains,
    outputs that belong to their task and are not pruned, critics that are left alone, and retraining from the old
    buffer.

Known differences from Continual World's code:
    - Exactly the k largest weights are kept (a strict comparison keeps one fewer there).
    - Networks have no layer normalisation, and gradients are not clipped (there, to a norm of 2e-5).
    - Activations are ReLU (tanh and leaky ReLU there). A neuron that is silent for all inputs gets no gradient, and
      what is free there stays 0; in small networks that can be most of it.
    - In sparse networks a task's share is of the connections that exist, and they stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sparserl.continual.learner import Kind, Learner
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.shared.weight_owners import WeightOwners
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import Strategy
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.linear import linear
from sparserl.ranges import CountOrZero, RepeatsOrZero
from sparserl.topology.config import TopologyConfig


@dataclass(frozen=True)
class PackNetOptions(Options):
    """How a task's weights are consolidated: after pruning, those that were kept are trained alone; the last task is
    neither pruned nor retrained.

    Raises:
        ConfigError: If a value is out of range.
    """

    retrain_epochs: RepeatsOrZero | None = None
    """Classifiers: epochs of that, 2 by default."""
    retrain_updates: CountOrZero | None = None
    """Agents: gradient updates of that, 100,000 by default: Continual World's, for tasks of a million steps."""

    group: ClassVar[str] = "packnet"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"retrain_epochs": 2},
        "agent": {"retrain_updates": 100_000},
    }


class PackNet(Strategy):
    """PackNet on the network that answers; a task is answered by the connections that existed when it ended."""

    options: PackNetOptions

    def check_topology(self, kind: Kind, topology: TopologyConfig) -> None:
        """Refuses a classifier's connections that move; those of an agent's critics may."""
        if kind == "classifier" and topology.base.rule is not None:
            raise ConfigError(
                "packnet gives weights to tasks for good, so connections must stay where they are: use "
                f"--topology.method static, not {topology.method}"
            )

    def attach(self, learner: Learner) -> None:
        """Takes the network off the topology clock; no task owns its weights yet."""
        super().attach(learner)
        learner.require_heads()
        self._network = learner.networks[0]
        self._group = learner.groups[self._network.group]
        if self._group.evolver is not None:
            self._group.evolver.stop(self._group.name)
        for name, layer in self._network.hidden.items():
            count = linear(layer).weights.numel()
            if count < learner.n_tasks:
                raise ConfigError(f"layer {name} has {count} weights for {learner.n_tasks} tasks")
        self._owners = WeightOwners(self._network.hidden)

    def begin_task(self, learner: Learner) -> None:
        """All weights that no task owns may be trained."""
        self._owners.freeze_owned(self._group.frozen, learner.task)
        self._network.freeze_other_heads(self._group.frozen, learner.task)

    def begin_consolidation(self, learner: Learner) -> None:
        """Keeps the largest free weights and zeroes the others; the last task keeps all that are left."""
        self._owners.keep_largest(self._group.frozen, learner.task, learner.n_tasks - learner.task)
        self._group.optimizer.state.clear()

    def consolidation(self, task: int, n_tasks: int) -> int:
        return 0 if task == n_tasks - 1 else self.options.retrain_epochs or self.options.retrain_updates or 0

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """The connections of `task` and of the tasks before it; an agent acts by all while it is being trained."""
        if learner.kind == "agent" and task >= learner.task:
            return self._network.of_task(task)
        return self._network.with_hidden(task, self._owners.task_layers(task))

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        if network is not self._network:
            return super().usage(learner, network)
        return [*self._owners.usage(learner.task), *network.head_usage(learner.task)]

    def state_dict(self) -> dict[str, Any]:
        return self._owners.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._owners.load_state_dict(state)

    def memory(self) -> dict[str, int]:
        return self._owners.memory()
