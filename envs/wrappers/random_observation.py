"""What wrappers share whose observations are random: a generator of their own that `reset(seed)` seeds."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from sparserl.seeding import stream


class RandomObservation(gym.ObservationWrapper[Any, Any, Any]):
    """An observation wrapper with a generator of its own, so that the environment's draws stay what they were.

    As with Gymnasium's environments, `reset(seed)` seeds it, a reset without a seed goes on, and without any seed
    the operating system gives one.
    """

    stream_name: ClassVar[str]
    """Name of its stream under the seed of the reset."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._generator = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._generator = stream(seed, "envs", self.stream_name)
        return super().reset(seed=seed, options=options)

    def state_dict(self) -> dict[str, Any]:
        """State of the generator."""
        return {"generator": self._generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`."""
        self._generator.bit_generator.state = state["generator"]
