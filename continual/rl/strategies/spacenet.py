"""SpaceNet for agents: each task gets a sparse sub-network of the actor, between neurons that no earlier task reserved.

Source:
    Sokar, Mocanu and Pechenizkiy 2021 (SpaceNet), which is about classifiers.

Known differences from SpaceNet, beside those of `sparserl.continual.supervised.strategies.spacenet`:
    - The task is known when it acts, so it is answered by its own connections and those of earlier tasks, and by biases
      that no later task moves. What it does then never changes.
    - Each task has an output layer of its own, which reads all neurons of the last hidden layer.
    - Connections move on a clock of optimizer steps, up to a share of a task's env steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.networks import TaskNetwork
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.continual.shared.sub_networks import SubNetworks, check_capacity
from sparserl.continual.supervised.strategy import LayerUse
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.ranges import CountOrZero, PositiveShare, Share, ShareBelowOne, check_ranges
from sparserl.topology.rewire import RewireRule


@dataclass(frozen=True)
class SpaceNetOptions:
    """Capacity of the tasks, and how connections move.

    Raises:
        ConfigError: If a value is out of range.
    """

    capacity: PositiveShare = 0.35
    """Share of the connections of each hidden layer that all tasks take together, in equal parts, in (0, 1]."""
    input_capacity: PositiveShare = 0.6
    """The same for the first layer, which is small and reads observations."""
    selected: PositiveShare = 0.5
    """Share of the neurons of each hidden layer that a task may use, drawn among the free ones, in (0, 1]; more where
    its connections have no room."""
    reserved: Share = 0.4
    """Share of the neurons of each hidden layer that all tasks close to later ones together, the most important ones of
    each task, in equal parts, in [0, 1]."""
    critics: bool = False
    """Whether critics are shared out in the same way; otherwise all tasks train all of their connections."""
    rewire_interval: CountOrZero = 1000
    """Optimizer steps of a network between events in which a task's connections move; 0 for never."""
    rewire_until: Share = 0.8
    """Share of a task's env steps after which its connections stay, in [0, 1]."""
    drop_fraction: ShareBelowOne = 0.2
    """Share of a task's connections in a layer that move at an event, in [0, 1)."""
    neuron_importance: Literal["final", "cumulative"] = "final"
    """Importance of a neuron: the sum of its connections' importances as it is (as in the paper), or that sum added up
    over all steps (as released)."""
    initial_value: Literal["xavier", "sparse_fan_in", "uniform"] = "sparse_fan_in"
    """Weights of a task's first connections."""

    def __post_init__(self) -> None:
        check_ranges(self, "spacenet.")


