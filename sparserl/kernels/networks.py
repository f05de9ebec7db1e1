"""What a backend computes with: networks side by side, each a chain of linear layers with a ReLU between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sparserl.kernels.deferred import Array
from sparserl.kernels.index import CsrIndex


@dataclass(frozen=True)
class Linear:
    """One layer as the kernels see it; a dense layer is one that lists every connection.

    Attributes:
        index: Its connections.
        values: (nnz,) weight of each slot, contiguous; also of those that products leave out (`CsrIndex.used`).
        bias: (n_rows,) contiguous, or None.
    """

    index: CsrIndex
    values: torch.Tensor
    bias: torch.Tensor | None


class Networks:
    """Networks of equal widths that read the same input, e.g. the critics of an ensemble.

    Args:
        networks: The layers of each, first layer first.
        before: Networks of the same widths and type that these replace, whose memory they may use.

    Attributes:
        widths: Neurons of each level, the input first.
        prepared: What a backend derives once, by its name.
        memory: What a backend keeps for passes.

    Raises:
        ValueError: If the tensors do not fit each other: the kernels read memory unchecked.
    """

    def __init__(self, networks: Sequence[Sequence[Linear]], before: Networks | None = None):
        self.networks = tuple(tuple(layers) for layers in networks)
        first = self.networks[0]
        self.widths = (first[0].index.n_cols, *(layer.index.n_rows for layer in first))
        self.dtype = first[0].values.dtype
        self._dtypes = (self.dtype, torch.empty(0, dtype=self.dtype).numpy().dtype)
        self.prepared: dict[str, Any] = {}
        shape = (len(self.networks), self.widths, self.dtype)
        alike = before is not None and (len(before.networks), before.widths, before.dtype) == shape
        self.memory: dict[Any, Any] = before.memory if before is not None and alike else {}
        for layers in self.networks:
            for layer, n_in, n_out in zip(layers, self.widths[:-1], self.widths[1:], strict=True):
                index, values, bias = layer.index, layer.values, layer.bias
                fits = (index.n_cols, index.n_rows, index.row_ptr.size) == (n_in, n_out, n_out + 1)
                fits &= values.shape == index.col.shape and (bias is None or bias.shape == (n_out,))
                fits &= all(t is None or (t.dtype == self.dtype and t.is_contiguous()) for t in (values, bias))
                fits &= index.row_ptr.dtype == np.int64 and index.col.dtype == np.uint32
                fits &= index.row_ptr.flags.c_contiguous and index.col.flags.c_contiguous
                fits = fits and int(index.row_ptr[-1]) == index.nnz
                if not fits:
                    raise ValueError(f"a layer of {tuple(values.shape)} {values.dtype} does not fit {n_out} x {n_in}")

    def tensors(self) -> list[torch.Tensor]:
        """Values and bias, where there is one, of each layer of each network."""
        layers = [layer for layers in self.networks for layer in layers]
        return [tensor for layer in layers for tensor in (layer.values, layer.bias) if tensor is not None]

    def check_inputs(self, inputs: Sequence[Array]) -> None:
        """Raises ValueError unless the parts of an input are (B, width), together widths[0], of the networks' dtype."""
        parts = [(len(part.shape), part.shape[0], part.dtype in self._dtypes) for part in inputs]
        width = sum(part.shape[-1] for part in inputs)
        if width != self.widths[0] or set(parts) != {(2, inputs[0].shape[0], True)}:
            raise ValueError(
                f"the layer takes {self.widths[0]} {self.dtype} features, got {width} of {inputs[0].dtype}"
            )

    def check_gradient(self, dy: Array, batch: int) -> None:
        """Raises ValueError unless `dy` is (networks, batch, widths[-1]) of the networks' dtype."""
        shape = (len(self.networks), batch, self.widths[-1])
        if dy.shape != shape or dy.dtype not in self._dtypes:
            raise ValueError(f"the gradient must be {shape} {self.dtype}, got {tuple(dy.shape)} {dy.dtype}")

    @cached_property
    def nnz(self) -> int:
        """Connections of all networks that products multiply."""
        return sum(self.nnz_of_levels)

    @cached_property
    def nnz_of_levels(self) -> tuple[int, ...]:
        """The same of the first layers of all networks, of their second layers, and so on."""
        return tuple(sum(layer.index.product.nnz for layer in level) for level in zip(*self.networks, strict=True))

    @cached_property
    def learned_of_levels(self) -> tuple[int, ...]:
        """Connections of each level that have a gradient: all that are stored."""
        return tuple(sum(layer.index.nnz for layer in level) for level in zip(*self.networks, strict=True))

    def forward_flops(self, batch: int) -> int:
        """Operations of a forward pass: a multiplication and an addition for each connection and sample."""
        return 2 * batch * self.nnz

    def backward_flops(self, batch: int, request: GradientRequest) -> int:
        """Operations of a backward pass: as many for each gradient by a layer's input that it forms.

        A gradient by weights takes as many for each that is stored. That by the input counts whole, also where only
        some features of it are wanted.
        """
        reached = sum(self.nnz_of_levels[request.lowest :])
        by_inputs = reached if request.inputs else reached - self.nnz_of_levels[request.lowest]
        learned = sum(self.learned_of_levels[request.lowest :]) if request.parameters else 0
        return 2 * batch * (by_inputs + learned)


@dataclass(frozen=True)
class ActivationPair:
    """Where growth looks: what one layer saw in one backward pass.

    Attributes:
        network: Position of the network.
        layer: Position of the layer.
        x: (n_in, B) its input.
        dy: (n_out, B) the gradient at its output.
        a: (n_out, B) what the next layer read, the output after the ReLU; None of the last layer.
    """

    network: int
    layer: int
    x: torch.Tensor
    dy: torch.Tensor
    a: torch.Tensor | None = None


@dataclass(frozen=True)
class GradientRequest:
    """Which results a backward pass is for.

    Attributes:
        inputs: Whether the gradient by the input.
        parameters: Whether those by values and biases.
        lowest: First layer that matters: a gradient by values below it is not formed.
        samples: (network, layer) pairs to return samples of.
        reuse: Whether the gradients by parameters may take the memory of those that the last such pass returned.
        last: By how many of the last features of the input its gradient is wanted; 0 means all of them.
    """

    inputs: bool = True
    parameters: bool = True
    lowest: int = 0
    samples: tuple[tuple[int, int], ...] = ()
    reuse: bool = False
    last: int = 0


@dataclass(frozen=True)
class Gradients:
    """What a backward pass returns.

    Attributes:
        x: (B, features) summed over the networks, or None.
        parameters: (nnz,) and (n_out,) by values and bias of the first layer of the first network, then of its second
            layer, and so on, empty where there is no bias; or None. Those below the lowest layer are 0.
        samples: Those that were asked for, in that order.
    """

    x: Array | None
    parameters: Sequence[torch.Tensor] | None
    samples: list[ActivationPair]
