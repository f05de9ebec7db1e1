"""`DisableActuators`, `BreakSensors`: what is broken stays broken, and nothing else is touched."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs.wrappers.defects import BreakSensors, DisableActuators
from sparserl.errors import ConfigError


def test_disabled_actuators_worked_by_hand() -> None:
    env = DisableActuators(FunctionEnv(n_obs=3, n_action=3), [2, 0])
    action = np.array([0.5, -0.25, 1.0], np.float32)
    changed = env.action(action)
    assert changed.tolist() == [0.0, -0.25, 0.0]
    assert changed.dtype == np.float32
    assert action.tolist() == [0.5, -0.25, 1.0], "the agent's own array is not written into"
    assert env.action_space == env.env.action_space


def test_the_environment_gets_the_action_without_them() -> None:
    env, bare = DisableActuators(FunctionEnv(), [1]), FunctionEnv()
    for each in (env, bare):
        each.reset(seed=0)
    answers = env.step(np.array([0.5, 0.5], np.float32)), bare.step(np.array([0.5, 0.0], np.float32))
    assert answers[0][0].tolist() == answers[1][0].tolist()
    assert answers[0][1] == answers[1][1]


def test_broken_sensors_read_0_after_resets_and_steps() -> None:
    env, bare = BreakSensors(FunctionEnv(), [2, 0]), FunctionEnv()
    action = np.ones(2, np.float32)
    for _ in range(2):
        pairs = [(env.reset(seed=1)[0], bare.reset(seed=1)[0])]
        pairs += [(env.step(action)[0], bare.step(action)[0]) for _ in range(3)]
        for seen, raw in pairs:
            assert seen.tolist() == [0.0, raw[1], 0.0]
            assert raw[0] != 0.0


def test_0_belongs_to_the_space_of_what_is_broken() -> None:
    inner = SpacesOnly(gym.spaces.Box(np.array([1.0, 1.0, -3.0]), np.array([2.0, 2.0, -1.0]), dtype=np.float64))
    space: Any = BreakSensors(inner, [1, 2]).observation_space
    assert (space.low.tolist(), space.high.tolist()) == ([1.0, 0.0, -3.0], [2.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("wrapper", "indices", "message"),
    [
        (DisableActuators, [2], "there is no actuator 2; the environment has 2 (0 to 1)"),
        (DisableActuators, [0, 0], "actuator 0 is named twice"),
        (BreakSensors, [-1], "there is no sensor -1; the environment has 3 (0 to 2)"),
        (BreakSensors, [1, 1], "sensor 1 is named twice"),
    ],
)
def test_bad_indices(wrapper: Any, indices: list[int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wrapper(FunctionEnv(), indices)
    assert str(caught.value) == message


def test_bad_spaces() -> None:
    flat = gym.spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(ConfigError, match=r"^disabling actuators needs a bounded vector of them"):
        DisableActuators(SpacesOnly(flat, gym.spaces.Box(-np.inf, np.inf, (2,))), [0])
    with pytest.raises(ConfigError, match=r"^actuator 1 cannot be 0; it is in \[0.5, 1.0\]$"):
        DisableActuators(SpacesOnly(flat, gym.spaces.Box(np.array([0.0, 0.5]), np.ones(2), dtype=np.float64)), [1])
