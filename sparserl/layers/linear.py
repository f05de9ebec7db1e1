"""The protocol of layers with weights between inputs and outputs, and what kinds of modules speak it.

Code that reads weights by the neurons they join calls `linear` and depends on no kind of layer. A new kind is a
`LinearLayer` and its line in `KINDS`; modules made of matrices (an LSTM, a convolution) have such layers as children.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.kernels import CsrIndex
from sparserl.topology.moments import Entries
from sparserl.topology.structure import Flags, Positions, Slots

if TYPE_CHECKING:
    from sparserl.layers.sparse_linear import SparseLinear

Layer: TypeAlias = "SparseLinear | nn.Linear"


class LinearLayer(ABC):
    """A layer whose outputs are sums of weights times inputs, plus a bias.

    Args:
        layer: The module.

    Attributes:
        bias: (n_out,) parameter or None.
        is_sparse: Whether `index` says which connections exist; otherwise all do.
    """

    is_sparse = True

    def __init__(self, layer: Any):
        self.layer = layer
        self.bias: nn.Parameter | None = layer.bias

    @property
    def in_use(self) -> LinearLayer:
        """The layer as products see it: one of the connections that they use alone, a copy, where others are stored."""
        return self

    @property
    @abstractmethod
    def weights(self) -> nn.Parameter:
        """The weights that exist, one a connection, in whatever shape they are stored."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""

    @property
    @abstractmethod
    def fan_in(self) -> Slots:
        """(n_out,) connections into each output."""

    @abstractmethod
    def flat(self, slots: Slots) -> Positions:
        """Positions `output * n_in + input` of some weights, given their indices among all of them, flattened."""

    @abstractmethod
    def into(self, outputs: Flags) -> Entries:
        """The entries of `weights` into some outputs; `outputs` is (n_out,)."""

    @abstractmethod
    def out_of(self, inputs: Flags) -> Entries:
        """The entries of `weights` out of some inputs; `inputs` is (n_in,)."""

    @property
    def index(self) -> CsrIndex | None:
        """Which connections exist, as the kernels read it; None if all do."""
        return None

    def index_bytes(self) -> int:
        """Memory of what says which connections exist."""
        return 0

    @torch.no_grad()
    def redraw(self, initial_value: str = "dense_fan_in") -> None:
        """Draws weights and biases anew, in the connections that exist; torch's global generator draws.

        Args:
            initial_value: Name in `sparserl.topology.values.INITIAL_VALUE` of what weights of a sparse layer begin
                with; with `dense_fan_in`, and in dense layers, they are drawn as `nn.Linear` does, as biases are.
        """
        bound = self.shape[1] ** -0.5
        self.weights.uniform_(-bound, bound)
        if self.bias is not None:
            self.bias.uniform_(-bound, bound)


class _Dense(LinearLayer):
    is_sparse = False

    @property
    def weights(self) -> nn.Parameter:
        weight: nn.Parameter = self.layer.weight
        return weight

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.layer.out_features), int(self.layer.in_features)  # NumPy's, where actions were counted by it

    @property
    def fan_in(self) -> Slots:
        n_out, n_in = self.shape
        return np.full(n_out, n_in)

    def flat(self, slots: Slots) -> Positions:
        return slots

    def into(self, outputs: Flags) -> Entries:
        return (torch.from_numpy(outputs),)

    def out_of(self, inputs: Flags) -> Entries:
        return slice(None), torch.from_numpy(inputs)

    def redraw(self, initial_value: str = "dense_fan_in") -> None:
        del initial_value
        self.layer.reset_parameters()


KINDS: dict[type[nn.Module], type[LinearLayer]] = {nn.Linear: _Dense}
"""Kind of module -> what speaks the protocol for it, filled by the modules that define them; subclasses count as what
they derive from."""


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a layer of a kind in `KINDS`."""
    return isinstance(module, tuple(KINDS))


def linear(module: nn.Module) -> LinearLayer:
    """A module as a linear layer.

    Raises:
        ConfigError: If it is of no kind in `KINDS`.
    """
    for kind, view in KINDS.items():
        if isinstance(module, kind):
            return view(module)
    known = ", ".join(kind.__name__ for kind in KINDS)
    raise ConfigError(f"a {type(module).__name__} is no linear layer; those are {known}")


def linear_layers(network: nn.Module) -> dict[str, LinearLayer]:
    """The linear layers of a network by their name in it, in order; a layer that stands twice counts once."""
    return {name: linear(module) for name, module in network.named_modules() if is_linear(module)}


def biases_of(layer: Layer) -> nn.Parameter:
    """(n_out,) biases; the layer must have some."""
    biases = layer.bias
    assert biases is not None
    return biases
