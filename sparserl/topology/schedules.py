"""Schedules as pure functions of the gradient-update index."""

from __future__ import annotations

import math
from collections.abc import Callable

Decay = Callable[[int, int | None], float]


def constant(update: int, last_update: int | None) -> float:
    """1 at every update."""
    del update, last_update
    return 1.0


def cosine(update: int, last_update: int | None) -> float:
    """Half a cosine from 1 at update 0 to 0 at `last_update`, and 0 after it.

    The clock is the global update index and is not shifted by the first event, as in RigL's code.

    Raises:
        ValueError: If `last_update` is None: the curve has no end to aim at.

    Source:
        Evci et al. 2020 (RigL), section 3, `f_decay`.

    Example:
        >>> [round(0.3 * cosine(t, 750), 4) for t in (0, 100, 375, 600, 750)]
        [0.3, 0.287, 0.15, 0.0286, 0.0]
    """
    if last_update is None:
        raise ValueError("a cosine drop fraction needs `last_update`, the update at which it reaches 0")
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, update / max(1, last_update))))


DECAY: dict[str, Decay] = {"constant": constant, "cosine": cosine}
"""(update, last update) -> share of the drop fraction."""

Density = Callable[[int, int, int | None], float]


def unpruned(update: int, first_update: int, last_update: int | None) -> float:
    """0 at every update: every layer keeps its number of connections."""
    del update, first_update, last_update
    return 0.0


def cubic(update: int, first_update: int, last_update: int | None) -> float:
    """From 0 at `first_update`, fast at first, to exactly 1 at `last_update`; 1 at both if they are one.

    Raises:
        ValueError: If `last_update` is None: the curve has no end to aim at.

    Source:
        Zhu and Gupta 2017, section 3, with an initial sparsity of 0.

    Example:
        >>> [round(0.9 * cubic(t, 200, 600), 4) for t in (200, 300, 400, 500, 600)]
        [0.0, 0.5203, 0.7875, 0.8859, 0.9]
    """
    if last_update is None:
        raise ValueError("a cubic density schedule needs `last_update`, the update at which it reaches its end")
    left = (last_update - update) / max(1, last_update - first_update)
    return 1.0 - min(1.0, max(0.0, left)) ** 3


DENSITY: dict[str, Density] = {"constant": unpruned, "cubic": cubic}
"""(update, first update, last update) -> share of a layer's final sparsity that is reached."""
