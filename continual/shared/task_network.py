"""The networks of a learner as continual methods see them: layers that tasks share, and the tasks' own outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.layers import MultiHeadMLP, SparseMLP
from sparserl.layers.linear import Layer, biases_of, linear
from sparserl.topology.structure import Flags


class TaskNetwork:
    """One network: hidden layers, and an output layer for each task or one for all.

    Args:
        name: Full name, e.g. `actor.pi`; its first part is the group whose optimizer moves it.
        network: With an output layer for each task, or one for all.

    Attributes:
        group: Name of its group.
        has_heads: Whether each task has output layers of its own, so that it can be answered by itself.
        task_outputs: Outputs of each task, where they are rows of one output layer; None otherwise.
    """

    task_outputs: Sequence[Sequence[int]] | None = None

    def __init__(self, name: str, network: SparseMLP | MultiHeadMLP):
        self.name, self.network = name, network
        self.group = name.partition(".")[0]
        self.has_heads = isinstance(network, MultiHeadMLP)

    def of_task(self, task: int) -> SparseMLP:
        """What answers for a task now; holds the network's own layers."""
        return self.network.by_task[task] if isinstance(self.network, MultiHeadMLP) else self.network

    def with_hidden(self, task: int, hidden: Sequence[Layer]) -> SparseMLP:
        """What answers for a task by other hidden layers, e.g. by part of their connections, and by its own output."""
        whole = self.of_task(task)
        return whole.with_layers([*hidden, whole[-1]])

    @property
    def shared(self) -> dict[str, Layer]:
        """Layers that all tasks use, by full name, in order: the hidden ones, and the last if it is one for all."""
        heads = isinstance(self.network, MultiHeadMLP)
        layers = self.network.trunk if isinstance(self.network, MultiHeadMLP) else self.network
        prefix = f"{self.name}.trunk" if heads else self.name
        return {f"{prefix}.{index}": layer for index, layer in enumerate(layers)}  # type: ignore[misc]  # are linear

    @property
    def sizes(self) -> list[int]:
        """Neurons on both sides of the layers of `shared`, the input first."""
        shapes = [linear(layer).shape for layer in self.shared.values()]
        return [shapes[0][1], *(n_out for n_out, _ in shapes)]

    @property
    def hidden(self) -> dict[str, Layer]:
        """Those of `shared` before the output."""
        names = list(self.shared)
        return {name: self.shared[name] for name in (names if isinstance(self.network, MultiHeadMLP) else names[:-1])}

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of `shared`, by name in `of_task(...)`."""
        return {
            f"{index}.{name}": parameter
            for index, layer in enumerate(self.shared.values())
            for name, parameter in layer.named_parameters()
        }

    def freeze_other_heads(self, frozen: FrozenEntries, task: int) -> None:
        """Lets the training of a task move its own outputs alone, whatever tasks the samples of a batch are of."""
        if not isinstance(self.network, MultiHeadMLP):
            return
        for index, head in enumerate(self.network.heads):
            for parameter in head.parameters():
                frozen.freeze(parameter, torch.arange(parameter.numel() if index != task else 0))

    def usage(self, tasks_learned: int) -> list[ConnectionUsage]:
        """Without owned connections: hidden layers are shared, a head belongs to its task."""
        usages = []
        for name, layer in self.shared.items():
            n_out, n_in = linear(layer).shape
            usages.append(ConnectionUsage(name, (), 0, n_out * n_in, n_out, 0, shared=linear(layer).weights.numel()))
        return usages if self.task_outputs is not None else [*usages, *self.head_usage(tasks_learned)]

    def head_usage(self, tasks_learned: int) -> list[ConnectionUsage]:
        """The outputs of the tasks learned so far as one layer; nothing where one is for all."""
        if not isinstance(self.network, MultiHeadMLP):
            return []
        heads: list[Layer] = list(self.network.heads)  # type: ignore[arg-type]  # are linear
        sizes = [n_out * n_in for n_out, n_in in (linear(head).shape for head in heads)]
        owned = tuple(linear(head).weights.numel() for head in heads[:tasks_learned])
        outputs = sum(linear(head).shape[0] for head in heads)
        return [ConnectionUsage(f"{self.name}.heads", owned, sum(owned), sum(sizes), outputs, 0)]


class ClassifierNetwork(TaskNetwork):
    """A classifier, in which the outputs of a task are rows of the one output layer.

    Args:
        network: The classifier.
        task_outputs: Rows of each task; tasks may share them.
        has_heads: Whether the task is known when a class is asked for.
    """

    def __init__(self, network: SparseMLP, task_outputs: Sequence[Sequence[int]], *, has_heads: bool):
        super().__init__("network", network)
        self.task_outputs, self.has_heads = task_outputs, has_heads

    @property
    def _output(self) -> Layer:
        *_, output = self.shared.values()
        return output

    def outputs_of(self, task: int) -> Flags:
        """(n_out,) which outputs are the task's."""
        assert self.task_outputs is not None
        outputs: Flags = np.isin(np.arange(linear(self._output).shape[0]), self.task_outputs[task])
        return outputs

    def freeze_other_heads(self, frozen: FrozenEntries, task: int) -> None:
        output, others = linear(self._output), ~self.outputs_of(task)
        rows = output.flat(np.arange(output.weights.numel())) // output.shape[1]
        frozen.freeze(biases_of(self._output), torch.from_numpy(np.flatnonzero(others)))
        frozen.freeze(output.weights, torch.from_numpy(np.flatnonzero(others[rows])))

    def head_usage(self, tasks_learned: int) -> list[ConnectionUsage]:
        assert self.task_outputs is not None
        *_, name = self.shared
        output, (n_out, n_in) = linear(self._output), linear(self._output).shape
        rows = tuple(int(output.fan_in[list(outputs)].sum()) for outputs in self.task_outputs[:tasks_learned])
        return [ConnectionUsage(name, rows, sum(rows), n_out * n_in, n_out, 0)]
