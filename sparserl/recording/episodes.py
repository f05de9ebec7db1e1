"""How long an evaluated episode may last, and how an evaluation is left before its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

WITHOUT_LIMIT = 10_000
"""Env steps after which an episode is cut off where the environment has no time limit: ten times that of MuJoCo's
environments. A policy that never falls would otherwise be evaluated for ever."""

ShouldStop = Callable[[], bool]
"""Whether the run has been asked to stop."""


def never() -> bool:
    """Never evaluated."""
    return False


class EvaluationAbandoned(Exception):
    """The run has been asked to stop during an evaluation, which is to be repeated when it goes on."""


def leave_if(should_stop: ShouldStop) -> None:
    """Raises EvaluationAbandoned if the run has been asked to stop."""
    if should_stop():
        raise EvaluationAbandoned


def longest_episode(env: gym.Env[Any, Any], max_steps: int | None) -> int | None:
    """Env steps after which an episode is cut off.

    Args:
        env: Where.
        max_steps: What the user wants; None: nothing but an end.

    Returns:
        `max_steps`; without it `WITHOUT_LIMIT` where the environment has no time limit of its own, else None.
    """
    return WITHOUT_LIMIT if max_steps is None and not has_time_limit(env) else max_steps


def has_time_limit(env: gym.Env[Any, Any]) -> bool:
    """Whether the environment says itself after how many steps an episode ends."""
    layer: gym.Env[Any, Any] = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, gym.wrappers.TimeLimit):
            return True
        layer = layer.env
    return env.spec is not None and env.spec.max_episode_steps is not None


class CutOff(gym.Wrapper[Any, Any, Any, Any]):
    """Truncates an episode after some steps, and says so by `cut_off` in the info of the last one.

    Args:
        env: What is wrapped.
        max_steps: At least 1.
    """

    def __init__(self, env: gym.Env[Any, Any], max_steps: int):
        super().__init__(env)
        self.max_steps, self._steps = max_steps, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        self._steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        if self._steps >= self.max_steps and not (terminated or truncated):
            return observation, reward, False, True, {**info, "cut_off": True}
        return observation, reward, terminated, truncated, info


def with_bound(env: gym.Env[Any, Any], max_steps: int | None) -> gym.Env[Any, Any]:
    """The environment, wrapped by `CutOff` if its episodes have a bound, see `longest_episode`."""
    bound = longest_episode(env, max_steps)
    return env if bound is None else CutOff(env, bound)


def cut_off_line(count: int, episodes: int, max_steps: int) -> str:
    """What to say of an evaluation in which episodes were cut off."""
    what = "its return is" if count == 1 else "their returns are"
    return (
        f"{count} of {episodes} evaluated episodes cut off after {max_steps:,} steps, and {what} of so many; "
        "--eval.max-steps sets another bound"
    )
