"""Between `nn.Linear` and `SparseLinear`; the only place where a layer exists in both forms, never in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sparserl.layers.sparse_linear import SparseLinear
from sparserl.topology.structure import SparseTopology


@torch.no_grad()
def from_dense(linear: nn.Linear, topology: SparseTopology | None = None) -> SparseLinear:
    """A sparse layer with the weights that `linear` has at the connections of `topology`.

    Args:
        linear: The dense layer; it is not modified.
        topology: The connections to keep; those of non-zero weight if None.

    Raises:
        TopologyError: If the topology is not valid.
        ValueError: If its shape is not the layer's.
    """
    n_out, n_in = linear.weight.shape
    if topology is None:
        topology = SparseTopology(n_out, n_in, np.flatnonzero(linear.weight.numpy()).astype(np.int64))
    if (topology.n_out, topology.n_in) != (n_out, n_in):
        raise ValueError(f"topology is {topology.n_out} x {topology.n_in}, the layer {n_out} x {n_in}")
    topology.check_valid()  # before its positions are used
    values = linear.weight.flatten()[torch.from_numpy(topology.flat)]
    return SparseLinear.of(topology, values, None if linear.bias is None else nn.Parameter(linear.bias.clone()))


@torch.no_grad()
def to_dense(layer: SparseLinear) -> nn.Linear:
    """An `nn.Linear` with the same weights, and zeros where no connection exists."""
    linear = nn.Linear(layer.n_in, layer.n_out, bias=layer.bias is not None, dtype=layer.values.dtype)
    linear.weight.zero_()
    linear.weight.view(-1)[torch.from_numpy(layer.topology.flat)] = layer.values
    if layer.bias is not None:
        linear.bias.copy_(layer.bias)
    return linear
