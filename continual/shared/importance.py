"""How much the output of a network depends on each of its parameters, from the gradients of single samples.

The gradient of the weight from input j to output i is, for one sample, delta_i * h_j: that of the output times the
input. So its power is |delta_i|^p * |h_j|^p, and the sum of it over a batch is what a layer would have for a gradient
with inputs |h|^p and gradients |delta|^p at its outputs. No sample is looked at by itself, and of a sparse layer
connections alone. A kernel of a convolution is applied at many places of a sample, whose gradients add up before their
power is taken: there, one sample comes after the other.
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
        sums = _sums_of_powers(layer, h, delta, power)
        names = [parameter for parameter, _ in layer.named_parameters()]  # weights, and biases if there are any
        powers |= {f"{name}.{parameter}": total / len(x) for parameter, total in zip(names, sums, strict=False)}
    return powers


def _by_layer(
    network: SparseMLP, x: torch.Tensor, cotangents: torch.Tensor
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """What each layer multiplies, and the gradient at its output before the activation."""
    inputs, outputs = [], []
    with network.in_use(), torch.enable_grad():
        h = x.detach().requires_grad_()  # so that outputs are differentiated even where no parameter is
        for read, sums, level in network.levels(h):
            inputs.append(read.detach())
            outputs.append(sums)
            h = level
        return inputs, torch.autograd.grad(h, outputs, cotangents)


@torch.no_grad()
def _sums_of_powers(layer: Any, x: torch.Tensor, dy: torch.Tensor, power: int) -> Sequence[torch.Tensor]:
    """Sums over samples of |gradient|^power by weights and biases of a layer.

    Args:
        layer: Sparse or dense.
        x: (B, n_in) or (B, places, n_in) inputs.
        dy: (B, n_out) or (B, places, n_out) gradients at its outputs.
        power: 1 or 2.
    """
    if x.dim() == 2:
        return _sums(layer, x.abs().pow(power), dy.abs().pow(power))
    of_samples = (_sums(layer, *sample) for sample in zip(x, dy.contiguous(), strict=True))
    totals = [one.abs().pow(power) for one in next(of_samples)]
    for sums in of_samples:
        for total, one in zip(totals, sums, strict=True):
            total.add_(one.abs().pow(power))
    return totals


@torch.no_grad()
def _sums(layer: Any, x: torch.Tensor, dy: torch.Tensor) -> Sequence[torch.Tensor]:
    """Gradients by weights and biases of a layer that has these inputs, and these gradients at its outputs."""
    if not linear(layer).is_sparse:
        return [dy.T @ x, dy.sum(dim=0)]
    # Not by autograd, whose passes a layer may be capturing.
    fused = FusedLayers([[layer]])
    return fused.run([x]).gradients(dy.unsqueeze(0), None, [True, True], [])[1]  # type: ignore[return-value]  # all are
