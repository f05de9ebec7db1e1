"""Observations whose features stand in another order, which may change while the agent learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import IntArray, observation_box
from sparserl.errors import CheckpointError, ConfigError
from sparserl.seeding import stream


class PermuteFeatures(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Puts features in another order; with `every_steps` the order changes at ends of episodes.

    Orders belong to `seed`, not to the seed of a reset: the same ones in every environment of a run. Where the order
    changes, the space declares one pair of bounds for all features.

    Args:
        env: With vectors as observations.
        permutation: Feature `permutation[i]` comes to index i; drawn if None.
        every_steps: A new order at the first reset after each so many env steps; never if None.
        seed: Root seed of the orders that are drawn, >= 0.

    Raises:
        ConfigError: If `permutation` is not one of the features, or `every_steps` is not positive.

    Source:
        Grooten et al. 2023 (ANF), permuted environments: the next order comes at the first end of an episode after
        each period, counted from the start of the run. There the order belongs to the networks and old transitions
        are permuted with it; here they stay as they were observed.

    Example:
        >>> env = PermuteFeatures(gym.make("Pendulum-v1"), permutation=[2, 0, 1])
        >>> env.observation_space.high.tolist()
        [8.0, 1.0, 1.0]
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        permutation: Sequence[int] | None = None,
        every_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        check_every_steps(every_steps)
        gym.utils.RecordConstructorArgs.__init__(self, permutation=permutation, every_steps=every_steps, seed=seed)
        super().__init__(env)
        space = observation_box(env)
        self._features = space.shape[0]
        self._every_steps, self._seed = every_steps, seed
        self._steps = self._period = 0
        self._permutation = self._drawn(0) if permutation is None else _checked(permutation, self._features)
        self._leader: PermuteFeatures | None = None
        low, high = space.low[self._permutation], space.high[self._permutation]
        if every_steps is not None:
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        self.observation_space = gym.spaces.Box(low, high, dtype=space.dtype)

    @property
    def permutation(self) -> IntArray:
        """The present order, int64, shape (features,): feature `permutation[i]` of the environment is at index i."""
        return self._permutation if self._leader is None else self._leader.permutation

    def follow(self, leader: PermuteFeatures) -> None:
        """Uses whatever order `leader` has, from now on; for an environment that only evaluates."""
        self._leader = leader

    def carry(self, origins: IntArray) -> IntArray:
        """See `MovesFeatures`."""
        return origins[self.permutation]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As `Env.reset`; a new order, if one is due, begins here."""
        period = 0 if self._every_steps is None else self._steps // self._every_steps
        if period > self._period:
            self._period, self._permutation = period, self._drawn(period)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._steps += 1
        return super().step(action)

    def observation(self, observation: Any) -> Any:
        """The features in the present order."""
        return observation[self.permutation]

    def state_dict(self) -> dict[str, Any]:
        """The present order and how far the period has come."""
        return {"permutation": self.permutation, "steps": self._steps, "period": self._period}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`.

        Raises:
            CheckpointError: If it belongs to another number of features.
        """
        permutation = np.asarray(state["permutation"], np.int64).copy()
        if permutation.shape != (self._features,):
            raise CheckpointError(f"a saved order of {permutation.size} features does not fit {self._features}")
        self._permutation, self._steps, self._period = permutation, int(state["steps"]), int(state["period"])

    def _drawn(self, period: int) -> IntArray:
        return stream(self._seed, "envs", "permuted_features", str(period)).permutation(self._features)


def check_every_steps(steps: int | None, name: str = "permutation period") -> None:
    """Raises ConfigError unless it is a period."""
    if steps is not None and steps < 1:
        raise ConfigError(f"{name} must be at least 1 env step, got {steps}")


def _checked(permutation: Sequence[int], features: int) -> IntArray:
    entries = np.array(permutation)
    if entries.shape != (features,):
        raise ConfigError(f"permutation must have {features} entries, got {len(permutation)}")
    if not np.array_equal(np.sort(entries), np.arange(features)):
        raise ConfigError(f"permutation must hold each number from 0 to {features - 1} once, got {entries.tolist()}")
    return entries.astype(np.int64)
