"""Parts of a robot that are broken for good: actuators that do nothing and sensors that read 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import chosen_indices, observation_box
from sparserl.errors import ConfigError


class DisableActuators(gym.ActionWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Actions of some actuators reach the environment as 0, so they cost nothing either.

    Args:
        env: With vectors within bounds as actions.
        indices: The actuators.

    Raises:
        ConfigError: If an actuator does not exist or is named twice, or 0 is outside its bounds.

    Source:
        The action masks of CSP's Ant scenarios (Gaya et al. 2023), which act before the control cost is computed.
    """

    def __init__(self, env: gym.Env[Any, Any], indices: Sequence[int]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, indices=indices)
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ConfigError(f"disabling actuators needs a bounded vector of them (Box of one dimension), not {space}")
        self._disabled = chosen_indices("actuator", indices, space.shape[0])
        for index in np.flatnonzero(self._disabled & ((space.low > 0) | (space.high < 0))):
            raise ConfigError(f"actuator {index} cannot be 0; it is in [{space.low[index]}, {space.high[index]}]")

    def action(self, action: Any) -> Any:
        """The action that reaches the environment."""
        return np.where(self._disabled, action.dtype.type(0), action)


class BreakSensors(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Some features always read 0. Unlike `SensorDropout` it draws nothing and has no state.

    Args:
        env: With vectors as observations.
        indices: The features.

    Raises:
        ConfigError: If a feature does not exist or is named twice.
    """

    def __init__(self, env: gym.Env[Any, Any], indices: Sequence[int]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, indices=indices)
        super().__init__(env)
        space = observation_box(env)
        self._broken = chosen_indices("sensor", indices, space.shape[0])
        self.observation_space = gym.spaces.Box(
            np.where(self._broken, np.minimum(space.low, 0), space.low),
            np.where(self._broken, np.maximum(space.high, 0), space.high),
            dtype=space.dtype,
        )

    def observation(self, observation: Any) -> Any:
        """What the sensors read."""
        return np.where(self._broken, observation.dtype.type(0), observation)
