"""What tests of modified models share."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from support.trees import exactly

from sparserl.envs import Modification, PartFactors, make_env, modify

CHEETAH, HOPPER = "HalfCheetah-v5", "Hopper-v5"


ALL = Modification(
    gravity=0.5,
    friction=0.4,
    parts=(PartFactors("torso", mass=2.0), PartFactors("foot", radius=1.5, length=0.5)),
    disabled_actuators=(1,),
    invert_actions=True,
    broken_sensors=0.25,
)


def made(env_id: str, modification: Modification | None = None) -> gym.Env[Any, Any]:
    return modify(make_env(env_id), modification or Modification())


def model_of(env_id: str, modification: Modification | None = None) -> Any:
    base = made(env_id, modification).unwrapped
    assert isinstance(base, MujocoEnv)
    return base.model


def numbers(model: Any) -> dict[str, Any]:
    """All arrays of a compiled model and of its options and statistics, by name."""
    found = {}
    for prefix, holder in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(holder):
            value = None if name.startswith("_") else getattr(holder, name)
            if isinstance(value, np.ndarray | int | float):
                found[prefix + name] = np.array(value)
    return found


def changed(before: Any, after: Any) -> set[str]:
    old, new = numbers(before), numbers(after)
    return {name for name in old if not np.array_equal(old[name], new[name])}


def events(env: gym.Env[Any, Any], steps: int) -> list[Any]:
    """Drives `env` with its own random actions and says everything it said; resets take no seed."""
    said = []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        said.append((exactly(observation), exactly(reward), terminated, truncated))
        if terminated or truncated:
            said.append(exactly(env.reset()[0]))
    return said


def tape(env: gym.Env[Any, Any], seed: int = 0, steps: int = 80) -> list[Any]:
    first = env.reset(seed=seed)[0]
    env.action_space.seed(seed + 1)
    return [exactly(first), *events(env, steps)]
