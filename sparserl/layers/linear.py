"""What sparse and dense linear layers have in common: weights, biases, sides; and a copy with some connections."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sparserl.layers import SparseLinear
from sparserl.topology.structure import Flags, SparseTopology

Layer = SparseLinear | nn.Linear


def weights_of(layer: Layer) -> nn.Parameter:
    """The weights that a layer has, one a connection: (nnz,) or (n_out, n_in)."""
    weights = layer.values if isinstance(layer, SparseLinear) else layer.weight
    assert isinstance(weights, nn.Parameter)
    return weights


def biases_of(layer: Layer) -> nn.Parameter:
    """(n_out,) biases; the layer must have some."""
    biases = layer.bias
    assert biases is not None
    return biases


def shape_of(layer: Layer) -> tuple[int, int]:
    """(n_out, n_in)."""
    if isinstance(layer, SparseLinear):
        return layer.n_out, layer.n_in
    return layer.out_features, layer.in_features


@torch.no_grad()
def connections_of(layer: Layer, keep: Flags, bias: nn.Parameter) -> SparseLinear:
    """A sparse layer with some of a layer's connections.

    Args:
        layer: Its weights are copied.
        keep: Flag of each of its weights, flattened.
        bias: (n_out,), the very parameter that the new layer will have.
    """
    slots = np.flatnonzero(keep)
    flat = layer.topology.flat[slots] if isinstance(layer, SparseLinear) else slots
    weights = weights_of(layer).detach().flatten()[torch.from_numpy(slots)]
    return SparseLinear.of(SparseTopology(*shape_of(layer), flat), weights, bias)
