"""Normalised networks side by side, by the statistics of a batch, in one kernel call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sparserl.kernels import CsrIndex, GradientRequest, Linear, Networks, active_backend, tables
from sparserl.kernels.deferred import Array, computed
from sparserl.kernels.flops import count
from sparserl.layers.activations import READINGS
from sparserl.layers.fused import JOINED_UP_TO
from sparserl.layers.linear import linear
from sparserl.layers.normalised_mlp import NormalisedMLP


class BatchEnsemble:
    """Networks of equal architecture that read the same input, each `NormalisedMLP.by_batch`.

    Stands where a `SparseEnsemble` does, for passes that are trained.

    Args:
        networks: One or more.

    Attributes:
        output_activation: Name of what follows the last layer.
    """

    def __init__(self, networks: Sequence[NormalisedMLP]):
        self.networks = list(networks)
        self.output_activation = networks[0].activations[-1]
        self._prepared: tuple[list[Any], Networks] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_prepared": None}  # it holds addresses, which mean nothing in a copy

    def refresh(self) -> None:
        """Nothing is kept that could be old."""

    @property
    def joined(self) -> BatchEnsemble | None:
        """Itself, if all layers run in one call; wide dense ones do not, nor do activations other than ReLU."""
        layers = [linear(layer) for network in self.networks for layer in network]
        narrow = all(layer.is_sparse or min(layer.shape) <= JOINED_UP_TO for layer in layers)
        known = all(set(network.activations[:-1]) <= {"relu"} for network in self.networks)
        return self if narrow and known and any(layer.is_sparse for layer in layers) else None

    def evaluate(self, inputs: Sequence[Array]) -> Array:
        """(B, width) parts of the input to (networks, B, n_out), with no way back."""
        return self.run(inputs).y

    def run(self, inputs: Sequence[Array]) -> BatchPass:
        """(B, width) parts of the input to a pass; B >= 2."""
        return BatchPass(self, self._networks(), inputs)

    @property
    def layers(self) -> list[Any]:
        """Of all networks, one after the other."""
        return [layer for network in self.networks for layer in network]

    def parameters(self) -> list[nn.Parameter | None]:
        """Of each layer weights, bias, scale and shift."""
        return [
            parameter
            for layer in self.layers
            for parameter in (linear(layer).weights, layer.bias, layer.before.scale, layer.before.shift)
        ]

    def _networks(self) -> Networks:
        """As they are now; anew after a topology event, or when a tensor was replaced."""
        layers = self.layers
        given = [parameter for parameter in self.parameters() if parameter is not None]
        held = [tensor for layer in layers for tensor in layer.before.buffers()]
        key = [*tables.key([*given, *held]), *(id(linear(layer).index) for layer in layers)]
        if self._prepared is None or self._prepared[0] != key:
            chains = [[_described(layer) for layer in network] for network in self.networks]
            self._prepared = key, Networks(chains, None if self._prepared is None else self._prepared[1])
        return self._prepared[1]


def _described(layer: Any) -> Linear:
    view = linear(layer)
    index = CsrIndex.full(*view.shape) if view.index is None else view.index
    bias = None if view.bias is None else view.bias.detach()
    return Linear(index, view.weights.detach().contiguous().view(-1), bias, layer.before.norm)


class BatchPass:
    """One pass, and its way back.

    Args:
        ensemble: Of the networks.
        networks: As they are.
        inputs: (B, width) parts of the input.

    Attributes:
        y: (networks, B, n_out) output.
    """

    def __init__(self, ensemble: BatchEnsemble, networks: Networks, inputs: Sequence[Array]):
        self._ensemble, self._networks, self._backend = ensemble, networks, active_backend()
        for layer in ensemble.layers:
            layer.before.begin_batch()
        count(networks.forward_flops(inputs[0].shape[0]))
        self.y, self._saved = self._backend.forward(networks, inputs, keep=True)

    def backward(self, dy: Array) -> None:
        """Sets `grad` of the parameters that require it, given the gradient (networks, B, n_out) of the output."""
        layers, depth = self._ensemble.layers, len(self._networks.widths) - 1
        captured = [number for number, layer in enumerate(layers) if getattr(layer, "capture", False)]
        request = GradientRequest(inputs=False, samples=tuple(divmod(number, depth) for number in captured), reuse=True)
        count(self._networks.backward_flops(dy.shape[1], request))
        result = self._backend.backward(self._networks, self._saved, dy, request)
        for number, sample in zip(captured, result.samples, strict=True):
            layer = layers[number]
            other = sample.dy
            if layer.captures_activations:
                other = self._read(number, depth) if sample.a is None else sample.a
            layer.activation_pairs.append((sample.x, other))
        assert result.parameters is not None
        for parameter, gradient in zip(self._ensemble.parameters(), result.parameters, strict=True):
            if parameter is not None and parameter.requires_grad:
                parameter.grad = gradient.view_as(parameter)
        for layer in layers:
            if linear(layer).is_sparse:
                vars(layer)["trained"] = True

    def backward_to_input(self, dy: Array, width: int = 0) -> Array:
        """(B, width) gradient of the last `width` features of the input, 0: of all; parameters keep their `grad`."""
        request = GradientRequest(parameters=False, last=width)
        count(self._networks.backward_flops(dy.shape[1], request))
        return self._backend.backward(self._networks, self._saved, dy, request).x

    def _read(self, number: int, depth: int) -> torch.Tensor:
        """(n_out, B) of an output layer: what is read of its outputs."""
        network = number // depth
        reading = READINGS[self._ensemble.networks[network].output_reading]
        return reading(torch.from_numpy(computed(self.y))[network]).t().contiguous()
