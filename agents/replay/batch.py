"""A batch of transitions as NumPy arrays, gathered from a replay buffer straight into the networks' element type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sparserl.agents.replay.buffer import AdaptiveReplayBuffer
from sparserl.kernels.deferred import Deferred, computed, once_a_block
from sparserl.kernels.program import add, make_step, stretch
from sparserl.kernels.recording import each_time, not_again, relies_on, relies_on_items
from sparserl.kernels.updates import gather_step

FloatArray = npt.NDArray[np.float32]
Observations = FloatArray | dict[str, FloatArray]
"""(B, ...) observations; of a Dict space, those of each key."""


@dataclass
class TransitionBatch:
    """Transitions, float32; NumPy arrays, or such that wait to be computed and are taken like them.

    Attributes:
        observations: (B, width), or whatever else the observation space has behind its first axis.
        actions: (B, width) in [-1, 1], or (B, 1) whole numbers of a discrete space.
        next_observations: As `observations`.
        dones: (B, 1) 1 where the episode terminated; a time limit does not count.
        rewards: (B, 1), summed over n steps if the buffer does that.
        discounts: Of what follows: (B, 1), or (1, 1) for all.
    """

    observations: Any
    actions: FloatArray
    next_observations: Any
    dones: FloatArray
    rewards: FloatArray
    discounts: FloatArray


def sample(buffer: ReplayBuffer, size: int, env: VecNormalize | None, gamma: float) -> TransitionBatch:
    """Draws the transitions that `buffer.sample` would draw, with the same generator.

    Args:
        buffer: Of Stable-Baselines3. One over vectors of floats, of one-step transitions, is read directly, in a
            fraction of the time.
        size: Transitions.
        env: Normalises observations and rewards, if not None.
        gamma: Discount of one step.
    """
    if env is None and _is_readable(buffer):
        relies_on(("readable", id(buffer)), partial(_is_readable, buffer))
        gather = _gather(buffer, size)
        relies_on_items(vars(buffer), vars(buffer).keys() - _CHANGING)
        each_time(partial(gather.draw, buffer, gamma))
        add(gather.step)
        if isinstance(buffer, AdaptiveReplayBuffer) and buffer.redraws:
            arrays = [computed(array) for array in gather.arrays]
            buffer.redraw_noise(gather.rows, torch.from_numpy(arrays[0]), torch.from_numpy(arrays[2]))
            return TransitionBatch(*arrays)
        return TransitionBatch(*gather.arrays)
    not_again()
    drawn = buffer.sample(size, env=env)
    observations, actions, next_observations, dones, rewards = map(_arrays, drawn[:5])
    discounts = _constant(gamma) if drawn.discounts is None else drawn.discounts.numpy()
    return TransitionBatch(observations, actions.reshape(size, -1), next_observations, dones, rewards, discounts)


def _arrays(drawn: Any) -> Any:
    if isinstance(drawn, dict):
        return {key: _arrays(part) for key, part in drawn.items()}
    return drawn.numpy().astype(np.float32, copy=False)


def transitions_at(buffer: ReplayBuffer, rows: npt.NDArray[np.int64], gamma: float) -> TransitionBatch:
    """Copies one-step transitions at given rows of a replay buffer of one environment, as they are stored.

    Args:
        buffer: Of Stable-Baselines3.
        rows: (B,) in [0, buffer size).
        gamma: Discount of one step.
    """
    dones = buffer.dones[rows] * (1 - buffer.timeouts[rows])
    arrays = [getattr(buffer, name)[rows, 0] for name in ("observations", "actions", "next_observations")]
    columns = [array.reshape(-1, 1) for array in (dones, buffer.rewards[rows])]
    return TransitionBatch(*(array.astype(np.float32) for array in (*arrays, *columns)), _constant(gamma))  # type: ignore[call-arg]  # there are five


def _constant(number: float) -> FloatArray:
    return np.full((1, 1), number, np.float32)


_CHANGING = {"pos", "full", "updates"}
"""Attributes of a buffer that no step depends on."""
_STORED = ("observations", "actions", "next_observations", "dones", "timeouts", "rewards")
_free: WeakKeyDictionary[ReplayBuffer, dict[int, list[tuple[int | None, Any]]]] = WeakKeyDictionary()


def _gather(buffer: ReplayBuffer, count: int) -> _Gather:
    """One that is not in use."""
    free = _free.setdefault(buffer, {}).setdefault(count, [])
    free[:] = [(used, made) for used, made in free if made.reads(buffer)]
    gather: _Gather = once_a_block(free, lambda: _Gather(buffer, count))
    return gather


class _Gather:
    """A step that copies transitions out of a buffer, and the arrays that it fills.

    Attributes:
        rows: (B,) indices in the first dimension of what is stored.
        columns: (B,) in the second.
        arrays: Of a `TransitionBatch`.
    """

    def __init__(self, buffer: ReplayBuffer, count: int):
        self.stored = [getattr(buffer, name) for name in _STORED]
        self.rows, self.columns = np.zeros(count, np.int64), np.zeros(count, np.int64)
        widths = buffer.observations.shape[2], buffer.actions.shape[2]
        results = [np.empty((count, width), np.float32) for width in (widths[0], widths[1], widths[0], 1, 1)]
        self.discounts = np.empty((1, 1), np.float32)
        sizes = [count, buffer.n_envs, *widths, buffer.observations.itemsize, buffer.actions.itemsize]
        arrays = [*self.stored, self.rows, self.columns, *results]
        addresses = [array.ctypes.data for array in arrays]
        self.step = make_step(gather_step, [*sizes, *addresses], np.dtype(np.float32), arrays)
        given = [*results, self.discounts]
        self.arrays: list[Any] = given if stretch() is None else list(map(Deferred, given))

    def draw(self, buffer: ReplayBuffer, gamma: float) -> None:
        """Draws indices, as `BaseBuffer.sample` and `ReplayBuffer._get_samples` do."""
        size = len(self.rows)
        if isinstance(buffer, AdaptiveReplayBuffer):
            self.rows[:] = buffer.draw_rows(size)
        else:
            self.rows[:] = np.random.randint(0, buffer.size(), size=size)
        if buffer.n_envs > 1:  # a draw among one changes no generator
            self.columns[:] = np.random.randint(0, high=buffer.n_envs, size=(size,))
        self.discounts[:] = gamma

    def reads(self, buffer: ReplayBuffer) -> bool:
        """Whether the buffer still has the arrays that the step reads."""
        return all(array is getattr(buffer, name) for array, name in zip(self.stored, _STORED, strict=True))


def _is_readable(buffer: ReplayBuffer) -> bool:
    """Whether a batch is made of transitions as they are stored, over vectors of floats."""
    if type(buffer) is AdaptiveReplayBuffer:
        one_step = buffer.steps_ahead == 1
    else:
        one_step = type(buffer) is ReplayBuffer and not buffer.optimize_memory_usage
    if not one_step or buffer.observations.ndim != 3 or buffer.observations.dtype not in (np.float32, np.float64):
        return False
    if buffer.actions.dtype not in (np.float32, np.int64):
        return False
    others = (buffer.dones, buffer.timeouts, buffer.rewards)
    stored = (*others, buffer.actions, buffer.observations, buffer.next_observations)
    return all(array.dtype == np.float32 for array in others) and all(array.flags.c_contiguous for array in stored)
