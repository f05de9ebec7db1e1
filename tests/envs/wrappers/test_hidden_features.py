"""`HideFeatures`: which features stay, which of them are velocities, and what is refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs import feature_names, feature_origins, make_env
from sparserl.envs.wrappers.hidden_features import HideFeatures
from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.errors import ConfigError

NO_ACTION = np.zeros(2, np.float32)


def test_the_others_stay_in_their_order() -> None:
    bare, env = FunctionEnv(n_obs=5), HideFeatures(FunctionEnv(n_obs=5), [3, 0])
    assert env.reset(seed=4)[0].tolist() == bare.reset(seed=4)[0][[1, 2, 4]].tolist()
    assert env.step(NO_ACTION)[0].tolist() == bare.step(NO_ACTION)[0][[1, 2, 4]].tolist()
    assert env.hidden == [0, 3]
    assert feature_origins(env).tolist() == [1, 2, 4]
    assert feature_names(PermuteFeatures(env, permutation=[2, 0, 1])) == ["feature 4", "feature 1", "feature 2"]


def test_the_space_is_that_of_what_stays() -> None:
    space = gym.spaces.Box(np.array([0.0, 1.0, 2.0], np.float32), np.array([5.0, 6.0, 7.0], np.float32))
    left = HideFeatures(SpacesOnly(space), [1]).observation_space
    assert left == gym.spaces.Box(np.array([0.0, 2.0], np.float32), np.array([5.0, 7.0], np.float32))


@pytest.mark.parametrize(
    ("env_id", "hidden"),
    [
        ("CartPole-v1", [1, 3]),
        ("Pendulum-v1", [2]),
        ("Acrobot-v1", [4, 5]),
        ("MountainCar-v0", [1]),
        ("MountainCarContinuous-v0", [1]),
        ("HalfCheetah-v5", range(8, 17)),
        ("Hopper-v5", range(5, 11)),
        ("Walker2d-v5", range(8, 17)),
        ("Ant-v5", range(13, 27)),
    ],
)
def test_velocities(env_id: str, hidden: Any) -> None:
    env: Any = gym.make(env_id)
    assert HideFeatures(env).hidden == list(hidden)
    if hasattr(env.unwrapped, "data"):  # they are what the simulator calls so
        assert env.reset(seed=0)[0][list(hidden)].tolist() == env.unwrapped.data.qvel.tolist()


def test_those_of_bodies_are_velocities_too() -> None:
    """Humanoid: 22 positions, 23 velocities, 130 inertias, 78 velocities of bodies; then forces."""
    assert HideFeatures(make_env("Humanoid-v5")).hidden == [*range(22, 45), *range(175, 253)]


def test_hidden_twice_is_hidden_once() -> None:
    env = HideFeatures(HideFeatures(gym.make("CartPole-v1")))
    assert (env.hidden, env.observation_space.shape) == ([], (2,))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([0, 1, 2], "hiding all 3 features would leave nothing to observe; name fewer of them"),
        ([3], r"there is no feature 3; the environment has 3 \(0 to 2\)"),
        ([1, 1], "feature 1 is named twice"),
        (
            None,
            "which features of FunctionEnv are velocities is not known; name .* wrappers.hidden-features, such as 2 3",
        ),
    ],
)
def test_refusals(features: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HideFeatures(FunctionEnv(), features)
