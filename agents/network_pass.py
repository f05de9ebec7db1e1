"""One pass through a network, and its way back: what the losses of an agent stand between.

Losses are arithmetic on NumPy arrays that gives a value and its derivative by the network's output: on a batch of a few
hundred numbers, recording them for autograd takes longer than the sparse networks themselves. Sparse networks go
forward and back in one kernel call each; others through autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sparserl.agents.batch import FloatArray
from sparserl.layers import SparseEnsemble
from sparserl.layers.fused import FusedLayers


class NetworkPass(Protocol):
    """A pass through a network."""

    outputs: FloatArray
    """(networks, B, n_out) what it gives."""

    def pull_back(self, gradient: FloatArray) -> None:
        """Sets `grad` of the network's parameters, given the derivative by `outputs`; what was there is replaced."""

    def pull_back_to_input(self, gradient: FloatArray) -> FloatArray:
        """(B, width) derivative by the last input; the parameters' `grad` stays as it is."""


def network_pass(network: nn.Module, method: str, *inputs: FloatArray) -> NetworkPass:
    """Evaluates a method of an actor or critic.

    Args:
        network: Of Stable-Baselines3's shape.
        method: `"forward"` or `"q1_forward"`.
        inputs: (B, width) observations, and actions if it takes them.
    """
    ensemble, layers = _fused(network, method)
    if ensemble is None or layers is None:
        return AutogradPass(network, method, *inputs)
    return FusedNetworkPass(ensemble, layers, *inputs)


def evaluate(network: nn.Module, method: str, *inputs: FloatArray) -> FloatArray:
    """(networks, B, n_out) outputs of a method of an actor or critic, with no way back."""
    ensemble, layers = _fused(network, method)
    if ensemble is not None and layers is not None:
        return _activated(ensemble, layers.evaluate(_joined(inputs)).numpy())
    with torch.no_grad():
        return _arrays(getattr(network, method)(*map(torch.from_numpy, inputs)))


def differentiated(loss: Callable[[torch.Tensor], torch.Tensor], outputs: FloatArray) -> tuple[float, FloatArray]:
    """Value of a loss written in torch and its derivative by `outputs`, for when that is not worth writing down.

    Example:
        >>> differentiated(lambda q: q.square().sum(), np.float32([1.0, -2.0]))
        (5.0, array([ 2., -4.], dtype=float32))
    """
    leaf = torch.from_numpy(outputs).requires_grad_()
    value = loss(leaf)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert leaf.grad is not None
    return value.item(), leaf.grad.numpy()


def _fused(network: nn.Module, method: str) -> tuple[SparseEnsemble | None, FusedLayers | None]:
    """The networks behind a method, and their layers if they run in one call."""
    ensembles: dict[str, SparseEnsemble] = vars(network).get("ensembles", {})
    ensemble = ensembles.get(method)
    return ensemble, None if ensemble is None else ensemble.joined


def _joined(inputs: tuple[FloatArray, ...]) -> torch.Tensor:
    return torch.from_numpy(inputs[0] if len(inputs) == 1 else np.concatenate(inputs, axis=1))


def _activated(ensemble: SparseEnsemble, y: FloatArray) -> FloatArray:
    return np.tanh(y) if ensemble.output_activation == "tanh" else y


def _arrays(given: Any) -> FloatArray:
    tensors = (given,) if torch.is_tensor(given) else given
    return np.stack([tensor.detach().numpy() for tensor in tensors])


class FusedNetworkPass:
    """A pass through sparse networks in one kernel call.

    Args:
        ensemble: The networks.
        layers: Their layers.
        inputs: (B, width) arrays that together are the networks' input.

    Attributes:
        outputs: As in `NetworkPass`.
    """

    def __init__(self, ensemble: SparseEnsemble, layers: FusedLayers, *inputs: FloatArray):
        self._ensemble, self._last = ensemble, inputs[-1].shape[1]
        self._pass = layers.run(_joined(inputs))
        self.outputs = _activated(ensemble, self._pass.y.numpy())

    def pull_back(self, gradient: FloatArray) -> None:
        """As `NetworkPass`."""
        self._pass.pull_back(self._before_activation(gradient))

    def pull_back_to_input(self, gradient: FloatArray) -> FloatArray:
        """As `NetworkPass`."""
        return self._pass.pull_back_to_input(self._before_activation(gradient)).numpy()[:, -self._last :]

    def _before_activation(self, gradient: FloatArray) -> torch.Tensor:
        if self._ensemble.output_activation == "tanh":
            gradient = gradient * (1 - self.outputs * self.outputs)
        return torch.from_numpy(gradient)


class AutogradPass:
    """A pass through any module.

    Args:
        module: The module.
        method: Of it, which gives one tensor or several.
        inputs: Its arguments.

    Attributes:
        outputs: As in `NetworkPass`.
    """

    def __init__(self, module: nn.Module, method: str, *inputs: FloatArray):
        self._module = module
        tensors = [torch.from_numpy(array) for array in inputs]
        self._last = tensors[-1].requires_grad_()
        given: Any = getattr(module, method)(*tensors)
        self._given = (given,) if torch.is_tensor(given) else tuple(given)
        self.outputs = _arrays(self._given)

    def pull_back(self, gradient: FloatArray) -> None:
        """As `NetworkPass`."""
        self._module.zero_grad()
        torch.autograd.backward(self._given, tuple(torch.from_numpy(gradient)))

    def pull_back_to_input(self, gradient: FloatArray) -> FloatArray:
        """As `NetworkPass`."""
        (toward,) = torch.autograd.grad(self._given, self._last, tuple(torch.from_numpy(gradient)))
        return toward.numpy()
