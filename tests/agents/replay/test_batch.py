"""A batch holds the transitions that Stable-Baselines3's buffer would have drawn, in the networks' element type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

from sparserl.agents.replay import batch as batch_module
from sparserl.agents.replay.batch import TransitionBatch, sample
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity

FIELDS = ("observations", "actions", "next_observations", "dones", "rewards")


def empty(kind: type[ReplayBuffer], dtype: type, n_envs: int = 2, actions: Any = None, **options: Any) -> Any:
    space, actions = spaces.Box(-9, 9, (3,), dtype), actions or spaces.Box(-1, 1, (2,), np.float32)
    return kind(20, space, actions, device="cpu", n_envs=n_envs, **options)


def filled(buffer: Any, transitions: int) -> Any:
    n_envs, dtype = buffer.n_envs, buffer.observations.dtype
    rng = np.random.default_rng(0)
    for number in range(transitions):
        observations, following = rng.normal(size=(2, n_envs, 3)).astype(dtype)
        action, reward = rng.normal(size=(n_envs, 2)).astype(np.float32), rng.normal(size=n_envs)
        if isinstance(buffer.action_space, spaces.Discrete):
            action = rng.integers(9, size=n_envs)
        done = np.array([number % 3 == 0, number % 4 == 0][:n_envs])
        infos = [{"TimeLimit.truncated": number % 2 == 0} for _ in range(n_envs)]
        if isinstance(buffer, AdaptiveReplayBuffer):
            buffer.note_policy_actions(action)
        buffer.add(observations, following, action, reward, done, infos)
    return buffer


def forgetful(dtype: type, transitions: int) -> Any:
    capacity = DynamicCapacity(threshold=0.0, minimum=0, fraction=0.4)
    buffer = filled(empty(AdaptiveReplayBuffer, dtype, capacity=capacity), transitions)
    buffer.forget_stale(lambda observations: np.zeros((len(observations), 2)))
    assert buffer.forgotten
    return buffer


def redrawing(dtype: type, transitions: int, **options: Any) -> Any:
    buffer = empty(AdaptiveReplayBuffer, dtype, n_envs=1, redraw_seed=0, **options)
    buffer.redraw_from(lambda: np.array([-1, 0, -2]), lambda rng, count: rng.normal(size=(count, 2)))
    return filled(buffer, transitions)


BUFFERS: dict[str, Callable[[type, int], Any]] = {
    "plain": lambda dtype, count: filled(empty(ReplayBuffer, dtype), count),
    "discrete actions": lambda dtype, count: filled(empty(ReplayBuffer, dtype, actions=spaces.Discrete(9)), count),
    "memory-efficient": lambda dtype, count: filled(
        empty(ReplayBuffer, dtype, optimize_memory_usage=True, handle_timeout_termination=False), count
    ),
    "three steps": lambda dtype, count: filled(empty(NStepReplayBuffer, dtype, n_steps=3, gamma=0.9), count),
    "three steps, later": lambda dtype, count: filled(
        empty(AdaptiveReplayBuffer, dtype, n_steps=3, n_steps_delay=2, gamma=0.9), count
    ),
    "forgetful": forgetful,
    "redrawing": redrawing,
    "redrawing two steps": lambda dtype, count: redrawing(dtype, count, n_steps=2, gamma=0.9),
}
READ_DIRECTLY = ("plain", "discrete actions", "three steps, later", "forgetful", "redrawing")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("transitions", [7, 33])
def test_draws_what_the_buffer_would_draw(name: str, dtype: type, transitions: int) -> None:
    buffer, source = (BUFFERS[name](dtype, transitions) for _ in range(2))
    for seed in range(2):
        np.random.seed(seed)
        theirs = source.sample(64)
        state = np.random.get_state()[1:3]
        np.random.seed(seed)
        ours = sample(buffer, 64, None, 0.9)
        assert all(np.array_equal(a, b) for a, b in zip(state, np.random.get_state()[1:3], strict=True))
        for field in FIELDS:
            array = getattr(ours, field)
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, getattr(theirs, field).float().numpy())
        np.testing.assert_array_equal(
            ours.discounts, np.float32(0.9) if theirs.discounts is None else theirs.discounts.numpy()
        )
        assert ours.dones.any()


@pytest.mark.parametrize("name", BUFFERS)
def test_transitions_of_one_step_are_read_directly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = []
    add = batch_module.add
    monkeypatch.setattr(batch_module, "add", lambda step: (gathered.append(1), add(step)))
    sample(BUFFERS[name](np.float32, 33), 4, None, 0.9)
    assert bool(gathered) == (name in READ_DIRECTLY)


def test_what_is_not_a_vector_is_flat_at_least_in_actions() -> None:
    buffer = ReplayBuffer(4, spaces.Box(0, 255, (1, 3, 3), np.uint8), spaces.Box(-1, 1, (2,)), device="cpu")
    buffer.add(*np.zeros((2, 1, 1, 3, 3), np.uint8), np.ones((1, 2)), np.ones(1), np.zeros(1), [{}])
    drawn = sample(buffer, 5, None, 0.9)
    assert isinstance(drawn, TransitionBatch)
    assert drawn.observations.shape == (5, 1, 3, 3)
    assert drawn.actions.shape == (5, 2)
