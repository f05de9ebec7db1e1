"""Which bounds of actions an agent takes, and which choices it can count."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sparserl.errors import ConfigError


def check_action_bounds(space: spaces.Space[Any], *, scaled: bool = True) -> None:
    """Refuses a box without bounds, as Stable-Baselines3 does, and what neither scaling nor networks can deal with.

    A box need not be symmetric: `[low, high]` becomes [-1, 1] for an agent that scales its actions; for another one,
    actions beyond the bounds are clipped to them. Other spaces are for Stable-Baselines3 to judge.

    Args:
        space: Of actions.
        scaled: Whether actions are scaled.

    Raises:
        ConfigError: If a box has no actions, or one whose bounds are not finite, or one that is to be scaled and whose
            range is nothing or beyond float32; or if discrete actions begin elsewhere than at 0, or stand in several
            rows.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start != 0):
        raise ConfigError(f"discrete actions must be counted from 0, got {space}")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and len(space.shape) != 1:
        raise ConfigError(f"several choices must stand in one row, got {space}")
    if not isinstance(space, spaces.Box):
        return
    if space.low.size == 0:
        raise ConfigError(f"an agent needs at least one action, got actions of shape {space.shape}")
    _refuse(space, ~(np.isfinite(space.low) & np.isfinite(space.high)), "and finite ones are needed")
    if scaled:
        with np.errstate(over="ignore"):
            ranges = space.high.astype(np.float32) - space.low.astype(np.float32)
        problem = "which cannot be scaled to [-1, 1]: a range that is positive and finite is needed"
        _refuse(space, ~((ranges > 0) & np.isfinite(ranges)), problem)


def _refuse(space: spaces.Box, bad: np.ndarray, problem: str) -> None:
    """Raises ConfigError if there is a bad action, naming the first."""
    if bad.any():
        at = np.flatnonzero(bad)[0]
        low, high = np.ravel(space.low)[at], np.ravel(space.high)[at]
        raise ConfigError(f"action {at} has the bounds [{low}, {high}], {problem}")
