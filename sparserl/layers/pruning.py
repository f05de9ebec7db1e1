"""A trained network with fewer connections: truly sparse, whatever it was before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers.linear import biases_of, linear
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.layers.sparse_mlp import SparseMLP
from sparserl.topology.pruning import kept_per_layer
from sparserl.topology.structure import FloatArray, SparseTopology


def pruned(
    network: SparseMLP, density: float, by: str, importances: Sequence[FloatArray] | None = None, *, name: str
) -> SparseMLP:
    """A network with a share of another's connections; what follows its layers belongs to both. As `pruned_layers`."""
    return network.with_layers(pruned_layers([*network], density, by, importances, name=name))


@torch.no_grad()
def pruned_layers(
    modules: Sequence[nn.Module],
    density: float,
    by: str,
    importances: Sequence[FloatArray] | None = None,
    *,
    name: str,
) -> list[SparseLinear]:
    """Layers with a share of the connections of others; every layer takes part, and every one is sparse afterwards.

    Args:
        modules: Sparse and dense layers of one network, with biases; not modified.
        density: Connections that stay, as a share of those of the dense network, in (0, 1); rounded to the nearest.
        by: Name in `sparserl.topology.pruning.PRUNE`.
        importances: (nnz,) of each layer, where the rule needs them.
        name: Of the network, for messages.

    Raises:
        TopologyError: If it has no more connections than that, or a layer would be emptied.
        NotFiniteScoreError: If a weight is NaN.
    """
    check_can_be_pruned({name: modules}, density)
    layers = [linear(module).in_use for module in modules]
    size = sum(math.prod(layer.shape) for layer in layers)
    weights = [layer.weights.detach().flatten() for layer in layers]
    total = round(density * size)
    try:
        kept = kept_per_layer([values.numpy() for values in weights], total, by, importances)
    except TopologyError as error:
        raise TopologyError(f"{name} cannot be pruned to a density of {density:g}: {error}") from None
    return [
        SparseLinear.of(
            SparseTopology(*layer.shape, layer.flat(slots)),
            values[torch.from_numpy(slots)],
            nn.Parameter(biases_of(layer.layer).clone()),
        )
        for layer, values, slots in zip(layers, weights, kept, strict=True)
    ]


def check_can_be_pruned(networks: Mapping[str, Sequence[nn.Module]], density: float) -> None:
    """Raises TopologyError, with the closest density that works for all, if one of some networks cannot be pruned so.

    Args:
        networks: Layers by the name of the network, as `pruned_layers` takes them.
        density: As there.
    """
    fewest, most = [], []
    for name, modules in networks.items():
        layers = [linear(module).in_use for module in modules]
        size, counts = sum(math.prod(layer.shape) for layer in layers), [layer.weights.numel() for layer in layers]
        fewest.append((sum(count > 0 for count in counts) / size, name, size))
        most.append(((sum(counts) - 1) / size, name, size))
    least, name, size = max(fewest)
    if round(density * size) < round(least * size):
        raise TopologyError(
            f"{name} cannot be pruned to a density of {density:g}, which leaves {round(density * size)} connections "
            f"for {round(least * size)} layers; the closest is {_share(round(least * size), size)}"
        )
    below, name, size = min(most)
    if round(density * size) > round(below * size):
        raise TopologyError(
            f"{name} has a density of {below + 1 / size:.4g} and is pruned to less, got {density:g}; the closest is "
            f"{_share(round(below * size), size)}"
        )


def _share(count: int, size: int) -> str:
    """The shortest decimal number of which this share of `size` is `count` when rounded.

    Example:
        >>> _share(2, 3), _share(1, 8)
        ('0.7', '0.1')
    """
    texts = (f"{count / size:.{digits}g}" for digits in range(1, 18))
    return next(text for text in texts if round(float(text) * size) == count)