class SpaceNet(RLStrategy):
    """SpaceNet on the actor, and on each critic by option."""

    needs_heads: ClassVar[bool] = True
    options: SpaceNetOptions

    def densities(self, hidden: int) -> dict[str, tuple[float, ...]]:
        """A task's part of each hidden layer."""
        capacities = self.options.input_capacity, *[self.options.capacity] * (hidden - 1)
        share = tuple(capacity / self.n_tasks for capacity in capacities)
        return {"actor": share, "critic": share} if self.options.critics else {"actor": share}

    def attach(self, learner: RLLearner) -> None:
        """Takes the networks off the topology clock and all connections away.

        Raises:
            ConfigError: If a layer is dense or its neurons share inputs, some task would find no room for its
                connections, or critics start anew.
        """
        super().attach(learner)
        if self.options.critics and learner.border.critic == "reset":
            raise ConfigError(
                "spacenet.critics holds connections of earlier tasks where they are: use --border.critic kept"
            )
        networks = learner.networks if self.options.critics else learner.networks[:1]
        for group in dict.fromkeys(network.group for network in networks):
            learner.agent.evolver.stop(group)
        self._shared_out = {network.name: self._sub_networks(learner, network) for network in networks}
        self._steps = dict.fromkeys(learner.frozen, 0)

    def _sub_networks(self, learner: RLLearner, network: TaskNetwork) -> tuple[SubNetworks, list[int]]:
        """Ownership of a network's hidden layers, and the connections of a task in each."""
        layers = network.shared
        for name, layer in layers.items():
            if not isinstance(layer, SparseLinear):
                raise ConfigError(
                    f"spacenet shares connections out and layer {name} is dense: "
                    "lower spacenet.capacity and spacenet.input-capacity"
                )
            if layer.topology.pairs > 1:
                raise ConfigError(
                    f"spacenet gives neurons to tasks one by one, and those of layer {name} share their inputs: use "
                    f"--topology.pairs 1, not {layer.topology.pairs}"
                )
        sparse = [layer for layer in layers.values() if isinstance(layer, SparseLinear)]
        connections, hidden = [layer.nnz for layer in sparse], [layer.n_out for layer in sparse]
        reserved = [int(self.options.reserved * count / self.n_tasks) for count in hidden]
        check_capacity(self.n_tasks, sparse[0].n_in, hidden, reserved, connections, name=f"{network.name}.trunk")
        own = SubNetworks(
            learner.agent.evolver,
            list(layers),
            selected=[max(1, round(self.options.selected * count)) for count in hidden],
            reserved=reserved,
            n_tasks=self.n_tasks,
            seed=self.seed,
            network=network.name,
            neuron_importance=self.options.neuron_importance,
            owns_biases=True,
        )
        return own, connections

    def _of_group(self, group: str) -> list[SubNetworks]:
        return [own for name, (own, _) in self._shared_out.items() if name.partition(".")[0] == group]

    # Around a task.

    def begin_task(self, learner: RLLearner) -> None:
        """Chooses neurons and allocates connections between them."""
        self._steps = dict.fromkeys(self._steps, 0)
        learner.agent.evolver.begin_update(learner.agent._n_updates)
        for name, (own, connections) in self._shared_out.items():
            if learner.task == 0:
                own.release()
            own.begin_task(learner.task, connections, self.options.initial_value)
            own.freeze(learner.frozen[name.partition(".")[0]])

    def before_step(self, learner: RLLearner, group: str) -> None:
        """Remembers the weights, to see how far they move."""
        del learner
        for own in self._of_group(group):
            own.before_step()

    def after_step(self, learner: RLLearner, group: str) -> None:
        """Gathers importances, and moves connections when that is due."""
        shared_out = self._of_group(group)
        for own in shared_out:
            own.after_step()
        self._steps[group] += 1
        if shared_out and self._is_due(learner, group):
            rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=self.options.drop_fraction)
            for own in shared_out:
                for name in own.names:
                    learner.agent.evolver.rewire(name, rule)
                own.freeze(learner.frozen[group])

    def _is_due(self, learner: RLLearner, group: str) -> bool:
        interval = self.options.rewire_interval
        moves = learner.task_steps <= self.options.rewire_until * learner.sequence[learner.task].steps
        return interval > 0 and moves and self._steps[group] % interval == 0

    def end_task(self, learner: RLLearner) -> None:
        """Reserves the most important free neurons of each hidden layer."""
        del learner
        for own, _ in self._shared_out.values():
            own.reserve()

    # What it leaves behind.

    def answering(self, learner: RLLearner, task: int) -> SparseMLP:
        """The connections of `task` and of the tasks before it, and its head; for a task that has none yet, all."""
        actor = learner.networks[0]
        if task >= learner.task:
            return actor.of_task(task)
        own, _ = self._shared_out[actor.name]
        return actor.answering(task, own.views(task))

    def uses(self, learner: RLLearner, network: TaskNetwork) -> list[LayerUse]:
        """Connections and neurons by task."""
        if network.name not in self._shared_out:
            return super().uses(learner, network)
        own, _ = self._shared_out[network.name]
        return [*own.uses(learner.task), *network.head_uses(learner.task)]

    def state_dict(self) -> dict[str, Any]:
        """Who owns what, and the clocks."""
        return {"steps": self._steps, **{name: own.state_dict() for name, (own, _) in self._shared_out.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._steps = dict(state["steps"])
        for name, (own, _) in self._shared_out.items():
            own.load_state_dict(state[name])
            own.check_fits()

    def memory(self) -> dict[str, int]:
        """The owner of each connection and bias."""
        return {"owners": sum(own.memory()["owners"] for own, _ in self._shared_out.values())}
