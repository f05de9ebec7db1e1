"""Observations that say which task of a sequence they belong to."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import IntArray, feature_origins, observation_box
from sparserl.errors import ConfigError


class AppendTaskId(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Appends a one-hot task id after the features: the last `n_tasks` of them.

    Whether a network's trunk sees it or only its heads is for the learner to say.

    Args:
        env: With vectors as observations.
        task: Index of the task, in [0, n_tasks).
        n_tasks: Length of the id.

    Raises:
        ConfigError: If there is no such task.
    """

    def __init__(self, env: gym.Env[Any, Any], task: int, n_tasks: int) -> None:
        if task not in range(n_tasks):
            raise ConfigError(f"there is no task {task} among {n_tasks}")
        gym.utils.RecordConstructorArgs.__init__(self, task=task, n_tasks=n_tasks)
        super().__init__(env)
        space = observation_box(env)
        self._id = np.zeros(n_tasks, space.dtype)
        self._id[task] = 1
        self.observation_space = gym.spaces.Box(
            np.append(space.low, np.zeros_like(self._id)),
            np.append(space.high, np.ones_like(self._id)),
            dtype=space.dtype,
        )

    def carry(self, origins: IntArray) -> IntArray:
        """See `MovesFeatures`. The id is no noise: it counts as features after all others."""
        return np.append(origins, origins.max(initial=-1) + 1 + np.arange(self._id.size))

    def own_names(self) -> dict[int, str]:
        """See `NamesFeatures`."""
        origins = feature_origins(self)[-self._id.size :].tolist()
        return {origin: f"task {task}" for task, origin in enumerate(origins)}

    def observation(self, observation: Any) -> Any:
        """The observation, then the id."""
        return np.append(observation, self._id)
