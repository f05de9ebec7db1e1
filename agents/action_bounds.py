"""Which bounds of actions an agent can scale to [-1, 1], and which choices it can count."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sparserl.errors import ConfigError


def check_action_bounds(space: spaces.Space[Any]) -> None:
    """Refuses a box that scaling makes NaN of, and choices that networks would count otherwise.

    Other spaces are for Stable-Baselines3 to judge.

    Raises:
        ConfigError: If a box has no actions, or one whose range is nothing or beyond its element type, or if discrete
            actions begin elsewhere than at 0.
    """
    if isinstance(space, spaces.Discrete) and space.start != 0:
        raise ConfigError(f"discrete actions must be counted from 0, got {space}")
    if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all():
        return
    if space.low.size == 0:
        raise ConfigError(f"an agent needs at least one action, got actions of shape {space.shape}")
    with np.errstate(over="ignore"):
        ranges = np.ravel(space.high.astype(np.float32) - space.low.astype(np.float32))
    bad = np.flatnonzero(~((ranges > 0) & np.isfinite(ranges)))
    if bad.size:
        low, high = np.ravel(space.low)[bad[0]], np.ravel(space.high)[bad[0]]
        raise ConfigError(
            f"action {bad[0]} has the bounds [{low}, {high}], which cannot be scaled to [-1, 1]: a range that is "
            "positive and finite is needed"
        )
