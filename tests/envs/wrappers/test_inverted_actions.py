"""`InvertActions`: what reaches the environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs.wrappers.inverted_actions import InvertActions
from sparserl.errors import ConfigError


def with_actions(low: Any, high: Any) -> SpacesOnly:
    box = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
    return SpacesOnly(gym.spaces.Box(-1.0, 1.0, (2,)), box)


def test_worked_by_hand() -> None:
    env = InvertActions(with_actions([-1.0, 0.0, -2.0], [1.0, 4.0, 1.0]))
    assert env.action(np.array([0.25, 1.0, 0.5], np.float32)).tolist() == [-0.25, 3.0, -1.5]
    assert env.action_space == env.env.action_space


def test_some_actuators() -> None:
    env = InvertActions(with_actions([-1.0, 0.0, -2.0], [1.0, 4.0, 1.0]), indices=[2, 0])
    assert env.action(np.array([0.25, 1.0, 0.5], np.float32)).tolist() == [-0.25, 1.0, -1.5]


def test_the_environment_gets_the_inverted_action() -> None:
    got: list[Any] = []
    env = InvertActions(FunctionEnv(lambda state, action: (got.append(action), (state, 0.0))[1]))  # type: ignore[func-returns-value]
    env.reset(seed=0)
    given = np.array([0.5, -1.0], np.float32)
    env.step(given)
    assert got[0].tolist() == [-0.5, 1.0]
    assert got[0].dtype == np.float32
    assert given.tolist() == [0.5, -1.0]


bounds = st.integers(-25_600, 25_600).map(lambda number: number / 256)


@given(bounds, bounds, st.floats(0.0, 1.0))
def test_an_action_within_its_box_stays_there(one: float, other: float, share: float) -> None:
    low, high = np.float32(min(one, other)), np.float32(max(one, other))
    if low == high:
        return
    env = InvertActions(with_actions([low], [high]))
    action = np.clip(np.array([low + np.float32(share) * (high - low)], np.float32), low, high)
    assert env.action_space.contains(env.action(action))
    assert env.action(np.array([low])) == high
    assert env.action(np.array([high])) == low
    np.testing.assert_allclose(env.action(env.action(action)), action, atol=1e-5)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([2], "there is no actuator 2; the environment has 2 (0 to 1)"),
        ([0, -1], "there is no actuator -1; the environment has 2 (0 to 1)"),
        ([0.5], "there is no actuator 0.5; the environment has 2 (0 to 1)"),
        ([1, 0, 1], "actuator 1 is named twice"),
    ],
)
def test_bad_indices(indices: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InvertActions(FunctionEnv(), indices)
    assert str(caught.value) == message


@pytest.mark.parametrize("space", [gym.spaces.MultiBinary(3), gym.spaces.Box(-np.inf, 1.0, (2,))])
def test_actions_without_bounds(space: Any) -> None:
    with pytest.raises(ConfigError, match="inverting actions needs a bounded vector of them"):
        InvertActions(SpacesOnly(gym.spaces.Box(-1.0, 1.0, (2,)), space))


def test_discrete_actions_are_counted_from_the_other_end() -> None:
    seen = []
    env = SpacesOnly(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(3))
    env.step = lambda action: (seen.append(action), (env.observation_space.sample(), 0.0, False, False, {}))[1]  # type: ignore[method-assign]
    inverted = InvertActions(env)
    for action in (0, np.int64(1), 2):
        inverted.step(action)
    assert seen == [2, 1, 0]
    assert all(env.action_space.contains(action) for action in seen)
    plain = InvertActions(env, indices=[])
    plain.step(0)
    assert seen[-1] == 0
