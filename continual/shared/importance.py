"""How much the output of a network depends on each of its parameters, from the gradients of single samples.

The gradient of the weight from input j to output i is, for one sample, delta_i * h_j: that of the output times the
input. So its power is |delta_i|^p * |h_j|^p, and the sum of it over a batch is what a layer would have for a gradient
with inputs |h|^p and gradients |delta|^p at its outputs. No sample is looked at by itself, and of a sparse layer
connections alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from sparserl.layers import SparseMLP
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear


def mean_gradient_power(
    network: SparseMLP, x: torch.Tensor, cotangents: torch.Tensor, power: Literal[1, 2]
) -> dict[str, torch.Tensor]:
    """Mean over samples of |gradient of `sum_k cotangents[b, k] * output[b, k]` by each parameter|^power.

    Nothing is left behind in the network, whose layers may belong to others as well; no layer captures the pass.

    Args:
        network: Is differentiated as it is now.
        x: (B, n_in) samples.
        cotangents: (B, n_out) what the gradient of each sample is of: 1 for the output itself, or the derivative of any
            function of the sample by its outputs.
        power: 1 for the mean absolute gradient, 2 for the mean square.

    Returns:
        By name in `network.named_parameters()`, of the parameter's shape.
    """
    inputs, deltas = _by_layer(network, x, cotangents)
    powers: dict[str, torch.Tensor] = {}
    for (name, layer), h, delta in zip(network.named_children(), inputs, deltas, strict=True):
        sums = _sums(layer, h.abs().pow(power), delta.abs().pow(power))
        names = [parameter for parameter, _ in layer.named_parameters()]  # weights, and biases if there are any
        powers |= {f"{name}.{parameter}": total / len(x) for parameter, total in zip(names, sums, strict=False)}
    return powers


def _by_layer(
    network: SparseMLP, x: torch.Tensor, cotangents: torch.Tensor
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Input of each layer, and the gradient at its output before the activation."""
    inputs, outputs = [], []
    with network.in_use(), torch.enable_grad():
        h = x.detach().requires_grad_()  # so that outputs are differentiated even where no parameter is
        for layer, function in zip(network, network.functions, strict=True):
            inputs.append(h.detach())
            outputs.append(layer(h))
            h = function(outputs[-1])
        return inputs, torch.autograd.grad(h, outputs, cotangents)


@torch.no_grad()
def _sums(layer: Any, x: torch.Tensor, dy: torch.Tensor) -> Sequence[torch.Tensor]:
    """Gradients by weights and biases of a layer that has these inputs, and these gradients at its outputs."""
    if not linear(layer).is_sparse:
        return [dy.T @ x, dy.sum(dim=0)]
    # Not by autograd, whose passes a layer may be capturing.
    fused = FusedLayers([[layer]])
    return fused.run([x]).gradients(dy.unsqueeze(0), None, [True, True], [])[1]  # type: ignore[return-value]  # all are
