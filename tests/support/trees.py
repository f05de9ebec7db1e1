"""Comparing nested states leaf by leaf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Paths at which two trees differ, bit for bit; NaN equals NaN, a tuple equals the list of its items."""
    if isinstance(left, torch.Tensor | np.ndarray):
        if not isinstance(right, torch.Tensor | np.ndarray):
            return [f"{where}: {type(left).__name__} against {right!r}"]
        a, b = (torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x.detach() for x in (left, right))
        same = (
            a.dtype == b.dtype
            and a.shape == b.shape
            and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())
        )
        return [] if same else [f"{where}: arrays differ ({a.dtype}, {tuple(a.shape)}; {b.dtype}, {tuple(b.shape)})"]
    if isinstance(left, Mapping):
        if not isinstance(right, Mapping) or list(left) != list(right):
            return [f"{where}: keys {list(left)} against {list(right) if isinstance(right, Mapping) else right!r}"]
        return [line for key in left for line in differences(left[key], right[key], f"{where}/{key}")]
    if isinstance(left, list | tuple):
        if not isinstance(right, list | tuple) or len(left) != len(right):
            return [f"{where}: {len(left)} items against {right!r}"]
        pairs = enumerate(zip(left, right, strict=True))
        return [line for position, (a, b) in pairs for line in differences(a, b, f"{where}/{position}")]
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return []
    return [] if type(left) is type(right) and left == right else [f"{where}: {left!r} against {right!r}"]


def assert_equal_trees(left: Any, right: Any) -> None:
    """Fails with the paths that differ."""
    found = differences(left, right)
    assert not found, "\n".join(found[:20])


def exactly(value: Any) -> Any:
    """The value as something whose `==` is equality of bits, not of numbers."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    return np.asarray(value).dtype.str, np.asarray(value).tobytes()
