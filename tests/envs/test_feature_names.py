"""Names of features and actions, worked by hand from the joints of the models."""

from __future__ import annotations

import gymnasium as gym
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs import action_names, feature_names, make_env
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.errors import ConfigError

LEGS = ["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]


def test_half_cheetah_leaves_out_its_first_position() -> None:
    env = make_env("HalfCheetah-v5")
    positions, velocities = ["rootz", "rooty", *LEGS], ["rootx", "rootz", "rooty", *LEGS]
    assert feature_names(env) == [*(f"qpos {name}" for name in positions), *(f"qvel {name}" for name in velocities)]
    assert action_names(env) == [f"action {name}" for name in LEGS]


def test_a_free_joint_has_seven_positions_and_six_velocities() -> None:
    env = make_env("Ant-v5")
    names = feature_names(env)
    assert len(names) == 105
    assert names[:6] == ["qpos root.2", "qpos root.3", "qpos root.4", "qpos root.5", "qpos root.6", "qpos hip_1"]
    assert names[13:20] == [*(f"qvel root.{axis}" for axis in range(6)), "qvel hip_1"]
    assert names[27::77] == ["cfrc_ext 0", "cfrc_ext 77"]
    assert action_names(env)[-1] == "action 7"


@pytest.mark.parametrize("env_id", ["Humanoid-v5", "Swimmer-v5", "InvertedPendulum-v5", "Reacher-v5", "Hopper-v5"])
def test_every_feature_has_a_name_of_its_own(env_id: str) -> None:
    env = make_env(env_id)
    assert env.observation_space.shape == (len(set(feature_names(env))),)
    assert env.action_space.shape == (len(set(action_names(env))),)


def test_names_follow_noise_and_order() -> None:
    env = PermuteFeatures(AppendNoiseFeatures(FunctionEnv(), 0.5), permutation=[4, 0, 3, 5, 2, 1])
    assert feature_names(env) == ["noise 1", "feature 0", "noise 0", "noise 2", "feature 2", "feature 1"]


def test_a_wrapper_that_says_nothing_leaves_numbers() -> None:
    doubled = gym.wrappers.TransformObservation(make_env("Hopper-v5"), lambda x: x[:4], gym.spaces.Box(-1.0, 1.0, (4,)))
    assert feature_names(doubled) == ["feature 0", "feature 1", "feature 2", "feature 3"]


def test_pictures_have_no_names() -> None:
    with pytest.raises(ConfigError, match="features of vectors have names"):
        feature_names(SpacesOnly(gym.spaces.Box(0, 1, (2, 3))))
