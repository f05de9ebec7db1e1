"""What tests of simulation states share."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
from safetensors.numpy import load, save
from stable_baselines3.common.monitor import Monitor
from support.trees import exactly

from sparserl.envs import EnvState, capture_state, make_env

STEPS_BEFORE, STEPS_AFTER = 37, 1200


def made(env_id: str) -> Monitor[Any, Any]:
    return Monitor(make_env(env_id))


def started(env_id: str, seed: int = 5, steps: int = STEPS_BEFORE) -> Monitor[Any, Any]:
    env = made(env_id)
    env.reset(seed=seed)
    env.action_space.seed(seed + 1)
    events(env, steps)
    return env


def events(env: gym.Env[Any, Any], steps: int) -> list[Any]:
    """Drives `env` with its own random actions, resetting without a seed, and returns everything it said."""
    tape: list[Any] = []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        episode = info.pop("episode", None)
        outcome = (episode["r"], episode["l"]) if episode else None
        tape.append((exactly(obs), exactly(reward), terminated, truncated, outcome, exactly(info)))
        if terminated or truncated:
            obs, info = env.reset()
            tape.append((exactly(obs), exactly(info)))
    return tape


def stored(state: EnvState | None) -> EnvState:
    """The state after a trip through the formats of a checkpoint."""
    assert state is not None
    return EnvState(load(save(state.tensors)), json.loads(json.dumps(state.scalars, allow_nan=False)))


def captured(env: gym.Env[Any, Any]) -> EnvState:
    return stored(capture_state(env))
