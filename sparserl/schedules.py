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
