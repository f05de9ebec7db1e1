"""PackNet for agents: each task keeps the largest of the weights that nobody owns, and nobody moves them again.

Source:
    Mallya and Lazebnik 2018; Continual World (Wolczyk et al. 2021) for equal shares per task, biases that only the
    first task trains, heads that are not pruned, critics that are left alone, and retraining from the old buffer.

Known differences from Continual World's code:
    - Exactly the k largest weights are kept (a strict comparison keeps one fewer there).
    - Networks have no layer normalisation, and gradients are not clipped (there, to a norm of 2e-5).
    - Activations are ReLU (tanh and leaky ReLU there). A neuron that is silent for all inputs gets no gradient, and
      what is free there stays 0; in small networks that can be most of it.
    - In sparse networks a task's share is of the connections that exist, and the actor's stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.networks import TaskNetwork
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.continual.shared.weight_owners import WeightOwners
from sparserl.continual.supervised.strategy import LayerUse
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.linear import weights_of
from sparserl.ranges import CountOrZero, check_ranges


@dataclass(frozen=True)
class PackNetOptions:
    """How a task's weights are consolidated.

    Raises:
        ConfigError: If a value is out of range.
    """

    retrain_updates: CountOrZero = 100_000
    """Gradient updates after pruning, of the kept weights alone; the last task is neither pruned nor retrained.
    Default: Continual World's, for tasks of a million steps."""

    def __post_init__(self) -> None:
        check_ranges(self, "packnet.")


class PackNet(RLStrategy):
    """PackNet on the actor; a task is answered by the connections that existed when it ended, and its head."""

    needs_heads: ClassVar[bool] = True
    options: PackNetOptions

    def attach(self, learner: RLLearner) -> None:
        """Takes the actor off the topology clock; nobody owns its weights yet."""
        super().attach(learner)
        actor = learner.networks[0]
        learner.agent.evolver.stop(actor.group)
        for name, layer in actor.shared.items():
            if weights_of(layer).numel() < self.n_tasks:
                raise ConfigError(f"layer {name} has {weights_of(layer).numel()} weights for {self.n_tasks} tasks")
        self._owners = WeightOwners(actor.shared)

    def begin_task(self, learner: RLLearner) -> None:
        """Everything that nobody owns may be trained."""
        self._owners.freeze_owned(learner.frozen["actor"], learner.task)

    def begin_consolidation(self, learner: RLLearner) -> None:
        """Keeps the largest free weights and zeroes the others; the last task keeps all that are left."""
        self._owners.keep_largest(learner.frozen["actor"], learner.task, self.n_tasks - learner.task)
        learner.agent.actor.optimizer.state.clear()

    def consolidation_updates(self, task: int) -> int:
        """Retraining of what was kept."""
        return 0 if task == self.n_tasks - 1 else self.options.retrain_updates

    def answering(self, learner: RLLearner, task: int) -> SparseMLP:
        """The connections of `task` and of the tasks before it; while it is being trained, all there are."""
        actor = learner.networks[0]
        return actor.of_task(task) if task >= learner.task else actor.answering(task, self._owners.views(task))

    def uses(self, learner: RLLearner, network: TaskNetwork) -> list[LayerUse]:
        """Weights of the actor by task."""
        if network is not learner.networks[0]:
            return super().uses(learner, network)
        return [*self._owners.uses(learner.task), *network.head_uses(learner.task)]

    def state_dict(self) -> dict[str, Any]:
        """Owners."""
        return self._owners.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._owners.load_state_dict(state)

    def memory(self) -> dict[str, int]:
        """The owner of each weight."""
        return self._owners.memory()
