"""What a backend computes with: networks side by side, each a chain of linear layers, and what stands between them.

A network has levels: its input is level 0, and layer k makes level k + 1 of level k. What a layer multiplies is level k
itself or, with a `Norm`, that level normalised; to its sums an earlier level may be added, and an activation follows
(`After`). Without any of these a network is a chain of layers with a ReLU between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sparserl.kernels.deferred import Array
from sparserl.kernels.index import CsrIndex


@dataclass(frozen=True)
class NormKind:
    """A way to make what a product reads of a level.

    Attributes:
        by_sample: Whether mean and variance of the neurons of each sample come first.
        forward_flops: Operations an entry of the level, forward.
        backward_flops: The same for the gradient by the level.
        learned_flops: The same for the gradients by scale and shift; 0: they are given, and have none.
        by_batch: Whether mean and variance of each neuron over the samples come first.
    """

    by_sample: bool
    forward_flops: int
    backward_flops: int
    learned_flops: int
    by_batch: bool = False


NORMS = {
    # A mean, a variance (3), the difference, its quotient, scale and shift.
    "layer": NormKind(by_sample=True, forward_flops=8, backward_flops=12, learned_flops=3),
    "affine": NormKind(by_sample=False, forward_flops=2, backward_flops=1, learned_flops=0),
    # A mean, a variance (3), the difference, scale and shift.
    "batch": NormKind(by_sample=False, forward_flops=7, backward_flops=5, learned_flops=4, by_batch=True),
}
"""`layer`: Ba et al. 2016, equations 3 and 4, with epsilon added to the variance as in `torch.nn.LayerNorm`. `affine`:
scale and shift alone, which are given: what a normalisation by statistics of earlier samples comes down to. `batch`:
Ioffe 2017, Batch Renormalization, as `sparserl.layers.batch_renorm` has it."""

ACTIVATIONS = ("identity", "relu", "tanh")
"""What may follow a layer."""
CONSTANT = 1e-6
"""Share of a norm's epsilon up to which a variance is one of rounding: its root then counts as constant."""


