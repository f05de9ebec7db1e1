"""Actions turned around, as after rewiring the motors of a robot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import chosen_indices
from sparserl.errors import ConfigError


class InvertActions(gym.ActionWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Mirrors actions within their box: `a` becomes `low + high - a`; of n discrete ones action a becomes n - 1 - a.

    Args:
        env: With a bounded `Box` of one dimension as action space, or a `Discrete` one.
        indices: Actuators to invert; all of them if None.

    Raises:
        ConfigError: If an actuator does not exist or is named twice, or the actions have no bounds.
    """

    def __init__(self, env: gym.Env[Any, Any], indices: Sequence[int] | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, indices=indices)
        super().__init__(env)
        space = env.action_space
        if isinstance(space, gym.spaces.Discrete):
            self._inverted = chosen_indices("actuator", indices, 1)
            self._sum = np.array([2 * space.start + space.n - 1])
            return
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ConfigError(f"inverting actions needs a bounded vector of them (Box of one dimension), not {space}")
        self._inverted = chosen_indices("actuator", indices, space.shape[0])
        # In float64, so that rounding puts no mirrored float32 action outside its box.
        self._sum = space.low.astype(np.float64) + space.high.astype(np.float64)

    def action(self, action: Any) -> Any:
        """The action that reaches the environment."""
        if isinstance(self.action_space, gym.spaces.Discrete):
            return int(self._sum[0] - action) if self._inverted[0] else action
        mirrored = (self._sum - action).astype(action.dtype)
        return np.where(self._inverted, mirrored, action)
