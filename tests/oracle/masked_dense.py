"""The masked dense twin of a sparse network: the weight masks that tests compare with.

Slow, dense, obviously right. Every (n_out, n_in) matrix exists; an absent connection is a weight, a gradient and two
Adam moments that are held at zero. Adam is written out from Kingma & Ba 2015, Algorithm 1, so that nothing is shared
with the code under test but plain containers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.layers import SparseLinear
from sparserl.topology.structure import TopologyChange

ACTIVATION: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


def dense_used(layer: nn.Module) -> torch.Tensor | None:
    """(n_out, n_in) which connections of a layer products use; None where they use all."""
    topology = layer.topology if isinstance(layer, SparseLinear) else None
    if topology is None or topology.used is None:
        return None
    used = torch.zeros(layer.n_out, layer.n_in, dtype=layer.values.dtype)
    for slot in topology.used.tolist():
        used.view(-1)[topology.flat[slot]] = 1.0
    return used


def dense_weight(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_out, n_in) weights and mask of a sparse or dense layer, connection by connection."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().clone(), torch.ones_like(layer.weight)
    assert isinstance(layer, SparseLinear)
    weight = torch.zeros(layer.n_out, layer.n_in, dtype=layer.values.dtype)
    mask = torch.zeros_like(weight)
    for slot, position in enumerate(layer.topology.flat.tolist()):
        weight[position // layer.n_in, position % layer.n_in] = layer.values[slot].item()
        mask[position // layer.n_in, position % layer.n_in] = 1.0
    return weight, mask


class MaskedAdam:
    """Adam on one tensor, with a mask over gradient, moments and result."""

    def __init__(self, tensor: torch.Tensor, mask: torch.Tensor, lr: float):
        self.tensor, self.mask, self.lr = tensor, mask, lr
        self.m, self.v = torch.zeros_like(tensor), torch.zeros_like(tensor)
        self.t: Any = 0  # or (n_out, n_in) steps of each entry

    def step(self) -> None:
        assert self.tensor.grad is not None
        gradient = self.tensor.grad * self.mask
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient * gradient
        m_hat, v_hat = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        with torch.no_grad():
            self.tensor -= self.lr * m_hat / (v_hat.sqrt() + 1e-8)
            self.tensor *= self.mask


class MaskedMLP:
    """A dense copy of a chain of layers in which absent connections are masked.

    Args:
        layers: `SparseLinear` or `nn.Linear`; copied, not kept.
        activations: One name for each layer.
        lr: Learning rate of `step`.
    """

    def __init__(self, layers: Sequence[nn.Module], activations: Sequence[str], lr: float = 1e-2):
        self.activations = list(activations)
        self.masks: list[torch.Tensor] = []
        self.used: list[torch.Tensor | None] = [dense_used(layer) for layer in layers]
        self.weights: list[torch.Tensor] = []
        self.biases: list[torch.Tensor | None] = []
        self.adam: list[MaskedAdam] = []
        for layer in layers:
            weight, mask = dense_weight(layer)
            bias = None if layer.bias is None else layer.bias.detach().clone()
            self.masks.append(mask)
            self.weights.append(weight.requires_grad_())
            self.adam.append(MaskedAdam(weight, mask, lr))
            self.biases.append(bias)
            if bias is not None:
                self.adam.append(MaskedAdam(bias.requires_grad_(), torch.ones_like(bias), lr))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        parts = zip(self.weights, self.masks, self.used, self.biases, self.activations, strict=True)
        for weight, mask, used, bias, activation in parts:
            effective = weight * mask
            if used is not None:  # as a number without the others, as a derivative with them
                effective = effective + (effective * used - effective).detach()
            x = x @ effective.T
            x = ACTIVATION[activation](x if bias is None else x + bias)
        return x

    def step(self) -> None:
        """One Adam step on everything; gradients are cleared."""
        for adam in self.adam:
            adam.step()
            adam.tensor.grad = None

    def apply(
        self, position: int, change: TopologyChange, grown_values: float | np.ndarray, *, fresh: bool = False
    ) -> None:
        """A topology event of layer `position`: what is dropped goes to zero, what is grown starts without moments.

        With `fresh` the steps of what is grown count from 0.
        """
        old, new, n_in = change.old.flat.tolist(), change.new.flat.tolist(), change.new.n_in
        survivors = {old[source] for source in change.source.tolist() if source >= 0}
        grown = [p for p, source in zip(new, change.source.tolist(), strict=True) if source < 0]
        weight, mask = self.weights[position], self.masks[position]
        (adam,) = [a for a in self.adam if a.tensor is weight]
        if fresh:
            adam.t = adam.t * torch.ones_like(weight, dtype=torch.float64)
        values = np.broadcast_to(grown_values, (len(grown),))
        with torch.no_grad():
            for p in set(old) - survivors:
                at = p // n_in, p % n_in
                weight[at], mask[at], adam.m[at], adam.v[at] = 0.0, 0.0, 0.0, 0.0
            for p, value in zip(grown, values, strict=True):
                at = p // n_in, p % n_in
                assert mask[at] == 0, "grown where a connection is"
                weight[at], mask[at], adam.m[at], adam.v[at] = float(value), 1.0, 0.0, 0.0
                if fresh:
                    adam.t[at] = 0.0
        used = self.used[position]
        if used is not None and change.new.used is not None:
            used.zero_()
            for slot in change.new.used.tolist():
                used.view(-1)[new[slot]] = 1.0

    def gather(self, position: int, dense: torch.Tensor) -> torch.Tensor:
        """(nnz,) the entries of a (n_out, n_in) tensor where layer `position` has connections, in row order."""
        return dense[self.masks[position].bool()]
