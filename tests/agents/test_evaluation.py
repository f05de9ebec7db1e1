"""Evaluation: the episodes of the same resets, in the order of these."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.envs import Array, FunctionEnv

from sparserl.agents.evaluation import Evaluator

HORIZONS = {5: 20, 6: 17, 7: 18}
"""Seed of a reset -> env steps until the episode is over."""


class BySeed(FunctionEnv):
    """Rewards each step by the seed of its reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        if seed is not None:
            self.horizon, self.seed = HORIZONS[seed], seed
        return super().reset(seed=seed, options=options)

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, float(self.seed), *rest  # type: ignore[return-value]  # as above


class Still:
    """Does nothing."""

    def predict(self, observation: Array, *_: Any, **__: Any) -> tuple[Array, None]:
        return np.zeros((len(observation), 2), np.float32), None


def test_the_number_of_an_episode_is_that_of_its_reset() -> None:
    evaluator = Evaluator(BySeed, 3, seed=5, max_steps=19)
    for _ in range(2):
        found = evaluator(Still())  # type: ignore[arg-type]  # predicts, as is all that is needed
        assert found.lengths == [19, 17, 18]
        assert found.returns == [5 * 19, 6 * 17, 7 * 18]
        assert found.cut_off == [True, False, False]
    evaluator.close()
