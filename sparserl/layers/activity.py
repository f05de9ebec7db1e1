"""How active the hidden neurons of a network are on a batch of inputs."""

from __future__ import annotations

import torch

from sparserl.layers.sparse_mlp import SparseMLP
from sparserl.topology.dormant import dormancy_scores, dormant
from sparserl.topology.structure import FloatArray


@torch.no_grad()
def hidden_activity(mlp: SparseMLP, x: torch.Tensor) -> list[FloatArray]:
    """Mean |activation| of every hidden neuron in use, at the cost of a forward pass.

    Args:
        mlp: The network.
        x: (B, n_in) input, B >= 1.

    Returns:
        (n,) float64 of each layer but the last.
    """
    activities = []
    with mlp.in_use():
        for layer, function in zip(list(mlp)[:-1], mlp.functions[:-1], strict=True):
            x = function(layer(x))
            activities.append(x.abs().mean(0, dtype=torch.float64).numpy())
    return activities


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
