"""How active the hidden neurons of a network are on a batch of inputs, and how much they matter to its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers.linear import linear
from sparserl.layers.sparse_mlp import SparseMLP
from sparserl.topology.dormant import dormancy_scores, dormant
from sparserl.topology.structure import FloatArray


@torch.no_grad()
def hidden_activations(mlp: SparseMLP, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """(B, n) activations of each layer but the last in use, one layer at a time, for (B, n_in) inputs.

    After a kernel of a convolution they are what the next layer has: images with their channels last, or in a row.
    """
    with mlp.in_use():
        for _, _, level in islice(mlp.levels(x), len(mlp) - 1):
            yield level


def features(mlp: SparseMLP, x: torch.Tensor) -> torch.Tensor:
    """(B, n) activations of the last hidden layer in use, for (B, n_in) inputs."""
    last = x
    for activations in hidden_activations(mlp, x):
        last = activations
    return last


def hidden_activity(mlp: SparseMLP, x: torch.Tensor) -> list[FloatArray]:
    """Mean |activation| of every hidden neuron in use, at the cost of a forward pass.

    Args:
        mlp: The network.
        x: (B, n_in) input, B >= 1.

    Returns:
        (n,) float64 of each layer but the last; of a kernel of a convolution, of its channels over all places.
    """
    return [mean_activity(layer, one) for layer, one in zip(mlp, hidden_activations(mlp, x), strict=False)]


def mean_activity(layer: nn.Module, activations: torch.Tensor) -> FloatArray:
    """(n,) float64 mean |activation| of the neurons of a layer, of its `hidden_activations`."""
    n = linear(layer).shape[0]
    mean: FloatArray = activations.abs().reshape(-1, n).mean(0, dtype=torch.float64).numpy()
    return mean


@torch.no_grad()
def hidden_relevance(mlp: SparseMLP) -> list[FloatArray]:
    """How much a loss would grow without each hidden neuron, to first order, from the gradients that weights have now.

    That is minus the sum over its outgoing connections of weight times gradient, which equals minus the sum over the
    batch of activation times gradient; no pass is needed. Negative where the loss would fall.

    Args:
        mlp: The network.

    Returns:
        (n,) float64 of each layer but the last.

    Raises:
        TopologyError: If weights have no gradients.

    Source:
        Mozer and Smolensky 1989 (skeletonization), section 2: the derivative of the error by a gate on the neuron, at
        1; there for an error that is linear, and smoothed over patterns.
    """
    relevances: list[FloatArray] = []
    for module in list(mlp)[1:]:
        layer = linear(module)
        weights, gradient = layer.weights, layer.weights.grad
        if gradient is None:
            raise TopologyError("the relevance of neurons needs gradients of the weights: form them on a batch first")
        inputs = layer.flat(np.arange(weights.numel())) % layer.shape[1]
        products = (weights * gradient).flatten().numpy()
        relevances.append(-np.bincount(inputs, products, layer.shape[1]).astype(np.float64))
    return relevances


@dataclass(frozen=True)
class NeuronScore:
    """What decides which neurons start anew.

    Attributes:
        measure: Network and what it reads -> (n,) >= 0 of each layer but the last; a neuron of next to nothing does
            not matter.
        needs_gradients: Whether weights must have those of a batch.
    """

    measure: Callable[[SparseMLP, torch.Tensor], list[FloatArray]]
    needs_gradients: bool = False


NEURON_SCORES: dict[str, NeuronScore] = {
    "dormant": NeuronScore(hidden_activity),
    "relevance": NeuronScore(lambda mlp, x: [*map(np.abs, hidden_relevance(mlp))], needs_gradients=True),
}


def dormant_fraction(mlp: SparseMLP, x: torch.Tensor, threshold: float) -> list[float]:
    """Share of each hidden layer's neurons that are dormant, in [0, 1].

    Args:
        mlp: The network.
        x: (B, n_in) input, B >= 1.
        threshold: As `dormant` takes it.

    Raises:
        TopologyError: If the threshold is out of range or an activity is not finite.
    """
    return [float(dormant(dormancy_scores(activity), threshold).mean()) for activity in hidden_activity(mlp, x)]
