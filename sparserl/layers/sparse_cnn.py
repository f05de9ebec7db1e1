"""Convolutions and then a multilayer perceptron, of which connections alone are stored and multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sparserl.errors import TopologyError
from sparserl.layers.activations import Function, HiddenUnits
from sparserl.layers.convolution import Convolution, ConvolutionShape, convolution_shapes
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear
from sparserl.layers.sparse_mlp import SparseMLP, begun, goals_of
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import Shape
from sparserl.topology.one_shot import ONE_SHOT

ImageShape = tuple[int, int, int]
"""Channels, height and width; the features of a sample are stored in this order."""


class SparseCNN(SparseMLP):
    """A network whose first layers are kernels of convolutions, and the others those of a multilayer perceptron.

    A kernel is the linear layer that multiplies a patch, so it takes part as any other layer does: a `SparseLinear` of
    (channels) x (numbers of a patch). Inside, images have their channels last: of the inputs of a kernel, and of the
    first layer behind the convolutions, the channel is the fastest index, (row, column, channel). What follows a
    kernel is its activation, then pooling.

    A dense kernel is convolved by torch. A sparse one multiplies the patches of a batch, which are copied out: weights
    and operations fall with the density, time does not. Forward and back, four kernels of 3 x 3 took .9 to 1.7
    of the time of torch's dense ones at density .1, and 1.3 to 2.1 at .5 (batches of 128, one thread).

    Args:
        layers: Kernels, then layers that read vectors.
        image: What it reads.
        convolutions: Of the first layers, in order; at least one, and fewer than there are layers.
        activation: As of `SparseMLP`; a single activation that does the same to every neuron.
        output_activation: As of `SparseMLP`.
        seed: As of `SparseMLP`.
        name: As of `SparseMLP`.

    Attributes:
        shapes: Of the convolutions.

    Raises:
        ConfigError: If the images are too small.
        TopologyError: If a layer does not fit.

    Example:
        >>> layers = [nn.Linear(9, 4), nn.Linear(4 * 3 * 3, 2)]
        >>> SparseCNN(layers, (1, 8, 8), [Convolution(4, 3, pooling=2)])(torch.zeros(5, 64)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        image: ImageShape,
        convolutions: Sequence[Convolution],
        activation: str | HiddenUnits = "relu",
        output_activation: str = "identity",
        *,
        seed: int = 0,
        name: str = "network",
    ):
        super().__init__(layers, activation, output_activation, seed=seed, name=name)
        self.image, self.convolutions = image, tuple(convolutions)
        self.shapes = convolution_shapes(image, convolutions)
        found = [linear(layer).shape for layer in layers]
        wanted = [one.matrix for one in self.shapes]
        if found[: len(wanted)] != wanted or found[len(wanted)][1] != self.shapes[-1].features:
            raise TopologyError(
                f"layers of shapes {found} do not fit kernels of {wanted}, then {self.shapes[-1].features}"
            )

    @classmethod
    def of_images(
        cls,
        image: ImageShape,
        convolutions: Sequence[Convolution],
        sizes: Sequence[int],
        *,
        topology: TopologyConfig,
        seed: int,
        name: str,
        activation: str | HiddenUnits = "relu",
        output_activation: str = "identity",
    ) -> SparseCNN:
        """A network with random topologies of exact size; a layer of density 1 is an ordinary `nn.Linear`.

        Args:
            image: What it reads.
            convolutions: In order.
            sizes: Neurons of each layer behind them.
            topology: As of `SparseMLP.random`; kernels share the density with the other layers.
            seed: Root seed of the topologies, and of dropout; weights are drawn as `SparseMLP.random` draws them.
            name: Of the network.
            activation: As of `SparseMLP`.
            output_activation: As of `SparseMLP`.

        Raises:
            ConfigError: If the images are too small.
            TopologyError: As `TopologyConfig.densities` and `TopologyConfig.initial`, or if connections are to be
                judged by scores.
        """
        check_begins_at_random(topology)
        shapes = cnn_shapes(image, convolutions, sizes)
        begins = list(zip(shapes, topology.densities(shapes), topology.densities_at_first(shapes), strict=True))
        layers = [begun(topology, *begin, seed, f"{name}.{index}") for index, begin in enumerate(begins)]
        network = cls(layers, image, convolutions, activation, output_activation, seed=seed, name=name)
        network.goals = goals_of(topology, begins)
        return network

    def _chain_of(self, layers: Sequence[nn.Module]) -> SparseCNN:
        return SparseCNN(layers, self.image, self.convolutions, output_activation=self.activations[-1])

    def read_by(self, index: int, x: torch.Tensor) -> torch.Tensor:
        if index >= len(self.shapes):
            return x
        one = self.convolutions[index]
        patches: torch.Tensor = _Patches.apply(self._image_of(index, x), one.taps, one.stride)  # type: ignore[no-untyped-call]
        return patches

    def activated(self, index: int, y: torch.Tensor) -> torch.Tensor:
        y = self.functions[index](y)
        if index >= len(self.shapes):
            return y
        y = y.unflatten(1, self.shapes[index].places)  # type: ignore[no-untyped-call]
        pooling = self.convolutions[index].pooling
        if pooling > 1:
            y = functional.max_pool2d(y.movedim(-1, 1), pooling).movedim(1, -1)
        return y.flatten(1) if index == len(self.shapes) - 1 else y

    def _image_of(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """(B, height, width, channels) that a convolution reads; the first one is given the features of samples."""
        return x.unflatten(1, self.image).movedim(1, -1) if index == 0 else x  # type: ignore[no-untyped-call]

    @property
    def widest(self) -> int:
        return max(super().widest, *(one.matrix[1] * one.n_places for one in self.shapes))

    @property
    def one_call(self) -> None:
        return None

    @property
    def has_products_by_torch(self) -> bool:
        kernels = [linear(layer) for layer in list(self)[: len(self.shapes)]]
        return super().has_products_by_torch or not all(kernel.is_sparse for kernel in kernels)

    @property
    def parts(self) -> list[tuple[FusedLayers | nn.Linear, Function]]:
        """What runs in one call behind the convolutions, each with what follows it."""
        if not self.is_unchanged():
            self._cut = list(self._modules.values()), self._cut_from(len(self.shapes))
        return self._cut[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features) to (B, n_out)."""
        for index, (layer, shape) in enumerate(zip(self, self.shapes, strict=False)):
            if linear(layer).is_sparse:
                y = layer(self.read_by(index, x))
            else:
                y = self._convolved_by_torch(layer, shape, self.convolutions[index], self._image_of(index, x))
            x = self.activated(index, y)
        return super().forward(x)

    @staticmethod
    def _convolved_by_torch(
        kernel: Any, shape: ConvolutionShape, convolution: Convolution, x: torch.Tensor
    ) -> torch.Tensor:
        """(B, height, width, channels) to (B, places, channels)."""
        taps = convolution.taps
        weight = kernel.weight.view(shape.matrix[0], taps, taps, -1).movedim(-1, 1)
        y = functional.conv2d(x.movedim(-1, 1), weight, kernel.bias, convolution.stride)
        return y.movedim(1, -1).flatten(1, 2)


def cnn_shapes(image: ImageShape, convolutions: Sequence[Convolution], sizes: Sequence[int]) -> list[Shape]:
    """(outputs, inputs) of each layer, a kernel as the product with a patch; arguments as of `SparseCNN.of_images`.

    Raises:
        ConfigError: If the images are too small.
    """
    kernels = convolution_shapes(image, convolutions)
    widths = [kernels[-1].features, *sizes]
    return [*(one.matrix for one in kernels), *zip(widths[1:], widths[:-1], strict=True)]


def check_begins_at_random(topology: TopologyConfig) -> None:
    """Raises TopologyError if scores are to choose the connections of a network that has convolutions."""
    kind = topology.part("initial_topology")
    if kind in ONE_SHOT and not topology.base.dense:
        raise TopologyError(
            f"topology.initial_topology {kind} is for networks that read vectors; use random with images"
        )


class _Patches(torch.autograd.Function):
    """(B, height, width, channels) to (B, places, taps * taps * channels); a row of a patch is copied in one piece."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, taps: int, stride: int) -> torch.Tensor:
        x = x.contiguous()
        batch, height, width, channels = x.shape
        rows, columns = ((side - taps) // stride + 1 for side in (height, width))
        ctx.of = x.shape, rows, columns, taps, stride
        by_row = width * channels  # not `x.stride()`, which says anything of a side of 1
        view = x.as_strided(
            (batch, rows, columns, taps, taps * channels),
            (height * by_row, by_row * stride, channels * stride, by_row, 1),
        )
        return view.reshape(batch, rows * columns, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        shape, rows, columns, taps, stride = ctx.of
        by_tap = gradients[0].reshape(shape[0], rows, columns, taps, taps, shape[-1])
        dx = gradients[0].new_zeros(shape)
        down, along = stride * (rows - 1) + 1, stride * (columns - 1) + 1
        for row in range(taps):
            for column in range(taps):
                dx[:, row : row + down : stride, column : column + along : stride] += by_tap[:, :, :, row, column]
        return dx, None, None
