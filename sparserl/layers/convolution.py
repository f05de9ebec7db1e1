"""Convolutions whose connections alone are stored and multiplied: a sparse layer over unfolded patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers.linear import linear

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}
"""torch's names for the padding of convolutions -> those of `torch.nn.functional.pad`."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of square patches without padding, and what follows its activation.

    Attributes:
        channels: That it gives.
        taps: Side of a patch.
        stride: Steps between patches.
        pooling: Side of the squares of which the largest activation stays; 1: all stay.
    """

    channels: int
    taps: int
    stride: int = 1
    pooling: int = 1


@dataclass(frozen=True)
class ConvolutionShape:
    """What a convolution is for an image of a certain size.

    Attributes:
        matrix: (channels, numbers of a patch), of the product with a patch.
        places: Patches along each side.
        pooled: Places along each side after pooling.
    """

    matrix: tuple[int, int]
    places: tuple[int, int]
    pooled: tuple[int, int]

    @property
    def n_places(self) -> int:
        """Patches of an image."""
        return self.places[0] * self.places[1]

    @property
    def features(self) -> int:
        """Numbers that it gives for an image."""
        return self.matrix[0] * self.pooled[0] * self.pooled[1]


def convolution_shapes(image: tuple[int, int, int], convolutions: Sequence[Convolution]) -> list[ConvolutionShape]:
    """Shapes of consecutive convolutions.

    Args:
        image: Channels, height and width of what the first reads.
        convolutions: In order.

    Raises:
        ConfigError: If a patch, or a square of pooling, is larger than what it would be taken of.

    Example:
        >>> first, second = convolution_shapes((1, 28, 28), [Convolution(32, 3, pooling=2), Convolution(64, 3, 2)])
        >>> first.matrix, first.places, first.pooled, second.matrix, second.features
        ((32, 9), (26, 26), (13, 13), (64, 288), 2304)
    """
    channels, *sides = image
    shapes = []
    for number, one in enumerate(convolutions, 1):
        places = [(side - one.taps) // one.stride + 1 for side in sides]
        pooled = [side // one.pooling for side in places]
        if min(pooled) < 1:
            what, of = (f"patches of {one.taps} x {one.taps}", sides)
            if min(places) >= 1:
                what, of = (f"pooling of {one.pooling} x {one.pooling}", places)
            raise ConfigError(f"{what} in convolution {number} do not fit into {of[0]} x {of[1]}")
        matrix = one.channels, channels * one.taps**2
        shapes.append(ConvolutionShape(matrix, (places[0], places[1]), (pooled[0], pooled[1])))
        channels, sides = one.channels, pooled
    return shapes


class SparseConv(nn.Module):
    """`nn.Conv1d` or `nn.Conv2d` as one linear layer that reads a patch for each place of the output.

    Output channels are the outputs of the child `kernel`, and its inputs are (input channel, taps) as torch flattens
    them. The unfolded patches take `taps` times the memory of the input; what has no connection costs nothing beyond.

    Args:
        kernel: `SparseLinear` or `nn.Linear` of (out_channels) x (in_channels times taps).
        kernel_size: Taps in each dimension, one or two of them.
        stride: Steps between patches.
        padding: Zeros, or what `padding_mode` says, before and after each dimension.
        dilation: Distance between taps.
        padding_mode: Name in `PADDING_MODES`.

    Raises:
        TopologyError: If the kernel does not read whole patches.
        ConfigError: In a call: if the input has other channels or dimensions.
    """

    def __init__(
        self,
        kernel: nn.Module,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        padding_mode: str = "zeros",
    ):
        super().__init__()
        self.kernel = kernel
        self.kernel_size, self.stride, self.dilation = tuple(kernel_size), tuple(stride), tuple(dilation)
        self.padding, self.padding_mode = tuple(padding), padding_mode
        taps = torch.Size(kernel_size).numel()
        self.out_channels, n_in = linear(kernel).shape
        self.in_channels, rest = divmod(n_in, taps)
        if rest:
            raise TopologyError(f"a kernel of {n_in} inputs is no whole number of channels of {taps} taps")

    @classmethod
    def like(cls, convolution: nn.Conv1d | nn.Conv2d, kernel: nn.Module) -> SparseConv:
        """The same convolution with another kernel."""
        own = convolution
        if own.padding == "same":
            total = [distance * (taps - 1) for distance, taps in zip(own.dilation, own.kernel_size, strict=True)]
            padding = [(one // 2, one - one // 2) for one in total]
        else:
            padding = [(0, 0) if isinstance(one, str) else (one, one) for one in _by_dimension(own)]
        return cls(kernel, own.kernel_size, own.stride, padding, own.dilation, own.padding_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, length) or (N, C, height, width) to the same with other channels; one sample without the N, too."""
        dimensions = len(self.kernel_size)
        if x.dim() not in (dimensions + 1, dimensions + 2) or x.shape[-dimensions - 1] != self.in_channels:
            places = "length" if dimensions == 1 else "height, width"
            raise ConfigError(f"the convolution takes (N, {self.in_channels}, {places}), got {tuple(x.shape)}")
        is_batch = x.dim() == dimensions + 2
        padded = x if is_batch else x.unsqueeze(0)
        if any(map(any, self.padding)):
            around = [amount for pair in reversed(self.padding) for amount in pair]
            padded = nn.functional.pad(padded, around, PADDING_MODES[self.padding_mode])
        sizes = [
            (length - distance * (taps - 1) - 1) // step + 1
            for length, taps, step, distance in zip(
                padded.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        ]
        y: torch.Tensor = self.kernel(self._patches(padded))
        y = y.transpose(1, 2).reshape(len(padded), self.out_channels, *sizes)
        return y if is_batch else y.squeeze(0)

    def _patches(self, x: torch.Tensor) -> torch.Tensor:
        """(N, places, C * taps)."""
        if len(self.kernel_size) == 1:
            x = x.unsqueeze(2)
        kernel_size, stride, dilation = (
            ((1, *one) if len(one) == 1 else one) for one in (self.kernel_size, self.stride, self.dilation)
        )
        return nn.functional.unfold(x, kernel_size, dilation=dilation, stride=stride).transpose(1, 2)

    def extra_repr(self) -> str:
        """Channels, and what differs from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if any(map(any, self.padding)):
            parts.append(f"padding={self.padding}")
        if any(one > 1 for one in self.dilation):
            parts.append(f"dilation={self.dilation}")
        return ", ".join(parts)


def kernel_of(convolution: nn.Module) -> nn.Module:
    """The kernel of a convolution, dense or sparse, as the linear layer that reads patches; weights are shared.

    Raises:
        ConfigError: If it is another module, or has groups.
    """
    if isinstance(convolution, SparseConv):
        return convolution.kernel
    if not isinstance(convolution, nn.Conv1d | nn.Conv2d) or convolution.groups > 1:
        raise ConfigError(f"a {type(convolution).__name__} is no convolution of all channels")
    n_out = convolution.out_channels
    kernel = nn.Linear(convolution.weight[0].numel(), n_out, bias=convolution.bias is not None)
    kernel.weight, kernel.bias = nn.Parameter(convolution.weight.detach().view(n_out, -1)), convolution.bias  # type: ignore[assignment]  # None there, too
    return kernel


def _by_dimension(convolution: nn.Conv1d | nn.Conv2d) -> list[int | str]:
    padding = convolution.padding
    return [padding] * len(convolution.kernel_size) if isinstance(padding, str) else list(padding)
