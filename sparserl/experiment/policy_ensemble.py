"""Policies that act together: the mean of their actions, or what most of them choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from scipy.stats import mode

from sparserl.agents.evaluation import Evaluation, Evaluator
from sparserl.envs import WrapperConfig, followed_state
from sparserl.errors import ConfigError
from sparserl.experiment.opened_agent_run import EVAL_SEED, TrainedAgent


def _mean(actions: np.ndarray) -> np.ndarray:
    mean: np.ndarray = actions.mean(axis=0, dtype=np.float64).astype(actions.dtype)
    return mean


def _most_frequent(actions: np.ndarray) -> np.ndarray:
    """Of several that are as frequent, the lowest."""
    chosen: np.ndarray = mode(actions, axis=0).mode
    return chosen


JOINED: dict[type[spaces.Space[Any]], Callable[[np.ndarray], np.ndarray]] = {
    spaces.Box: _mean,
    spaces.Discrete: _most_frequent,
    spaces.MultiDiscrete: _most_frequent,
    spaces.MultiBinary: _most_frequent,
}
"""Kind of actions -> (members, B, ...) actions to those of the ensemble."""


class PolicyEnsemble:
    """Policies of runs on one environment; Stable-Baselines3's functions take it in the place of an agent.

    Args:
        members: The runs, or several policies of one.

    Raises:
        ConfigError: If there are fewer than two, they act in different environments or on observations that only one
            of them knows, or their actions are of a kind that is not joined.

    Source:
        Liu et al. 2022, Deep Ensembling with No Overhead for either Training or Testing (EDST), there of classifiers.
    """

    def __init__(self, members: Sequence[TrainedAgent]):
        if len(members) < 2:
            raise ConfigError("an ensemble has at least two policies")
        first, *others = members
        for other in others:
            _check_alike(first, other)
        space = first.agent.action_space
        if type(space) not in JOINED:
            raise ConfigError(
                f"actions of {space} are not joined; of {', '.join(kind.__name__ for kind in JOINED)} are"
            )
        self.members, self._join = members, JOINED[type(space)]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[Any, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[Any, ...] | None]:
        """As in Stable-Baselines3; the state is one of each member."""
        states = state or (None,) * len(self.members)
        answers = [
            member.agent.predict(observation, of_member, episode_start, deterministic)
            for member, of_member in zip(self.members, states, strict=True)
        ]
        actions, new_states = zip(*answers, strict=True)
        return self._join(np.stack(actions)), new_states

    @property
    def longest(self) -> int | None:
        """Env steps after which the config of the first member cuts off an episode."""
        return self.members[0].config.eval.max_steps

    def evaluate(self, episodes: int = 10, *, seed: int = EVAL_SEED, max_steps: int | None = None) -> Evaluation:
        """As `TrainedAgent.evaluate`, in the environment of the first member."""
        first = self.members[0]
        bound = self.longest if max_steps is None else max_steps
        evaluator = Evaluator(lambda: first.make_env(0), episodes, seed=seed, max_steps=bound)
        with closing(evaluator):
            return evaluator(self)


def _check_alike(one: TrainedAgent, other: TrainedAgent) -> None:
    runs = f"{one.folder.path} and {other.folder.path}"
    if one.config.env != other.config.env:
        raise ConfigError(
            f"an ensemble acts in one environment: {runs} learned in {one.config.env} and {other.config.env}"
        )
    if one.config.env_kwargs != other.config.env_kwargs:
        raise ConfigError(
            f"an ensemble acts in one environment: {runs} learned with the env_kwargs {one.config.env_kwargs} and "
            f"{other.config.env_kwargs}"
        )
    if _wherever(one.config.wrappers) != _wherever(other.config.wrappers):
        raise ConfigError(f"an ensemble sees one environment: the wrappers of {runs} differ")
    for name in ("observation_space", "action_space"):
        spaces_of_both = getattr(one.agent, name), getattr(other.agent, name)
        if spaces_of_both[0] != spaces_of_both[1]:
            raise ConfigError(
                f"the {name.replace('_', ' ')}s of {runs} differ: {spaces_of_both[0]}, {spaces_of_both[1]}"
            )
    if not data_equivalence(followed_state(one.env), followed_state(other.env)):
        raise ConfigError(
            "features have an order or a scale of their own (--wrappers.permute, --wrappers.normalize-observations "
            f"running) in each of {runs}"
        )


def _wherever(wrappers: WrapperConfig) -> WrapperConfig:
    """The same with the names of files alone: each run has copies of its own, whose names tell the content."""
    return wrappers.with_files({option: Path(path.name) for option, path in wrappers.files.items()})
