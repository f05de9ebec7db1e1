"""Spaces, policies and options that Stable-Baselines3's off-policy agents accept, and an environment for any spaces."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

Options = dict[str, Any]


class AnySpaces(gym.Env[Any, Any]):
    """Draws observations, and refuses actions that are outside of its space or not finite."""

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any] | None = None) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Box(-1.0, 1.0, (2,))
        self.elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.elapsed = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        space = self.action_space
        assert isinstance(space, spaces.Box)
        assert np.shape(action) == space.shape
        assert (action >= space.low).all()
        assert (action <= space.high).all()
        self.elapsed += 1
        return self.observation_space.sample(), float(np.sum(action)), False, self.elapsed >= 10, {}


class Extractor(BaseFeaturesExtractor):
    """Layers of its own, with running statistics."""

    def __init__(self, observation_space: gym.Space[Any], features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        assert observation_space.shape is not None
        width = int(np.prod(observation_space.shape))
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(width, features_dim, bias=False), nn.BatchNorm1d(features_dim)
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(observations)
        return features


def box(*shape: int, low: float = -1, high: float = 1, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


PIXELS = spaces.Box(0, 255, (36, 36, 1), np.uint8)
MIXED = spaces.Dict({"a": box(2), "b": spaces.Discrete(3), "c": spaces.MultiBinary(2)})

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "float64": box(3, dtype=np.float64),
    "float16": box(3, dtype=np.float16),
    "uint8": spaces.Box(0, 255, (3,), np.uint8),
    "int64": spaces.Box(-5, 5, (3,), np.int64),
    "unbounded": box(3, low=-np.inf, high=np.inf),
    "one": box(1),
    "matrix": box(2, 3),
    "cube": box(2, 3, 4),
    "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "image, channels first": spaces.Box(0, 255, (3, 8, 8), np.uint8),
    "discrete": spaces.Discrete(5),
    "several discrete": spaces.MultiDiscrete([3, 4]),
    "flags": spaces.MultiBinary(4),
    "matrix of flags": spaces.MultiBinary([2, 3]),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "one": box(1),
    "number": box(),
    "matrix": box(2, 3),
    "float64": box(2, dtype=np.float64),
    "asymmetric": box(2, low=-2, high=5),
    "each its own": spaces.Box(np.float32([-3, 0]), np.float32([-1, 1000])),
    "integers": spaces.Box(-3, 3, (2,), np.int64),
}
POLICIES: dict[str, tuple[str, spaces.Space[Any], Options]] = {
    "one layer": ("MlpPolicy", box(3), {"net_arch": [8]}),
    "three layers": ("MlpPolicy", box(3), {"net_arch": [8, 7, 6]}),
    "actor and critics apart": ("MlpPolicy", box(3), {"net_arch": {"pi": [8], "qf": [7, 6]}}),
    "linear actor": ("MlpPolicy", box(3), {"net_arch": {"pi": [], "qf": [8]}}),
    "linear critics": ("MlpPolicy", box(3), {"net_arch": {"pi": [8], "qf": []}}),
    "wide": ("MlpPolicy", box(3), {"net_arch": [150, 150]}),
    "tanh": ("MlpPolicy", box(3), {"activation_fn": nn.Tanh}),
    "one critic": ("MlpPolicy", box(3), {"n_critics": 1}),
    "three critics": ("MlpPolicy", box(3), {"n_critics": 3}),
    "sgd": ("MlpPolicy", box(3), {"optimizer_class": torch.optim.SGD}),
    "rmsprop": ("MlpPolicy", box(3), {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9}}),
    "adam, other numbers": ("MlpPolicy", box(3), {"optimizer_kwargs": {"betas": (0.5, 0.9), "eps": 1e-3}}),
    "amsgrad": ("MlpPolicy", box(3), {"optimizer_kwargs": {"amsgrad": True}}),
    "own extractor": ("MlpPolicy", box(3), {"features_extractor_class": Extractor}),
    "shared flattening": ("MlpPolicy", box(3), {"share_features_extractor": True}),
    "shared extractor": (
        "MlpPolicy",
        box(3),
        {"features_extractor_class": Extractor, "share_features_extractor": True},
    ),
    "pixels": ("CnnPolicy", PIXELS, {"features_extractor_kwargs": {"features_dim": 8}}),
    "dict": ("MultiInputPolicy", MIXED, {}),
    "dict of float64": ("MultiInputPolicy", spaces.Dict({"a": box(2, dtype=np.float64)}), {}),
    "shared dict": ("MultiInputPolicy", MIXED, {"share_features_extractor": True}),
    "dict with pixels": ("MultiInputPolicy", spaces.Dict({"a": PIXELS, "b": box(2)}), {}),
}
OPTIONS: dict[str, Options] = {
    "normal noise": {"action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1))},
    "correlated noise": {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(2), np.full(2, 0.1))},
    "episodes": {"train_freq": (1, "episode"), "gradient_steps": -1},
    "rollouts": {"train_freq": 4, "gradient_steps": 2},
    "no updates": {"gradient_steps": 0},
    "scheduled rate": {"learning_rate": lambda remaining: 1e-3 * remaining},
    "several steps": {"n_steps": 3},
    "one copy of observations": {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
    "short statistics": {"stats_window_size": 3},
}


def two_environments(space: gym.Space[Any], *, normalized: bool) -> Any:
    env = DummyVecEnv([lambda: AnySpaces(space)] * 2)
    return VecNormalize(env) if normalized else env
