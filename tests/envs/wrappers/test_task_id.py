"""`AppendTaskId`: the id is there, last, and no noise."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from support.envs import DictEnv, FunctionEnv, SpacesOnly

from sparserl.envs.feature_names import feature_names
from sparserl.envs.wrapper_stack import feature_origins
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.envs.wrappers.stacked_frames import StackFrames
from sparserl.envs.wrappers.task_id import AppendTaskId
from sparserl.errors import ConfigError


def test_the_id_is_one_hot_and_last() -> None:
    env, bare = AppendTaskId(FunctionEnv(), 1, 3), FunctionEnv()
    assert env.reset(seed=0)[0].tolist() == [*bare.reset(seed=0)[0], 0.0, 1.0, 0.0]
    action = np.ones(2, np.float32)
    assert env.step(action)[0].tolist() == [*bare.step(action)[0], 0.0, 1.0, 0.0]


def test_its_space() -> None:
    env = AppendTaskId(SpacesOnly(gym.spaces.Box(-2.0, 3.0, (2,), np.float32)), 0, 2)
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    assert (space.low.tolist(), space.high.tolist()) == ([-2.0, -2.0, 0.0, 0.0], [3.0, 3.0, 1.0, 1.0])
    assert env.reset(seed=0)[0].dtype == space.dtype == np.float32
    assert space.contains(env.reset(seed=0)[0])


def test_the_id_counts_as_features_of_its_own() -> None:
    env = AppendTaskId(AppendNoiseFeatures(FunctionEnv(), 0.5), 0, 2)
    assert feature_origins(env).tolist() == [0, 1, 2, -1, -2, -3, 3, 4]
    assert feature_names(env)[3:] == ["noise 0", "noise 1", "noise 2", "task 0", "task 1"]


def test_the_id_is_no_earlier_feature() -> None:
    env = AppendTaskId(StackFrames(FunctionEnv(n_obs=1), 2), 0, 2)
    assert feature_names(env) == ["feature 0, 1 step ago", "feature 0", "task 0", "task 1"]
    assert feature_names(AppendTaskId(gym.wrappers.FlattenObservation(DictEnv()), 0, 2)) == [
        *("arm 0", "arm 1", "goal", "task 0", "task 1")
    ]


@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_that_does_not_exist(task: int) -> None:
    with pytest.raises(ConfigError, match=rf"^there is no task {task} among 3$"):
        AppendTaskId(FunctionEnv(), task, 3)
