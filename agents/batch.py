"""A batch of transitions as NumPy arrays, gathered from a replay buffer straight into the networks' element type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sparserl.agents.replay import AdaptiveReplayBuffer
from sparserl.kernels.updates import gather_transitions

FloatArray = npt.NDArray[np.float32]
Observations = FloatArray | dict[str, FloatArray]
"""(B, ...) observations; of a Dict space, those of each key."""


@dataclass
class Batch:
    """Transitions, float32.

    Attributes:
        observations: (B, width), or whatever else the observation space has behind its first axis.
        actions: (B, width) in [-1, 1].
        next_observations: As `observations`.
        dones: (B, 1) 1 where the episode terminated; a time limit does not count.
        rewards: (B, 1), summed over n steps if the buffer does that.
        discounts: Of what follows: a number, or (B, 1).
    """

    observations: Any
    actions: FloatArray
    next_observations: Any
    dones: FloatArray
    rewards: FloatArray
    discounts: float | FloatArray


def sample(buffer: ReplayBuffer, size: int, env: VecNormalize | None, gamma: float) -> Batch:
    """Draws the transitions that `buffer.sample` would draw, with the same generator.

    Args:
        buffer: Of Stable-Baselines3. One over vectors of floats, of one-step transitions, is read directly, in a
            fraction of the time.
        size: Transitions.
        env: Normalises observations and rewards, if not None.
        gamma: Discount of one step.
    """
    if env is None and _is_readable(buffer):
        adaptive = buffer if isinstance(buffer, AdaptiveReplayBuffer) else None
        # As BaseBuffer.sample and ReplayBuffer._get_samples draw them.
        rows = np.random.randint(0, buffer.size(), size=size) if adaptive is None else adaptive.draw_rows(size)
        columns = np.random.randint(0, high=buffer.n_envs, size=(size,))
        widths = buffer.observations.shape[2], buffer.actions.shape[2]
        out = tuple(np.empty((size, width), np.float32) for width in (widths[0], widths[1], widths[0], 1, 1))
        gather_transitions(
            buffer.observations,
            buffer.actions,
            buffer.next_observations,
            buffer.dones,
            buffer.timeouts,
            buffer.rewards,
            rows,
            columns,
            out,
        )
        if adaptive is not None:
            adaptive.redraw_noise(rows, torch.from_numpy(out[0]), torch.from_numpy(out[2]))
        return Batch(*out, gamma)  # type: ignore[call-arg]  # `out` has five arrays
    drawn = buffer.sample(size, env=env)
    observations, actions, next_observations, dones, rewards = map(_arrays, drawn[:5])
    discounts = gamma if drawn.discounts is None else drawn.discounts.numpy()
    return Batch(observations, actions.reshape(size, -1), next_observations, dones, rewards, discounts)


def _arrays(drawn: Any) -> Any:
    if isinstance(drawn, dict):
        return {key: _arrays(part) for key, part in drawn.items()}
    return drawn.numpy().astype(np.float32, copy=False)


def transitions_at(buffer: ReplayBuffer, rows: npt.NDArray[np.int64], gamma: float) -> Batch:
    """Copies one-step transitions at given rows of a replay buffer of one environment, as they are stored.

    Args:
        buffer: Of Stable-Baselines3.
        rows: (B,) in [0, buffer size).
        gamma: Discount of one step.
    """
    dones = buffer.dones[rows] * (1 - buffer.timeouts[rows])
    arrays = [getattr(buffer, name)[rows, 0] for name in ("observations", "actions", "next_observations")]
    columns = [array.reshape(-1, 1) for array in (dones, buffer.rewards[rows])]
    return Batch(*(array.astype(np.float32) for array in (*arrays, *columns)), gamma)  # type: ignore[call-arg]  # as above


def _is_readable(buffer: ReplayBuffer) -> bool:
    """Whether a batch is made of transitions as they are stored, over vectors of floats."""
    if type(buffer) is AdaptiveReplayBuffer:
        one_step = buffer.steps_ahead == 1
    else:
        one_step = type(buffer) is ReplayBuffer and not buffer.optimize_memory_usage
    return one_step and buffer.observations.ndim == 3 and buffer.observations.dtype in (np.float32, np.float64)
