"""Draws from torch's global generator that waiting steps can read."""

from __future__ import annotations

from typing import Any

import torch

from sparserl.kernels.deferred import Deferred, take
from sparserl.kernels.program import stretch

_free: dict[tuple[int, ...], list[tuple[int | None, Any]]] = {}


def normal(shape: tuple[int, ...], std: float = 1.0, limit: float | None = None) -> Any:
    """Normal numbers of mean 0, as `torch.empty(shape).normal_(0, std)` draws them.

    Args:
        shape: Of the result.
        std: Standard deviation.
        limit: Numbers beyond +-limit are put there; None leaves them.
    """
    free = _free.setdefault(shape, [])
    found = take(free) if stretch() is not None else None
    if found is None:
        drawn = torch.empty(shape)
        found = drawn, drawn.numpy() if stretch() is None else Deferred(drawn.numpy())
    drawn, array = found
    drawn.normal_(0, std)
    if limit is not None:
        drawn.clamp_(-limit, limit)
    if stretch() is not None:
        free.append((stretch(), found))
    return array
