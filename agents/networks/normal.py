"""Draws from torch's global generator that waiting steps can read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels.deferred import filled


def normal(shape: tuple[int, ...], std: float = 1.0, limit: float | None = None) -> Any:
    """Normal numbers of mean 0, as `torch.empty(shape).normal_(0, std)` draws them.

    Args:
        shape: Of the result.
        std: Standard deviation.
        limit: Numbers beyond +-limit are put there; None leaves them.
    """

    def draw(memory: npt.NDArray[np.float32]) -> None:
        drawn = torch.from_numpy(memory).normal_(0, std)
        if limit is not None:
            drawn.clamp_(-limit, limit)

    return filled(shape, draw)
