"""Observations of several steps as one: a short memory for an agent that cannot see the whole state."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import IntArray, base_features, observation_box
from sparserl.errors import CheckpointError, ConfigError


class StackFrames(gym.wrappers.FrameStackObservation[Any, Any, Any]):
    """The latest observations of an episode side by side in one vector, the newest last.

    After a reset all of them are the first one.

    Args:
        env: With vectors as observations.
        frames: How many, >= 2.

    Raises:
        ConfigError: If observations are no vectors, or there are fewer frames.

    Source:
        Gymnasium's `FrameStackObservation`, flattened.

    Example:
        >>> StackFrames(gym.make("Hopper-v5"), 3).observation_space.shape
        (33,)
    """

    def __init__(self, env: gym.Env[Any, Any], frames: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, frames=frames)
        space = observation_box(env)
        if frames < 2:
            raise ConfigError(f"at least 2 frames are stacked, got {frames}")
        generator = space._np_random
        super().__init__(env, frames)
        space._np_random = generator  # a copy of it has begun one where there was none, seeded by the machine
        low, high = (np.tile(bound, frames) for bound in (space.low, space.high))
        self.observation_space = gym.spaces.Box(low, high, dtype=space.dtype)

    def step(self, action: Any) -> Any:
        stacked, *others = super().step(action)
        return stacked.reshape(-1), *others

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        stacked, info = super().reset(seed=seed, options=options)
        return stacked.reshape(-1), info

    def carry(self, origins: IntArray) -> IntArray:
        """Those of each frame, the oldest first."""
        count = base_features(self)
        ages = np.repeat(np.arange(self.stack_size - 1, -1, -1), origins.size)
        stacked = np.tile(origins, self.stack_size)
        return np.where(stacked < 0, stacked, stacked + count * ages)

    def state_dict(self) -> dict[str, Any]:
        """The frames, (frames, features)."""
        return {"frames": np.stack(self.obs_queue)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`.

        Raises:
            CheckpointError: If it has frames of another number or size.
        """
        frames, own = np.asarray(state["frames"]), np.stack(self.obs_queue)
        if (frames.shape, frames.dtype) != (own.shape, own.dtype):
            raise CheckpointError(f"stacked frames of shape {frames.shape} do not fit {own.shape}")
        self.obs_queue.extend(frames)
