"""Batch renormalisation: each feature to mean 0 and variance 1 over the samples of a batch, then a scale and a shift.

Decides what a feature becomes in training and in use. Independent of layers and connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.kernels.networks import CONSTANT, BatchStatistics

R_MAX = 3.0
"""Most by which the deviation of a batch may differ from the running one, as a factor in either direction."""
D_MAX = 5.0
"""Most by which the mean of a batch may differ from the running one, in running deviations."""


@dataclass(frozen=True)
class BatchNormOptions:
    """Numbers of `BatchRenorm`; the defaults are those of sb3-contrib's CrossQ.

    Attributes:
        momentum: Share of a batch's statistics in the running ones, in (0, 1].
        eps: Added to variances, > 0.
        warmup_steps: Batches that are normalised by their own statistics alone, >= 0.
    """

    momentum: float = 0.01
    eps: float = 0.001
    warmup_steps: int = 100_000


class BatchRenorm(nn.Module):
    """Batch renormalisation of (B, n) features.

    In use features are normalised by running statistics. In training by those of the batch, and after the warm-up in
    such a way that the result is that of the running statistics as long as the batch's differ little from them; what
    they differ by is a constant in the derivative. A training pass leaves the running statistics as they are, until
    `follow_batch` is called.

    Args:
        n: Features.
        options: Its numbers.

    Attributes:
        scale: (n,) parameter.
        shift: (n,) parameter.
        mean: (n,) running mean.
        var: (n,) running variance, of batches without bias.
        steps: Batches that the running statistics have followed.
        bounds: (2,) most that a batch may differ by from the running statistics: 1 and 0 in the warm-up.
        latest: (2, n) mean and variance without bias of the latest batch, where there was one since the last step.
        has_latest: Whether there was.

    Source:
        Ioffe 2017, Batch Renormalization, Algorithm 1; Bhatt et al. 2024, CrossQ. Limits, warm-up and the place of
        `eps` as in sb3-contrib, where both limits hold in full once the warm-up is over; in the paper they widen.

    Known differences from sb3-contrib: a feature that is the same in the whole batch has a derivative; there, it is NaN
    after the warm-up.
    """

    mean: torch.Tensor
    var: torch.Tensor
    steps: torch.Tensor
    bounds: torch.Tensor
    latest: torch.Tensor

    def __init__(self, n: int, options: BatchNormOptions | None = None):
        super().__init__()
        self.options = options or BatchNormOptions()
        self.scale, self.shift = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("var", torch.ones(n))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bounds", torch.tensor([1.0, 0.0]), persistent=False)
        self.register_buffer("latest", torch.zeros(2, n), persistent=False)
        self.has_latest = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) to (B, n) by the running statistics."""
        factor, summand = self.in_use()
        return torch.addcmul(summand, x, factor)

    def in_use(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(n,) factor and (n,) summand of each feature, which are all that it does by the running statistics."""
        factor = self.scale * (self.var + self.options.eps).rsqrt()
        return factor, self.shift - factor * self.mean

    def by_batch(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) to (B, n) by the statistics of the batch.

        Raises:
            ConfigError: If it has a single sample.
        """
        check_batch(len(x))
        self.begin_batch()
        self.latest[1], self.latest[0] = torch.var_mean(x.detach(), dim=0)
        mean, var = self.latest.clone()
        y: torch.Tensor = _ByBatch.apply(
            x, self.scale, self.shift, mean, var, *self._correction(mean, var), self.options.eps
        )  # type: ignore[no-untyped-call]
        return y

    def begin_batch(self) -> None:
        """Says which bounds hold for a pass that will write `latest`."""
        bounds = (1.0, 0.0) if int(self.steps) <= self.options.warmup_steps else (R_MAX, D_MAX)
        for place, bound in enumerate(bounds):
            self.bounds[place] = bound
        self.has_latest = True

    def _correction(self, mean: torch.Tensor, var: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """r and d of the paper, given the statistics of a batch."""
        (r_max, d_max), running = self.bounds.tolist(), (self.var + self.options.eps).sqrt()
        r = ((var + self.options.eps).sqrt() / running).clamp_(1 / r_max, r_max)
        return r, ((mean - self.mean) / running).clamp_(-d_max, d_max)

    def follow_batch(self) -> None:
        """Moves the running statistics toward those of the latest batch; a second call does nothing."""
        if not self.has_latest:
            return
        for running, latest in zip((self.mean, self.var), self.latest, strict=True):
            running += self.options.momentum * (latest - running)
        self.steps += 1
        self.has_latest = False

    @property
    def statistics(self) -> BatchStatistics:
        """As the kernels see them."""
        return BatchStatistics(self.mean, self.var, self.bounds, self.latest)

    def extra_repr(self) -> str:
        """Features and numbers."""
        return f"{self.scale.numel()}, {self.options}"


def check_batch(size: int) -> None:
    """Raises ConfigError if a batch is too small to have a variance."""
    if size < 2:
        raise ConfigError(f"batch normalisation needs a batch of at least 2 samples, got a batch size of {size}")


class _ByBatch(torch.autograd.Function):
    """`scale * (x - M) / sqrt(V + eps) + shift`, of the batch `M = mean - d sqrt(var) / r` and `V = var / r**2`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        mean: torch.Tensor,
        var: torch.Tensor,
        r: torch.Tensor,
        d: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        inverse = (var / r**2 + eps).rsqrt()
        center = mean - d * var.sqrt() / r
        ctx.eps = eps
        ctx.save_for_backward(x, scale, mean, var, r, d, inverse, center)
        factor = scale * inverse
        return torch.addcmul(shift - factor * center, x, factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scale, mean, var, r, d, inverse, center = ctx.saved_tensors
        gradient, count = gradients[0], len(x)
        by_shift = gradient.sum(dim=0)
        by_scale = inverse * ((gradient * x).sum(dim=0) - center * by_shift)
        by_x = None
        if ctx.needs_input_grad[0]:
            factor = scale * inverse
            by_center, by_v = -factor * by_shift, -0.5 * scale * inverse**2 * by_scale
            # The root of a variance of 0, or of rounding, has no derivative.
            by_root = torch.where(var > CONSTANT * ctx.eps, -d / (2 * r * var.sqrt()), 0)
            by_var = (by_center * by_root + by_v / r**2) * (2 / (count - 1))
            by_x = torch.addcmul(by_center / count - by_var * mean, gradient, factor).addcmul_(x, by_var)
        return by_x, by_scale, by_shift, None, None, None, None, None
