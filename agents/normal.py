"""Draws from torch's global generator that waiting steps can read."""

from __future__ import annotations

import threading
from typing import Any

import torch

from sparserl.kernels.deferred import Deferred, once_a_stretch
from sparserl.kernels.program import stretch


class _Free(threading.local):
    """Memory by shape; each thread's steps wait for themselves."""

    def __init__(self) -> None:
        self.by_shape: dict[tuple[int, ...], list[tuple[int | None, Any]]] = {}


_free = _Free()


def normal(shape: tuple[int, ...], std: float = 1.0, limit: float | None = None) -> Any:
    """Normal numbers of mean 0, as `torch.empty(shape).normal_(0, std)` draws them.

    Args:
        shape: Of the result.
        std: Standard deviation.
        limit: Numbers beyond +-limit are put there; None leaves them.
    """
    drawn, array = once_a_stretch(_free.by_shape.setdefault(shape, []), lambda: _made(shape))
    drawn.normal_(0, std)
    if limit is not None:
        drawn.clamp_(-limit, limit)
    return array


def _made(shape: tuple[int, ...]) -> tuple[torch.Tensor, Any]:
    """Memory to draw into, and the array that it is."""
    drawn = torch.empty(shape)
    return drawn, drawn.numpy() if stretch() is None else Deferred(drawn.numpy())
