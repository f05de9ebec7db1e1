"""A batch holds the transitions that Stable-Baselines3's buffer would have drawn, in the networks' element type."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

from sparserl.agents.batch import Batch, sample

FIELDS = ("observations", "actions", "next_observations", "dones", "rewards")


def filled(kind: type[ReplayBuffer], dtype: type, transitions: int, n_envs: int = 2, **options: object) -> ReplayBuffer:
    space, actions = spaces.Box(-9, 9, (3,), dtype), spaces.Box(-1, 1, (2,), np.float32)
    buffer = kind(20, space, actions, device="cpu", n_envs=n_envs, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for number in range(transitions):
        observations, following = rng.normal(size=(2, n_envs, 3)).astype(dtype)
        action, reward = rng.normal(size=(n_envs, 2)).astype(np.float32), rng.normal(size=n_envs)
        done = np.array([number % 3 == 0, number % 4 == 0][:n_envs])
        infos = [{"TimeLimit.truncated": number % 2 == 0} for _ in range(n_envs)]
        buffer.add(observations, following, action, reward, done, infos)
    return buffer


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ReplayBuffer, {}),
        (ReplayBuffer, {"optimize_memory_usage": True, "handle_timeout_termination": False}),
        (NStepReplayBuffer, {"n_steps": 3, "gamma": 0.9}),
    ],
    ids=["plain", "memory-efficient", "three steps"],
)
@pytest.mark.parametrize("transitions", [7, 33])
def test_draws_what_the_buffer_would_draw(
    kind: type[ReplayBuffer], options: dict[str, object], dtype: type, transitions: int
) -> None:
    buffer = filled(kind, dtype, transitions, **options)
    np.random.seed(5)
    theirs = buffer.sample(64)
    state = np.random.get_state()[1:3]
    np.random.seed(5)
    ours = sample(buffer, 64, None, 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(state, np.random.get_state()[1:3], strict=True))
    for name in FIELDS:
        array = getattr(ours, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, getattr(theirs, name).float().numpy())
    np.testing.assert_array_equal(ours.discounts, 0.9 if theirs.discounts is None else theirs.discounts.numpy())
    assert ours.dones.any()


def test_what_is_not_a_vector_is_flat_at_least_in_actions() -> None:
    buffer = ReplayBuffer(4, spaces.Box(0, 255, (1, 3, 3), np.uint8), spaces.Box(-1, 1, (2,)), device="cpu")
    buffer.add(*np.zeros((2, 1, 1, 3, 3), np.uint8), np.ones((1, 2)), np.ones(1), np.zeros(1), [{}])
    drawn = sample(buffer, 5, None, 0.9)
    assert isinstance(drawn, Batch)
    assert drawn.observations.shape == (5, 1, 3, 3)
    assert drawn.actions.shape == (5, 2)
