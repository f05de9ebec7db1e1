"""Rewards in units of the deviation of discounted returns, by statistics that run along."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers.utils import RunningMeanStd

from sparserl.errors import CheckpointError, ConfigError

BOUND = 10.0
"""Largest size of a scaled reward, as in Stable-Baselines3."""
EPSILON = 1e-8
"""Added to the variance, likewise."""


class NormalizeRewards(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Divides each reward by the standard deviation of discounted returns so far, and cuts it to [-10, 10].

    As Stable-Baselines3's `VecNormalize` does it to rewards: the return of the present episode enters the statistics
    before the reward is divided, no mean is subtracted, and the next episode begins at 0.

    Args:
        env: Any.
        discount: Of the return, in (0, 1]; that of the agent.

    Raises:
        ConfigError: If the discount is out of range.
    """

    def __init__(self, env: gym.Env[Any, Any], discount: float = 0.99) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, discount=discount)
        gym.Wrapper.__init__(self, env)
        if not 0.0 < discount <= 1.0:
            raise ConfigError(f"rewards are normalised with a discount in (0, 1], got {discount}")
        self.discount = discount
        self.return_rms: Any = RunningMeanStd(shape=())  # type: ignore[no-untyped-call]  # Gymnasium's
        self._return = 0.0
        self._scales = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._return = 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self._scales:
            self._return = self._return * self.discount + float(reward)
            self.return_rms.update(np.array([self._return]))
            reward = float(np.clip(float(reward) / math.sqrt(self.return_rms.var + EPSILON), -BOUND, BOUND))
        return observation, reward, terminated, truncated, info

    def follow(self, leader: NormalizeRewards) -> None:
        """Leaves rewards as they are from now on: what is evaluated is what the environment gives."""
        del leader
        self._scales = False

    def share(self, leader: NormalizeRewards) -> None:
        """Uses the statistics of `leader` from now on, which returns of both enter."""
        self.return_rms = leader.return_rms

    def state_dict(self) -> dict[str, Any]:
        """The statistics, and the return of the present episode."""
        rms = self.return_rms
        return {"mean": float(rms.mean), "var": float(rms.var), "count": float(rms.count), "return": self._return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`, with all that share the statistics.

        Raises:
            CheckpointError: If it is no state of statistics.
        """
        mean, var, count = (float(state[name]) for name in ("mean", "var", "count"))
        if not (math.isfinite(mean) and 0.0 <= var < math.inf and 0.0 < count < math.inf):
            raise CheckpointError(f"saved statistics of rewards are not finite: mean {mean}, variance {var}")
        self.return_rms.mean, self.return_rms.var, self.return_rms.count = np.float64(mean), np.float64(var), count
        self._return = float(state["return"])
