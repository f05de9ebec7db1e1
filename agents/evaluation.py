"""Evaluation of a policy without exploration, on environments of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import PolicyPredictor

from sparserl.agents.collection import LeanVecEnv
from sparserl.recording.episodes import ShouldStop, cut_off_line, leave_if, never, with_bound


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, an entry for each episode: the first began with the reset of the seed.

    Attributes:
        returns: Undiscounted.
        lengths: In env steps.
        cut_off: Whether the episode was stopped before its end, see `sparserl.recording.episodes`.
    """

    returns: list[float]
    lengths: list[int]
    cut_off: list[bool]

    @property
    def return_mean(self) -> float:
        """Mean over episodes."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation over episodes, n in the denominator."""
        return float(np.std(self.returns))

    @property
    def length_mean(self) -> float:
        """Mean over episodes, in env steps."""
        return float(np.mean(self.lengths))

    @property
    def warning(self) -> str | None:
        """A line if episodes were cut off."""
        if not any(self.cut_off):
            return None
        at = next(length for length, cut in zip(self.lengths, self.cut_off, strict=True) if cut)
        return cut_off_line(sum(self.cut_off), len(self.cut_off), at)


class Evaluator:
    """Runs the same episodes each time: env i starts from the same seeded reset at every evaluation.

    Args:
        make_env: Makes one environment.
        episodes: Episodes per evaluation, one in each of as many environments, so that the policy acts on batches.
        seed: Env i is reset with `seed + i`.
        max_steps: Env steps after which an episode is cut off; None as in `longest_episode`.

    Attributes:
        should_stop: Asked after each step; where it says so the evaluation is left by EvaluationAbandoned.
    """

    def __init__(
        self, make_env: Callable[[], gym.Env[Any, Any]], episodes: int, seed: int, max_steps: int | None = None
    ):
        self._envs = LeanVecEnv([lambda: Monitor(with_bound(make_env(), max_steps)) for _ in range(episodes)])
        self.episodes, self.seed = episodes, seed
        self.should_stop: ShouldStop = never

    def __call__(self, agent: PolicyPredictor) -> Evaluation:
        """Evaluates the policy of an agent, or of anything else that predicts as agents do.

        Raises:
            EvaluationAbandoned: If `should_stop` says so.
        """
        cut_off: dict[int, bool] = {}  # by env, in the order in which they end

        def after_step(local: dict[str, Any], _: dict[str, Any]) -> None:
            leave_if(self.should_stop)
            if local["done"]:
                cut_off[local["i"]] = "cut_off" in local["info"]

        self._envs.seed(self.seed)
        returns, lengths = evaluate_policy(
            agent,
            self._envs,
            n_eval_episodes=self.episodes,
            deterministic=True,
            return_episode_rewards=True,
            callback=after_step,
        )
        assert isinstance(returns, list)
        assert isinstance(lengths, list)
        ended = zip(cut_off, returns, lengths, cut_off.values(), strict=True)
        _, *in_order = zip(*sorted(ended), strict=True)
        return Evaluation(*map(list, in_order))

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()
