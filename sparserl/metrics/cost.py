"""What a method costs: parameters, bytes, and floating-point operations. What is counted is said at each number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from sparserl.layers.linear import linear_layers


@dataclass(frozen=True)
class LayerCost:
    """Sizes of one linear layer.

    Attributes:
        weights: Weights that exist.
        weights_dense: Weights of the dense layer.
        biases: Biases.
        used: Those of the weights that passes use; the others learn beside them.
    """

    weights: int
    weights_dense: int
    biases: int
    used: int


def layer_costs(network: nn.Module) -> list[LayerCost]:
    """Sizes of every linear layer of a network, sparse or dense, in order."""
    return [
        LayerCost(
            layer.weights.numel(),
            math.prod(layer.shape),
            0 if layer.bias is None else layer.bias.numel(),
            layer.weights.numel() if layer.index is None else layer.index.product.nnz,
        )
        for layer in linear_layers(network).values()
    ]


def connections(networks: Iterable[nn.Module]) -> int:
    """Weights that exist, those that learn without being used among them."""
    return sum(cost.weights for network in networks for cost in layer_costs(network))


def params_nonzero(networks: Iterable[nn.Module]) -> int:
    """Connections plus biases, those that learn without being used among them."""
    return sum(
        sum(cost.weights + cost.biases for cost in layer_costs(network)) + _beside_layers(network)
        for network in networks
    )


def params_used(networks: Iterable[nn.Module]) -> int:
    """The same without connections that passes do not use: what is left where the networks are used."""
    unused = sum(cost.weights - cost.used for network in networks for cost in layer_costs(network))
    return params_nonzero(networks) - unused


def params_dense(networks: Iterable[nn.Module]) -> int:
    """Weights plus biases of the same architecture, dense."""
    return sum(
        sum(cost.weights_dense + cost.biases for cost in layer_costs(network)) + _beside_layers(network)
        for network in networks
    )


def _beside_layers(network: nn.Module) -> int:
    """Parameters of a network that no linear layer has: dense convolutions, biases of the visible units of an RBM."""
    of_layers = {id(one) for layer in linear_layers(network).values() for one in (layer.weights, layer.bias)}
    return sum(one.numel() for one in network.parameters() if id(one) not in of_layers)


def bytes_parameters(networks: Iterable[nn.Module]) -> int:
    """Memory of all parameters, measured from the tensors."""
    return sum(p.numel() * p.element_size() for network in networks for p in network.parameters())


def bytes_optimizer(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Memory of all optimizer state, measured from the tensors; 0 before the first step; one that stands twice once."""
    return sum(
        tensor.numel() * tensor.element_size()
        for optimizer in dict.fromkeys(optimizers)
        for state in optimizer.state.values()
        for tensor in state.values()
        if torch.is_tensor(tensor)
    )


def bytes_indices(networks: Iterable[nn.Module]) -> int:
    """Memory of all indices of connections, those for the backward pass included, measured from the arrays."""
    return sum(layer.index_bytes() for network in networks for layer in linear_layers(network).values())


def flops_short(trained: Iterable[tuple[nn.Module, int]], batch_size: int) -> float:
    """FLOPs of one update by the paper's short rule: 6 per weight and sample of each network that steps.

    Of a weight that passes do not use only 2, those of its gradient.

    For an actor-critic `6 batch (W_critics + W_actor / delay)`. Targets and the pass of the actor's loss through the
    critic are left out; `sparserl.kernels.flops` counts all.

    Args:
        trained: Networks, each with the updates between two of its optimizer steps.
        batch_size: Samples per update.

    Source:
        Sokar et al. 2022, Table 3; 1.07e14 for dense TD3 on HalfCheetah.
    """
    products = [
        (sum(2 * layer.used + layer.weights for layer in layer_costs(network)), period) for network, period in trained
    ]
    return 2.0 * batch_size * sum(count / period for count, period in products)
