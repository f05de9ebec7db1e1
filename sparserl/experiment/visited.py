"""What a policy meets and does without exploration: samples of what its networks read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sparserl.recording.episodes import with_bound

Floats = npt.NDArray[np.float32]
Visited = tuple[Floats, Floats]
"""(N, obs) observations and (N, ...) what was done at each, in the shape of the action space."""
MOST_SAMPLES = 2_000
"""Of all that is visited; of more, evenly many are left out."""


def visited(
    make_env: Callable[[], gym.Env[Any, Any]],
    act: Callable[[np.ndarray, bool], np.ndarray],
    *,
    episodes: int,
    seed: int,
    max_steps: int | None,
    most: int = MOST_SAMPLES,
) -> Visited:
    """Observations and actions of a policy that takes its mode.

    Args:
        make_env: Makes the environment.
        act: (B, obs) observations, and that the mode is asked for, to (B, ...).
        episodes: How many, one after another.
        seed: Episode i starts from a reset with `seed + i`.
        max_steps: Env steps after which an episode is cut off; None as in `longest_episode`.
        most: Samples, at most.

    Returns:
        (N, obs) and (N, ...), N <= `most`.
    """
    observations, actions = [], []
    with closing(with_bound(make_env(), max_steps)) as env:
        for episode in range(episodes):
            observation, _ = env.reset(seed=seed + episode)
            over = False
            while not over:
                action = act(observation[None], True)[0]
                observations.append(np.array(observation))
                actions.append(np.asarray(action, np.float32))
                observation, _, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
    chosen = np.linspace(0, len(actions) - 1, min(most, len(actions))).astype(int)
    return np.stack([observations[at] for at in chosen]).astype(np.float32), np.stack(actions)[chosen]


def read_of(agent: Any, samples: Visited) -> dict[str, Floats]:
    """(N, n_in) what the networks of each group of an agent read of observations and actions."""
    observations, actions = samples
    if isinstance(agent.action_space, gym.spaces.Box):
        actions = agent.policy.scale_action(actions).reshape(len(actions), -1)
    scaled = np.asarray(actions, np.float32)
    return {group: np.ascontiguousarray(read) for group, read in agent.read_by(observations, scaled).items()}
