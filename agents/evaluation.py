"""Evaluation of a policy without exploration, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


class Evaluator:
    """Runs the same episodes each time: env i starts from the same seeded reset at every evaluation.

    Args:
        make_env: Makes one environment.
        episodes: Episodes per evaluation, one in each of as many environments, so that the policy acts on batches.
        seed: Env i is reset with `seed + i`.
    """

    def __init__(self, make_env: Callable[[], gym.Env[Any, Any]], episodes: int, seed: int):
        self._envs = DummyVecEnv([lambda: Monitor(make_env()) for _ in range(episodes)])
        self.episodes, self.seed = episodes, seed

    def __call__(self, agent: BaseAlgorithm) -> tuple[list[float], list[int]]:
        """Undiscounted return and length of each episode."""
        self._envs.seed(self.seed)
        returns, lengths = evaluate_policy(
            agent, self._envs, n_eval_episodes=self.episodes, deterministic=True, return_episode_rewards=True
        )
        assert isinstance(returns, list)
        assert isinstance(lengths, list)
        return returns, lengths

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()
