"""Evaluation of a policy on every task of a sequence, on environments of its own, with exploration and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.continual.rl.learner import Policy
from sparserl.recording.episodes import ShouldStop, cut_off_line, leave_if, never, with_bound
from sparserl.seeding import stream

COLUMNS = ("task", "stochastic", "episode", "return", "length", "success", "success_last", "cut_off")
"""What a row of an evaluation holds, beside when it was."""


@dataclass(frozen=True)
class Episode:
    """One evaluated episode.

    Attributes:
        task: Its task.
        stochastic: Whether actions were drawn from the policy; otherwise they were its mode.
        episode: Number among those of its kind.
        returned: Undiscounted return.
        length: Steps.
        success: Whether success was signalled at any step; None where the environment signals none.
        success_last: Whether it was at the last step.
        cut_off: Whether it was stopped before its end, see `sparserl.recording.episodes`.
    """

    task: int
    stochastic: bool
    episode: int
    returned: float
    length: int
    success: bool | None
    success_last: bool | None
    cut_off: bool = False

    def row(self) -> dict[str, Any]:
        """As a row of `COLUMNS`."""
        flags = ["" if flag is None else int(flag) for flag in (self.success, self.success_last)]
        values = (self.task, int(self.stochastic), self.episode, self.returned, self.length, *flags, int(self.cut_off))
        return dict(zip(COLUMNS, values, strict=True))


def warning_of(episodes: Sequence[Episode]) -> str | None:
    """A line if some of the episodes were cut off."""
    cut_off = [episode for episode in episodes if episode.cut_off]
    return cut_off_line(len(cut_off), len(episodes), cut_off[0].length) if cut_off else None


class TaskEvaluator:
    """Runs the same episodes each time: environment i of a task starts from the same seeded reset.

    Environments are made at the first evaluation and stay.

    Args:
        make_env: Makes an environment of a task.
        n_tasks: Tasks.
        stochastic: Episodes per task in which actions are drawn.
        deterministic: Episodes per task with the policy's mode.
        seed: Root seed of resets and random actions.
        max_steps: Env steps after which an episode is cut off; None as in `longest_episode`.

    Attributes:
        should_stop: Asked after each step; where it says so an evaluation is left by EvaluationAbandoned.
    """

    def __init__(
        self,
        make_env: Callable[[int], gym.Env[Any, Any]],
        n_tasks: int,
        *,
        stochastic: int,
        deterministic: int,
        seed: int,
        max_steps: int | None = None,
    ):
        self._max_steps = max_steps
        self.should_stop: ShouldStop = never
        self._make_env, self.n_tasks, self._seed = make_env, n_tasks, seed
        self._kinds = [True] * stochastic + [False] * deterministic
        self._envs: dict[int, list[gym.Env[Any, Any]]] = {}

    def __call__(self, policy: Policy, task: int) -> list[Episode]:
        """Evaluates a policy on a task; what it draws comes from torch's global generator.

        Raises:
            EvaluationAbandoned: If `should_stop` says so, here and in `random`.
        """
        stochastic = np.array(self._kinds)

        def act(observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
            space: Any = self._of(task)[0].action_space
            dtype = np.float32 if isinstance(space, gym.spaces.Box) else np.int64
            actions = np.empty((len(rows), *space.shape), dtype)
            for drawn in (True, False):
                of_kind = stochastic[rows] == drawn
                if of_kind.any():
                    actions[of_kind] = policy(observations[of_kind], not drawn)
            return actions

        return self._run(task, self._kinds, act)

    def random(self, task: int) -> list[Episode]:
        """Episodes of uniformly random actions, as many as are stochastic otherwise."""
        rng = stream(self._seed, "continual", "random_policy", str(task))
        space: Any = self._of(task)[0].action_space

        def act(observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
            if isinstance(space, gym.spaces.Discrete):
                return rng.integers(space.n, size=len(rows))
            return rng.uniform(space.low, space.high, (len(rows), *space.shape))

        return self._run(task, [kind for kind in self._kinds if kind], act)

    def close(self) -> None:
        """Closes the environments."""
        for envs in self._envs.values():
            for env in envs:
                env.close()

    def _of(self, task: int) -> list[gym.Env[Any, Any]]:
        if task not in self._envs:
            self._envs[task] = [with_bound(self._make_env(task), self._max_steps) for _ in self._kinds]
        return self._envs[task]

    def _run(
        self, task: int, kinds: Sequence[bool], act: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> list[Episode]:
        envs = self._of(task)[: len(kinds)]
        seeds = stream(self._seed, "continual", "evaluation", str(task)).integers(2**31, size=len(self._kinds))
        observations = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=False)]
        returns, lengths = np.zeros(len(envs)), np.zeros(len(envs), int)
        successes: list[list[bool]] = [[] for _ in envs]
        cut_off = [False] * len(envs)
        running = np.arange(len(envs))
        while running.size:
            leave_if(self.should_stop)
            actions = act(np.stack([observations[row] for row in running]), running)
            ended = []
            for row, action in zip(running.tolist(), actions, strict=True):
                observations[row], reward, terminated, truncated, info = envs[row].step(action)
                returns[row] += float(reward)
                lengths[row] += 1
                if "success" in info:
                    successes[row].append(bool(info["success"]))
                cut_off[row] = "cut_off" in info
                ended.append(terminated or truncated)
            running = running[~np.array(ended)]
        numbers = {True: 0, False: 0}
        episodes = []
        for row, kind in enumerate(kinds):
            seen = successes[row]
            success, success_last = (any(seen), seen[-1]) if seen else (None, None)
            outcome = float(returns[row]), int(lengths[row]), success, success_last, cut_off[row]
            episodes.append(Episode(task, kind, numbers[kind], *outcome))
            numbers[kind] += 1
        return episodes
