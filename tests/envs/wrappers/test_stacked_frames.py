"""`StackFrames`: what an agent sees of earlier steps, where each feature comes from, and what is refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs import WrapperConfig, feature_names, feature_origins, relevant_features, wrap
from sparserl.envs.wrappers.hidden_features import HideFeatures
from sparserl.envs.wrappers.stacked_frames import StackFrames
from sparserl.errors import CheckpointError, ConfigError


def counting(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
    return state + 1, 0.0


def test_frames_by_hand() -> None:
    bare, env = FunctionEnv(counting, n_obs=2), StackFrames(FunctionEnv(counting, n_obs=2), 3)
    a, b = bare.reset(seed=1)[0]
    assert env.reset(seed=1)[0].tolist() == [a, b] * 3
    act = np.zeros(2, np.float32)
    assert env.step(act)[0].tolist() == [a, b, a, b, a + 1, b + 1]
    env.step(act)
    assert env.step(act)[0].tolist() == [a + 1, b + 1, a + 2, b + 2, a + 3, b + 3]
    c, d = bare.reset(seed=2)[0]
    assert env.reset(seed=2)[0].tolist() == [c, d] * 3  # nothing of the episode before


def test_an_observation_is_not_changed_by_the_next_step() -> None:
    env = StackFrames(FunctionEnv(counting), 2)
    first = env.reset(seed=0)[0]
    kept = first.copy()
    env.step(np.zeros(2, np.float32))
    assert np.array_equal(first, kept)


def test_features_are_named_by_their_age() -> None:
    env = StackFrames(HideFeatures(gym.make("CartPole-v1"), [1, 3]), 3)
    assert feature_origins(env).tolist() == [8, 10, 4, 6, 0, 2]
    names = ["cart position, 2 steps ago", "pole angle, 2 steps ago", "cart position, 1 step ago"]
    assert feature_names(env) == [*names, "pole angle, 1 step ago", "cart position", "pole angle"]


def test_noise_is_of_this_moment_and_the_order_hides_it() -> None:
    config = WrapperConfig(frame_stack=2, noise_fraction=0.5, permute=True)
    env = wrap(FunctionEnv(), config, 0)
    assert sorted(feature_origins(env).tolist()) == [*range(-6, 0), *range(6)]
    assert relevant_features(env).sum() == 6
    assert sorted(feature_names(env))[-7:-5] == ["feature 2, 1 step ago", "noise 0"]
    assert config.labels == ["noise0.5", "permuted", "frames2"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wrappers.frame-stack must be in \[1, 100\], got 0"):
        WrapperConfig(frame_stack=0)
    with pytest.raises(ConfigError, match="at least 2 frames are stacked, got 1"):
        StackFrames(FunctionEnv(), 1)
    with pytest.raises(ConfigError, match="needs vectors as observations"):
        StackFrames(SpacesOnly(gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)), 2)
    with pytest.raises(CheckpointError, match=r"stacked frames of shape \(3, 3\) do not fit \(2, 3\)"):
        StackFrames(FunctionEnv(), 2).load_state_dict({"frames": np.zeros((3, 3))})
