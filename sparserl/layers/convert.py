"""Sparse layers of other layers, and dense ones of sparse; the only place where a layer exists in both forms, never in
training."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers.linear import Layer, linear
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.topology.structure import Flags, SparseTopology


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
    """An `nn.Linear` with the same weights, and zeros where no connection exists, or none is used."""
    layer = layer.used_alone()
    linear = nn.Linear(layer.n_in, layer.n_out, bias=layer.bias is not None, dtype=layer.values.dtype)
    linear.weight.zero_()
    linear.weight.view(-1)[torch.from_numpy(layer.topology.flat)] = layer.values
    if layer.bias is not None:
        linear.bias.copy_(layer.bias)
    return linear


def dense_copy(model: nn.Module) -> nn.Module:
    """A copy of a model in which every sparse layer is an `nn.Linear`, for `torch.export`, ONNX and `torch.jit.trace`.

    It takes the memory of the dense model and computes the same up to rounding. The model itself is not modified.

    Args:
        model: With `SparseLinear` layers anywhere, or itself one.

    Returns:
        The copy, in which nothing is shared with `model`.

    Example:
        >>> sparse = nn.Sequential(SparseLinear(SparseTopology(2, 3, np.array([0, 4]))), nn.ReLU())
        >>> dense_copy(sparse)[0]
        Linear(in_features=3, out_features=2, bias=True)
    """
    copied = copy.deepcopy(model)
    if isinstance(copied, SparseLinear):
        return to_dense(copied)
    layers = {id(layer): to_dense(layer) for layer in copied.modules() if isinstance(layer, SparseLinear)}
    for name, layer in list(copied.named_modules(remove_duplicate=False)):
        if id(layer) in layers:
            copied.set_submodule(name, layers[id(layer)])
    return copied


@torch.no_grad()
def connections_of(layer: Layer, keep: Flags, bias: nn.Parameter) -> SparseLinear:
    """A sparse layer with some of a layer's connections.

    Args:
        layer: Its weights are copied.
        keep: Flag of each of its weights, flattened.
        bias: (n_out,), the very parameter that the new layer will have.
    """
    source, slots = linear(layer), np.flatnonzero(keep)
    weights = source.weights.detach().flatten()[torch.from_numpy(slots)]
    return SparseLinear.of(SparseTopology(*source.shape, source.flat(slots)), weights, bias)


def check_all_used(layer: Layer) -> None:
    """Raises ConfigError if passes use some of a layer's connections alone, where they are to be given away."""
    if linear(layer).in_use.layer is not layer:
        raise ConfigError(
            "this method gives connections to tasks, and passes must use them all: set topology.backward_factor 1, or "
            "another topology method than top_kast"
        )
