"""How a policy makes features of images, as plain arrays: convolutions, and a linear layer behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sparserl.errors import ConfigError
from sparserl.export.layers import Floats, PolicyLayer
from sparserl.layers.convolution import SparseConv, kernel_of

BRIGHTEST = np.array(255, np.float32)
"""Images are read as shares of this."""


@dataclass(frozen=True, eq=False)
class PolicyConvolution:
    """A convolution without padding.

    Attributes:
        kernel: Reads a patch (channels, rows, columns), flattened.
        taps: Rows and columns of a patch.
        stride: Steps between patches, likewise.
    """

    kernel: PolicyLayer
    taps: tuple[int, int]
    stride: tuple[int, int]

    @classmethod
    def of(cls, module: nn.Module) -> PolicyConvolution:
        """From a trained convolution, dense or sparse.

        Raises:
            ConfigError: If it is another module, or has padding or dilation.
        """
        if not isinstance(module, SparseConv | nn.Conv2d):
            raise ConfigError(f"a {type(module).__name__} is no convolution")
        padding = module.padding if isinstance(module, nn.Conv2d) else sum(module.padding, ())
        if len(module.kernel_size) != 2 or set(padding) != {0} or set(module.dilation) != {1}:
            raise ConfigError("convolutions of images without padding and dilation can be exported")
        kernel = PolicyLayer.of(kernel_of(module))
        taps, stride = tuple(module.kernel_size), tuple(module.stride)
        return cls(kernel, taps, stride)  # type: ignore[arg-type]  # two of each

    def __call__(self, x: Floats) -> Floats:
        """(channels, rows, columns) to the same with other channels."""
        patches = np.lib.stride_tricks.sliding_window_view(x, self.taps, axis=(1, 2))
        patches = patches[:, :: self.stride[0], :: self.stride[1]].transpose(1, 2, 0, 3, 4)
        y = self.kernel(np.ascontiguousarray(patches).reshape(*patches.shape[:2], -1))
        return np.ascontiguousarray(y.transpose(2, 0, 1))


@dataclass(frozen=True, eq=False)
class PolicyImages:
    """From images to features; behind each layer stands a ReLU.

    Attributes:
        shape: Of an image, of uint8, as the environment gives it.
        channels_last: Whether its channels are the last axis, not the first.
        convolutions: In order.
        linear: Reads what the last of them gives (channels, rows, columns), flattened.
    """

    shape: tuple[int, int, int]
    channels_last: bool
    convolutions: Sequence[PolicyConvolution]
    linear: PolicyLayer

    @property
    def layers(self) -> dict[str, PolicyLayer]:
        """All of them, by name."""
        kernels = {f"convolution{index}": one.kernel for index, one in enumerate(self.convolutions)}
        return {**kernels, "features": self.linear}

    @property
    def about(self) -> dict[str, str]:
        """What a file says beside the arrays."""
        sizes = {
            f"convolution{index}": f"{one.taps[0]} x {one.taps[1]}, stride {one.stride[0]} x {one.stride[1]}"
            for index, one in enumerate(self.convolutions)
        }
        return {"image": " ".join(map(str, self.shape)), "channels": "last" if self.channels_last else "first", **sizes}

    def __call__(self, image: np.ndarray[Any, Any]) -> Floats:
        """An image to its features."""
        x = np.asarray(image, np.float32) / BRIGHTEST
        x = np.ascontiguousarray(x.transpose(2, 0, 1)) if self.channels_last else x
        for convolution in self.convolutions:
            x = np.maximum(convolution(x), 0)
        return np.maximum(self.linear(x.ravel()), 0)
