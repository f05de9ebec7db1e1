"""What tests of replay buffers share."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise
from support.envs import FunctionEnv

from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity

ACTION = spaces.Box(-1, 1, (2,), np.float32)


NEVER = DynamicCapacity(threshold=9.0, minimum=0)


def buffer(size: int, width: int = 1, n_envs: int = 1, **options: Any) -> AdaptiveReplayBuffer:
    space = spaces.Box(-np.inf, np.inf, (width,), np.float64)
    return AdaptiveReplayBuffer(size * n_envs, space, ACTION, "cpu", n_envs=n_envs, **options)


def add(store: ReplayBuffer, number: float, ended: str = "", wanted: float | None = None) -> None:
    """A transition from `number` to `number + 1`, whose reward is `number`, in every feature and environment."""
    envs, shape = store.n_envs, (store.n_envs, *store.obs_shape)
    if wanted is not None:
        assert isinstance(store, AdaptiveReplayBuffer)
        store.note_policy_actions(np.full((envs, 2), wanted, np.float32))
    infos: list[dict[str, Any]] = [{"TimeLimit.truncated": ended == "limit"}] * envs
    observations = np.full(shape, number), np.full(shape, number + 1)
    store.add(*observations, np.zeros((envs, 2)), np.full(envs, number), np.full(envs, bool(ended)), infos)


class WideActions(FunctionEnv):
    """Whose actions are not in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-3.0, 3.0, (2,), np.float32)


def agent(kind: type[TD3] | type[SAC], options: dict[str, Any], env: Any = None, **changes: Any) -> Any:
    noise = {"action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1))} if kind is TD3 else {}
    sizes: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}
    where = {"buffer_size": 200, "seed": 0, "device": "cpu"}
    return kind("MlpPolicy", env or WideActions(), **{**sizes, **where, **noise, **options, **changes})
