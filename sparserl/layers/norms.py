"""What stands before a layer: layer normalisation, and normalisation by statistics of all observations so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sparserl.kernels import Norm
from sparserl.layers.batch_renorm import BatchRenorm


class RunningNorm(nn.Module):
    """`(x - mean) / sqrt(var + epsilon)` of the first features of an input, by statistics of all that was observed.

    Networks that read the same observations share one; features beyond them pass as they are.

    Args:
        n: Features that are observed.
        n_more: Features that may follow, such as actions.
        epsilon: Added to the variance.

    Attributes:
        mean: (n,) float64.
        var: (n,) float64.
        count: () float64, observations behind them.

    Source:
        Lee et al. 2024 (SimBa, "RSNorm"), and its code: what an agent acts on in training enters the statistics before
        it acts; transitions are stored as they were met, and normalised by the present statistics when they are read.

    Known differences from that code: statistics are of float64, there of the type of observations; it begins as
    Gymnasium's `RunningMeanStd`, with mean 0, variance 1 and a count of 1e-4. The wrapper
    `NormalizeObservations` is another way: there, transitions are stored as they were normalised when they were met.
    """

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, n: int, n_more: int = 0, epsilon: float = 1e-8):
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("var", torch.ones(n, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(1e-4, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n + n_more), persistent=False)
        self.register_buffer("shift", torch.zeros(n + n_more), persistent=False)
        self._apply_statistics()

    def observe(self, observations: np.ndarray) -> None:
        """Lets (B, n) observations enter the statistics; of the parallel formula of Chan et al. 1979."""
        rows = np.asarray(observations, np.float64)
        mean, var, count = self.mean.numpy(), self.var.numpy(), float(self.count)
        apart, total = rows.mean(axis=0) - mean, count + len(rows)
        squares = var * count + rows.var(axis=0) * len(rows) + np.square(apart) * (count * len(rows) / total)
        mean += apart * (len(rows) / total)
        var[:] = squares / total
        self.count.fill_(total)
        self._apply_statistics()

    def _apply_statistics(self) -> None:
        # In place, and past torch: kernels know them by address, and no gradient goes through them.
        factor = 1.0 / np.sqrt(self.var.numpy() + self.epsilon)
        self.scale.numpy()[: factor.size] = factor
        self.shift.numpy()[: factor.size] = -self.mean.numpy() * factor

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._apply_statistics()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) or (B, n + more) to the same."""
        width = x.shape[-1]
        return x * self.scale[:width] + self.shift[:width]


BeforeLayer: TypeAlias = nn.LayerNorm | RunningNorm | BatchRenorm
"""What may stand before a layer; a `nn.LayerNorm` over the neurons of a sample, with scale and shift."""


def tensors_of(norm: BeforeLayer, width: int) -> list[torch.Tensor]:
    """Scale and shift of a norm for an input of some width, on the memory that the norm has."""
    if isinstance(norm, RunningNorm):
        return [norm.scale[:width], norm.shift[:width]]
    if isinstance(norm, BatchRenorm):
        return [norm.scale, norm.shift]
    return [norm.weight, norm.bias]


def described(norm: BeforeLayer, tensors: Sequence[torch.Tensor | None]) -> Norm:
    """A norm as the kernels see it, given its `tensors_of`."""
    scale, shift = (tensor.detach() for tensor in tensors if tensor is not None)
    if isinstance(norm, RunningNorm):
        return Norm("affine", scale, shift)
    if isinstance(norm, BatchRenorm):
        return Norm("batch", scale, shift, norm.options.eps, norm.statistics)
    return Norm("layer", scale, shift, norm.eps)
