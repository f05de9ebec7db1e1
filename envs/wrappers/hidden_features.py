"""Observations without some of their features: what an agent must remember, because it cannot see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.feature_names import feature_names, is_velocity
from sparserl.envs.wrapper_stack import IntArray, chosen_indices, observation_box
from sparserl.errors import ConfigError


class HideFeatures(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Takes features out of observations, velocities for example, so that one observation is not the whole state.

    Args:
        env: With vectors as observations.
        features: Indices of those that are hidden. None: the velocities, where the names of features say which they are
            (`sparserl.envs.feature_names`): MuJoCo's `qvel` and `cvel`, and those of Gymnasium's classic control and
            Box2D tasks; forces stay.

    Raises:
        ConfigError: If a feature does not exist or is named twice, none would be left, or it is not known which are
            velocities.

    Source:
        `MaskVelocityWrapper` of rl-baselines3-zoo, for CartPole, Pendulum, MountainCar and LunarLander; there
        velocities read 0, here the observation is shorter.

    Example:
        >>> HideFeatures(gym.make("CartPole-v1")).observation_space.shape, HideFeatures(gym.make("Ant-v5"), [0]).hidden
        ((2,), [0])
    """

    def __init__(self, env: gym.Env[Any, Any], features: Sequence[int] | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, features=features)
        super().__init__(env)
        space = observation_box(env)
        hides = chosen_indices("feature", _velocities(env) if features is None else features, space.shape[0])
        if hides.all():
            raise ConfigError(f"hiding all {hides.size} features would leave nothing to observe; name fewer of them")
        self._seen = np.flatnonzero(~hides)
        self.observation_space = gym.spaces.Box(space.low[self._seen], space.high[self._seen], dtype=space.dtype)

    @property
    def hidden(self) -> list[int]:
        """Indices of the hidden features among those of the wrapped environment."""
        count = observation_box(self.env).shape[0]
        return [index for index in range(count) if index not in set(self._seen.tolist())]

    def observation(self, observation: Any) -> Any:
        """What is left of it."""
        return observation[self._seen]

    def carry(self, origins: IntArray) -> IntArray:
        """Where the features that are left come from."""
        return origins[self._seen]


def _velocities(env: gym.Env[Any, Any]) -> list[int]:
    if not any(map(is_velocity, feature_names(env.unwrapped))):
        name = env.spec.id if env.spec else type(env.unwrapped).__name__
        raise ConfigError(
            f"which features of {name} are velocities is not known; name what is hidden by wrappers.hidden-features, "
            "such as 2 3"
        )
    return [index for index, name in enumerate(feature_names(env)) if is_velocity(name)]