@dataclass(frozen=True)
class BatchStatistics:
    """What a `batch` norm knows of earlier batches, and says of the latest; contiguous, of the networks' type.

    Attributes:
        mean: (n_cols,) running mean.
        var: (n_cols,) running variance.
        bounds: (2,) most that the deviation of a batch may differ by, as a factor >= 1 in either direction, and its
            mean, in deviations, >= 0: with 1 and 0 the batch alone decides.
        latest: (2, n_cols) mean and variance without bias of the latest batch, which a pass writes.
    """

    mean: torch.Tensor
    var: torch.Tensor
    bounds: torch.Tensor
    latest: torch.Tensor

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of them."""
        return [self.mean, self.var, self.bounds, self.latest]

    def fits(self, n_cols: int) -> bool:
        """Whether they are for so many neurons."""
        fits = self.mean.shape == self.var.shape == (n_cols,)
        return fits and self.bounds.shape == (2,) and self.latest.shape == (2, n_cols)


@dataclass(frozen=True)
class Norm:
    """What stands before a product: `scale * normalised + shift`, neuron by neuron.

    Attributes:
        kind: Name in `NORMS`.
        scale: (n_cols,) contiguous.
        shift: The same.
        epsilon: Added to a variance, > 0.
        batch: Of a `batch` norm.
    """

    kind: str
    scale: torch.Tensor
    shift: torch.Tensor
    epsilon: float = 1e-5
    batch: BatchStatistics | None = None


@dataclass(frozen=True)
class After:
    """What follows the product of a layer; the same in all networks side by side.

    Attributes:
        activation: What stands at the end, in `ACTIVATIONS`.
        added: Level that is added to the sums before that, at most as late as the one that the layer reads; None: none.
    """

    activation: str
    added: int | None = None


def chain(activations: Iterable[str]) -> tuple[After, ...]:
    """What follows the layers of a chain, given what stands between them."""
    return (*map(After, activations), After("identity"))


@dataclass(frozen=True)
class Linear:
    """One layer as the kernels see it; a dense layer is one that lists every connection.

    Attributes:
        index: Its connections.
        values: (nnz,) weight of each slot, contiguous; also of those that products leave out (`CsrIndex.used`).
        bias: (n_rows,) contiguous, or None.
        norm: Of the level that it reads, or None.
    """

    index: CsrIndex
    values: torch.Tensor
    bias: torch.Tensor | None
    norm: Norm | None = None

    @property
    def learns_norm(self) -> bool:
        """Whether scale and shift have gradients."""
        return self.norm is not None and NORMS[self.norm.kind].learned_flops > 0

    @property
    def tensors(self) -> list[torch.Tensor | None]:
        """Values, bias and, where there is a norm, its scale and shift."""
        norm = self.norm
        return [self.values, self.bias, *(() if norm is None else (norm.scale, norm.shift))]

    @property
    def gradient_sizes(self) -> list[int]:
        """Entries of the gradients by `tensors`; 0 where there is none."""
        bias = 0 if self.bias is None else self.bias.numel()
        of_norm = [self.index.n_cols if self.learns_norm else 0] * 2 if self.norm is not None else []
        return [self.index.nnz, bias, *of_norm]


class Networks:
    """Networks of equal widths that read the same input, e.g. the critics of an ensemble.

    Args:
        networks: The layers of each, first layer first.
        before: Networks of the same widths and type that these replace, whose memory they may use.
        after: What follows each layer; a `chain` with ReLUs if None.

    Attributes:
        widths: Neurons of each level, the input first.
        after: What follows each layer.
        norms: Kind of the norm before each layer, or None.
        prepared: What a backend derives once, by its name.
        memory: What a backend keeps for passes.

    Raises:
        ValueError: If the tensors do not fit each other: the kernels read memory unchecked.
    """

    def __init__(
        self,
        networks: Sequence[Sequence[Linear]],
        before: Networks | None = None,
        after: Sequence[After] | None = None,
    ):
        self.networks = tuple(tuple(layers) for layers in networks)
        first = self.networks[0]
        self.widths = (first[0].index.n_cols, *(layer.index.n_rows for layer in first))
        self.after = chain(["relu"] * (len(first) - 1)) if after is None else tuple(after)
        self.norms = _kinds(first)
        self.dtype = first[0].values.dtype
        self._dtypes = (self.dtype, torch.empty(0, dtype=self.dtype).numpy().dtype)
        self.prepared: dict[str, Any] = {}
        self._check()
        alike = before is not None and before.form == self.form
        self.memory: dict[Any, Any] = before.memory if before is not None and alike else {}

    @property
    def form(self) -> tuple[object, ...]:
        """What memory for passes depends on: networks of one form can share it."""
        return len(self.networks), self.widths, self.dtype, self.after, self.norms

    def _check(self) -> None:
        """Raises ValueError unless all fits."""
        if len(self.after) != len(self.networks[0]) or self.after[-1].activation != "identity":
            raise ValueError(f"{len(self.networks[0])} layers need as much after them, and nothing at the end")
        for place, after in enumerate(self.after):
            level, width = after.added, self.widths[place + 1]
            if after.activation not in ACTIVATIONS:
                raise ValueError(f"after layers stands one of {ACTIVATIONS}, not {after.activation!r}")
            if level is not None and (not 0 <= level <= place or self.widths[level] != width):
                raise ValueError(f"level {level} cannot be added to the {width} sums of layer {place}")
            if level is not None and self.by_batch:
                raise ValueError("levels are added to no sums where norms are of batches")
        for layers in self.networks:
            if _kinds(layers) != self.norms:
                raise ValueError("networks side by side need the same norms")
            for layer, n_in, n_out in zip(layers, self.widths[:-1], self.widths[1:], strict=True):
                index, values, bias, norm = layer.index, layer.values, layer.bias, layer.norm
                fits = (index.n_cols, index.n_rows, index.row_ptr.size) == (n_in, n_out, n_out + 1)
                fits &= values.shape == index.col.shape and (bias is None or bias.shape == (n_out,))
                fits &= norm is None or (norm.kind in NORMS and norm.epsilon > 0.0)
                fits &= norm is None or norm.scale.shape == norm.shift.shape == (n_in,)
                fits = fits and (norm is None or (norm.batch is not None) == NORMS[norm.kind].by_batch)
                given = [] if norm is None or norm.batch is None else norm.batch.tensors
                fits = fits and (norm is None or norm.batch is None or norm.batch.fits(n_in))
                fits &= all(
                    t is None or (t.dtype == self.dtype and t.is_contiguous()) for t in [*layer.tensors, *given]
                )
                fits &= index.row_ptr.dtype == np.int64 and index.col.dtype == np.uint32
                fits &= index.row_ptr.flags.c_contiguous and index.col.flags.c_contiguous
                fits = fits and int(index.row_ptr[-1]) == index.nnz
                if not fits:
                    raise ValueError(f"a layer of {tuple(values.shape)} {values.dtype} does not fit {n_out} x {n_in}")

    @cached_property
    def by_batch(self) -> list[int]:
        """Layers whose norm is of batches."""
        return [layer for layer, kind in enumerate(self.norms) if kind is not None and NORMS[kind].by_batch]

    def tensors(self) -> list[torch.Tensor]:
        """The `Linear.tensors` that are there, of each layer of each network."""
        layers = [layer for layers in self.networks for layer in layers]
        return [tensor for layer in layers for tensor in layer.tensors if tensor is not None]

    def check_inputs(self, inputs: Sequence[Array]) -> None:
        """Raises ValueError unless the parts of an input are (B, width), together widths[0], of the networks' dtype."""
        parts = [(len(part.shape), part.shape[0], part.dtype in self._dtypes) for part in inputs]
        width = sum(part.shape[-1] for part in inputs)
        if width != self.widths[0] or set(parts) != {(2, inputs[0].shape[0], True)}:
            raise ValueError(
                f"the layer takes {self.widths[0]} {self.dtype} features, got {width} of {inputs[0].dtype}"
            )
        if self.by_batch and inputs[0].shape[0] < 2:
            raise ValueError(f"batch norms need at least 2 samples, got {inputs[0].shape[0]}")

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
        """Operations of a forward pass.

        A multiplication and an addition for each connection and sample; those of norms as `NORMS` says; an addition for
        each neuron to which a level is added.
        """
        norms = self._around(0, "forward_flops")
        return batch * (2 * self.nnz + norms + self._added(0))

    def backward_flops(self, batch: int, request: GradientRequest) -> int:
        """Operations of a backward pass: as many for each gradient by a layer's input that it forms.

        A gradient by weights takes as many for each that is stored. That by the input counts whole, also where only
        some features of it are wanted.
        """
        first = self.first_backward(request)
        by_inputs = sum(self.nnz_of_levels[first:])
        learned = sum(self.learned_of_levels[request.lowest :]) if request.parameters else 0
        norms = self._around(first, "backward_flops")
        norms += self._around(request.lowest, "learned_flops") if request.parameters else 0
        return batch * (2 * (by_inputs + learned) + norms + self._added(first))

    def first_backward(self, request: GradientRequest) -> int:
        """First layer whose gradient by what it multiplies is formed."""
        if request.inputs:
            return 0
        learns = request.parameters and self.networks[0][request.lowest].learns_norm
        return request.lowest + (0 if learns else 1)

    def _around(self, first: int, flops: str) -> int:
        """Operations a sample of the norms of all networks from a layer on; `flops` is the attribute of their kind."""
        norms = list(zip(self.norms, self.widths, strict=False))[first:]
        each: list[int] = [width * getattr(NORMS[kind], flops) for kind, width in norms if kind is not None]
        return len(self.networks) * sum(each)

    def _added(self, first: int) -> int:
        """Additions a sample of levels to sums, or of their gradients, in all networks, from a level on."""
        levels = (after.added for after in self.after if after.added is not None and after.added >= first)
        return len(self.networks) * sum(self.widths[level] for level in levels)


def _kinds(layers: Sequence[Linear]) -> tuple[str | None, ...]:
    """Of the norm of each layer."""
    return tuple(None if layer.norm is None else layer.norm.kind for layer in layers)


@dataclass(frozen=True)
class ActivationPair:
    """Where growth looks: what one layer saw in one backward pass.

    Attributes:
        network: Position of the network.
        layer: Position of the layer.
        x: (n_in, B) what it multiplied.
        dy: (n_out, B) the gradient at its sums.
        a: (n_out, B) the level that it made; None of the last layer.
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
        parameters: By the `Linear.tensors` of the first layer of the first network, then of its second layer, and so
            on, empty where there is no bias or a norm is not learned; or None. Those below the lowest layer are 0.
        samples: Those that were asked for, in that order.
    """

    x: Array | None
    parameters: Sequence[torch.Tensor] | None
    samples: list[ActivationPair]
