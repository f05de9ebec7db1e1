"""Tiny environments whose step is a function that is handed in; they can save their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.agents.parts import AgentParts

Array = np.ndarray[Any, np.dtype[Any]]
Step = Callable[[Array, Array], tuple[Array, float]]
"""(state, action) -> (next state, reward)."""


def drift(state: Array, action: Array) -> tuple[Array, float]:
    """Each action moves one coordinate; the reward is higher near the origin."""
    state = 0.9 * state + 0.3 * np.resize(action, state.shape)
    return state, -float(np.square(state).mean())


class FunctionEnv(gym.Env[Array, Array]):
    """Starts at a random state and follows `step` for `horizon` steps."""

    def __init__(self, step: Step = drift, n_obs: int = 3, n_action: int = 2, horizon: int = 20) -> None:
        self.step_function, self.horizon = step, horizon
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (n_obs,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (n_action,), np.float32)
        self.state, self.elapsed = np.zeros(n_obs), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.elapsed = self.np_random.normal(size=self.state.shape), 0
        return self.state.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.state, reward = self.step_function(self.state, action)
        self.elapsed += 1
        return self.state.copy(), reward, False, self.elapsed >= self.horizon, {}

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state, "elapsed": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state, self.elapsed = state["state"], state["elapsed"]


class ChoiceEnv(FunctionEnv):
    """The same with three actions: to one side, to the other, or neither."""

    def __init__(self, horizon: int = 20) -> None:
        super().__init__(horizon=horizon)
        self.action_space = gym.spaces.Discrete(3)  # type: ignore[assignment]

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return super().step(np.array([float(action) - 1.0]))


def env_for(agent: type[AgentParts]) -> FunctionEnv:
    """One whose actions an agent can choose."""
    return FunctionEnv() if gym.spaces.Box in agent.action_spaces else ChoiceEnv()


class SpacesOnly(gym.Env[Any, Any]):
    """An environment of which only the spaces matter."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any] | None = None) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or gym.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


class Choices(SpacesOnly):
    """Rewards the sum of what is done, for 17 steps."""

    def __init__(self, actions: gym.Space[Any]) -> None:
        super().__init__(gym.spaces.Box(-1.0, 1.0, (3,), np.float32), actions)
        self.elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.elapsed = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.elapsed += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self.elapsed >= 17, {}


class DictEnv(FunctionEnv):
    """The same with a Dict as observation: all but the last feature as `arm`, and the last one as `goal`."""

    def __init__(self, step: Step = drift, n_obs: int = 3, n_action: int = 2, horizon: int = 20) -> None:
        super().__init__(step, n_obs, n_action, horizon)
        parts = {"arm": n_obs - 1, "goal": 1}
        self.observation_space = gym.spaces.Dict(  # type: ignore[assignment]  # not the base's Box
            {name: gym.spaces.Box(-np.inf, np.inf, (count,), np.float64) for name, count in parts.items()}
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        return {"arm": observation[:-1], "goal": observation[-1:]}, info

    def step(self, action: Array) -> Any:
        observation, *others = super().step(action)
        return {"arm": observation[:-1], "goal": observation[-1:]}, *others


class ImageEnv(gym.Env[Array, Array]):
    """A bright column in a dark image of 36 x 36 x 3; an action moves it, and the middle is rewarded."""

    SIDE = 36

    def __init__(self, horizon: int = 17) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (self.SIDE, self.SIDE, 3), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.horizon, self.place, self.elapsed = horizon, 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.elapsed = float(self.np_random.uniform(-1, 1)), 0
        return self._image(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + 0.3 * float(action[0]), -1, 1))
        self.elapsed += 1
        return self._image(), -abs(self.place), False, self.elapsed >= self.horizon, {}

    def _image(self) -> Array:
        image = np.zeros((self.SIDE, self.SIDE, 3), np.uint8)
        middle = round((self.place + 1) / 2 * (self.SIDE - 4))
        image[:, middle : middle + 4] = 255
        return image

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "elapsed": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.elapsed = state["place"], state["elapsed"]
