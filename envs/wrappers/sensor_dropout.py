"""Sensors that fail: features that read 0, now and then or for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import chosen_indices, observation_box
from sparserl.envs.wrappers.random_observation import RandomObservation
from sparserl.errors import ConfigError


class SensorDropout(RandomObservation, gym.utils.RecordConstructorArgs):
    """Each sensor reads 0 with a probability, independently of others and anew at every reset and step.

    Args:
        env: With vectors as observations.
        probability: That a sensor reads 0, in [0, 1]; at 1 it is broken for good.
        sensors: Indices of the features that can fail; all of them if None.

    Raises:
        ConfigError: If the probability is out of range, or a sensor does not exist or is named twice.
    """

    stream_name = "sensor_dropout"

    def __init__(self, env: gym.Env[Any, Any], probability: float, sensors: Sequence[int] | None = None) -> None:
        check_dropout(probability)
        gym.utils.RecordConstructorArgs.__init__(self, probability=probability, sensors=sensors)
        super().__init__(env)
        space = observation_box(env)
        self._probability = np.where(chosen_indices("sensor", sensors, space.shape[0]), probability, 0.0)
        fails = self._probability > 0.0
        self.observation_space = gym.spaces.Box(
            np.where(fails, np.minimum(space.low, 0), space.low),
            np.where(fails, np.maximum(space.high, 0), space.high),
            dtype=space.dtype,
        )

    def observation(self, observation: Any) -> Any:
        """What the sensors read."""
        fails = self._generator.random(self._probability.size) < self._probability
        return np.where(fails, observation.dtype.type(0), observation)


def check_dropout(probability: float, name: str = "dropout probability") -> None:
    """Raises ConfigError unless it is a probability."""
    if not 0.0 <= probability <= 1.0:  # NaN is not
        raise ConfigError(f"{name} must be in [0, 1], got {probability}")
