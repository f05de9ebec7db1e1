"""Which task an observation is of, and the output layers that answer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sparserl.agents.replay.batch import FloatArray
from sparserl.agents.replay.buffer import IntArray
from sparserl.errors import ConfigError
from sparserl.kernels.flops import count
from sparserl.kernels.networks import chain
from sparserl.layers import MultiHeadMLP, SparseEnsemble
from sparserl.layers.activations import READINGS
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear


@dataclass(frozen=True)
class TaskHeads:
    """Networks with an output layer for each task; observations end with a one-hot task id.

    Raises:
        ConfigError: If there is no task.
    """

    n_tasks: int
    """Length of the id."""
    visible: bool = False
    """Whether hidden layers read the id as well, or heads alone are chosen by it."""

    def __post_init__(self) -> None:
        if self.n_tasks < 1:
            raise ConfigError(f"a network needs at least 1 head, got {self.n_tasks}")

    def features(self, width: int) -> int:
        """How many features of an observation hidden layers read.

        Args:
            width: Features of an observation, the id included.
        """
        return width if self.visible else width - self.n_tasks

    def split(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) observations to what hidden layers read, and the (B,) int64 task of each."""
        return observations[:, : self.features(observations.shape[1])], observations[:, -self.n_tasks :].argmax(dim=1)

    def split_array(self, observations: FloatArray) -> tuple[FloatArray, IntArray]:
        """As `split`, for arrays."""
        return observations[:, : self.features(observations.shape[1])], observations[:, -self.n_tasks :].argmax(axis=1)


class DenseHead:
    """An output layer that is dense, as `FusedLayers` of that layer alone: for a few rows, a kernel call takes several
    times as long as torch.

    Args:
        layer: The layer.

    Attributes:
        gradients: Memory for those of weights and biases.
    """

    def __init__(self, layer: nn.Linear):
        self.layer = layer
        self.gradients = torch.empty_like(layer.weight), torch.empty_like(layer.bias)

    def evaluate(self, inputs: Sequence[FloatArray]) -> FloatArray:
        """[(B, n_in)] to (1, B, n_out), with no way back."""
        return DenseHeadPass(self, inputs[0]).y

    def run(self, inputs: Sequence[FloatArray]) -> DenseHeadPass:
        """[(B, n_in)] to a pass that autograd does not record; it has a way back of its own."""
        return DenseHeadPass(self, inputs[0])


class DenseHeadPass:
    """One pass through a dense output layer, and its way back, as `FusedPass`.

    Attributes:
        y: (1, B, n_out).
    """

    def __init__(self, head: DenseHead, x: FloatArray):
        self._head, self._x, self._weight = head, torch.from_numpy(x), head.layer.weight.detach()
        self._flops = 2 * self._weight.numel() * len(x)
        count(self._flops)
        self.y: FloatArray = functional.linear(self._x, self._weight, head.layer.bias.detach()).numpy()[None]

    def backward(self, dy: FloatArray, *, inputs: bool = False) -> FloatArray | None:
        """Sets `grad` of weights and biases that require it, given the gradient of `y`; with `inputs` gives `x`'s."""
        by_output, layer, (by_weight, by_bias) = torch.from_numpy(dy[0]), self._head.layer, self._head.gradients
        if layer.weight.requires_grad:
            count(self._flops)
            layer.weight.grad = torch.mm(by_output.t(), self._x, out=by_weight)
        if layer.bias.requires_grad:
            layer.bias.grad = torch.sum(by_output, dim=0, out=by_bias)
        return self.backward_to_input(dy) if inputs else None

    def backward_to_input(self, dy: FloatArray) -> FloatArray:
        """(B, n_in) gradient of the input; parameters keep their `grad`."""
        count(self._flops)
        by_input: FloatArray = torch.mm(torch.from_numpy(dy[0]), self._weight).numpy()
        return by_input


Head = FusedLayers | DenseHead


class SharedTrunk:
    """The hidden layers of networks with heads in one kernel call, and each head by itself: for batches of several
    tasks.

    Args:
        networks: Of equal architecture, with a ReLU or tanh after each hidden layer.
    """

    def __init__(self, networks: Sequence[MultiHeadMLP]):
        self._networks = list(networks)
        self._layers: list[Any] = []
        self._made: tuple[FusedLayers, list[list[Head]]] | None = None

    @property
    def activation(self) -> str:
        """What follows the last hidden layer."""
        return self._between[-1]

    @property
    def _between(self) -> Sequence[str]:
        """What follows each hidden layer."""
        return self._networks[0].by_task[0].activations[:-1]

    def parts(
        self, rows_by_task: Sequence[tuple[int, IntArray]]
    ) -> tuple[FusedLayers, list[tuple[int, IntArray, Head]]]:
        """What a batch goes through.

        Args:
            rows_by_task: Of each task that occurs, its index and its rows.

        Returns:
            The trunk, which gives (networks, B, n) sums of the last hidden layer, before `activation`; the index of
            each network, rows of a task, and that network's head for it.
        """
        trunk, heads = self._present()
        return trunk, [
            (number, rows, of_network[task]) for number, of_network in enumerate(heads) for task, rows in rows_by_task
        ]

    def _present(self) -> tuple[FusedLayers, list[list[Head]]]:
        """The trunk, and of each network the head of each task; made anew when a layer was replaced."""
        layers: list[Any] = [layer for network in self._networks for layer in (*network.trunk, *network.heads)]
        if self._made is None or layers != self._layers:
            trunks: list[list[Any]] = [list(network.trunk) for network in self._networks]
            of_tasks: list[list[Any]] = [list(network.heads) for network in self._networks]
            reading = READINGS[self._networks[0].by_task[0].output_reading]
            heads: list[list[Head]] = [
                [FusedLayers([[head]], reading) if linear(head).is_sparse else DenseHead(head) for head in of_network]
                for of_network in of_tasks
            ]
            trunk = FusedLayers(trunks, READINGS[self.activation], after=chain(self._between[:-1]))
            self._layers, self._made = layers, (trunk, heads)
        return self._made


@dataclass(frozen=True)
class HeadEnsembles:
    """Networks with heads, as one ensemble for each task.

    Attributes:
        heads: Tells tasks apart.
        by_task: Of each task the networks, in one kernel call.
        shared: The same for several tasks in one batch.
        parameters: Of all networks, heads of all tasks included.
    """

    heads: TaskHeads
    by_task: Sequence[SparseEnsemble]
    shared: SharedTrunk
    parameters: Sequence[nn.Parameter]

    def split(self, inputs: Sequence[FloatArray]) -> tuple[list[FloatArray], list[tuple[int, IntArray]]]:
        """What networks read, and which rows are of which task.

        Args:
            inputs: (B, width) observations, then what else is read beside them.

        Returns:
            (B, width) arrays; the index of each task that occurs, with its rows.
        """
        features, tasks = self.heads.split_array(inputs[0])
        present = (tasks[:1] if (tasks == tasks[0]).all() else np.unique(tasks)).tolist()
        return [features, *inputs[1:]], [(task, np.flatnonzero(tasks == task)) for task in present]
