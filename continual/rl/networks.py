"""The networks of an agent as methods against forgetting see them: layers that tasks share, and the tasks' own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sparserl.continual.supervised.strategy import LayerUse
from sparserl.layers import MultiHeadMLP, SparseMLP
from sparserl.layers.linear import Layer, shape_of, weights_of


class TaskNetwork:
    """One network of an agent.

    Args:
        name: Full name, e.g. `actor.pi`.
        network: With an output layer for each task, or one for all.

    Attributes:
        group: Whose optimizer moves it, as the agent names it.
        has_heads: Whether each task has an output layer of its own.
    """

    def __init__(self, name: str, network: SparseMLP | MultiHeadMLP):
        self.name, self.network = name, network
        self.group = name.partition(".")[0]
        self.has_heads = isinstance(network, MultiHeadMLP)

    def of_task(self, task: int) -> SparseMLP:
        """What answers for a task now; holds the network's own layers."""
        return self.network.by_task[task] if isinstance(self.network, MultiHeadMLP) else self.network

    def answering(self, task: int, hidden: Sequence[Layer]) -> SparseMLP:
        """What answers for a task by other hidden layers, e.g. by part of their connections, and by its own head."""
        whole = self.of_task(task)
        return SparseMLP([*hidden, whole[-1]], whole.activations[0], whole.activations[-1])

    @property
    def shared(self) -> dict[str, Layer]:
        """Layers that all tasks use, by full name, in order: the hidden ones, and the last if it is one for all."""
        layers: Any = self.network.trunk if isinstance(self.network, MultiHeadMLP) else self.network
        prefix = f"{self.name}.trunk" if self.has_heads else self.name
        return {f"{prefix}.{place}": layer for place, layer in enumerate(layers)}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Their parameters, by name in `of_task(...)`."""
        return {
            f"{place}.{name}": parameter
            for place, layer in enumerate(self.shared.values())
            for name, parameter in layer.named_parameters()
        }

    def uses(self, tasks_learned: int) -> list[LayerUse]:
        """Who uses each layer when nobody owns connections: hidden layers are shared, a head belongs to its task."""
        found = []
        for name, layer in self.shared.items():
            n_out, n_in = shape_of(layer)
            found.append(LayerUse(name, (), 0, n_out * n_in, n_out, 0, shared=weights_of(layer).numel()))
        return [*found, *self.head_uses(tasks_learned)]

    def head_uses(self, tasks_learned: int) -> list[LayerUse]:
        """The heads of the tasks learned so far as one layer; nothing where one is for all."""
        if not isinstance(self.network, MultiHeadMLP):
            return []
        heads: Any = list(self.network.heads)
        sizes = [n_out * n_in for n_out, n_in in map(shape_of, heads)]
        owned = tuple(weights_of(head).numel() for head in heads[:tasks_learned])
        outputs = sum(shape_of(head)[0] for head in heads)
        return [LayerUse(f"{self.name}.heads", owned, sum(owned), sum(sizes), outputs, 0)]


def task_networks(agent: Any) -> list[TaskNetwork]:
    """The trained networks of an agent, group by group."""
    return [
        TaskNetwork(f"{group}.{name}", own)
        for group, network in agent.networks.items()
        for name, own in network.named_children()
        if isinstance(own, SparseMLP | MultiHeadMLP)
    ]
