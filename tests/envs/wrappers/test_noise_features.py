"""`AppendNoiseFeatures`: how many, where, and drawn from what."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.errors import ConfigError
from sparserl.seeding import stream


def noise_of(env: gym.Env[Any, Any], seed: int | None, steps: int = 0) -> Any:
    """The noise of a reset and the steps after it, one row each."""
    rows = [env.reset(seed=seed)[0]]
    rows += [env.step(np.zeros(2, np.float32))[0] for _ in range(steps)]
    return np.array(rows)[:, 3:]


@pytest.mark.parametrize(
    ("real", "fraction", "features"),
    [
        (17, 0.0, 17),
        (17, 0.5, 34),
        (17, 0.8, 86),  # not 85: 1 - 0.8 is a little less than 0.2
        (17, 0.9, 171),
        (17, 0.95, 340),
        (17, 0.98, 850),
        (17, 0.99, 1700),
        (11, 0.8, 56),
        (11, 0.9, 111),
        (376, 0.99, 37600),
        (3, 0.1, 4),
    ],
)
def test_number_of_features_is_that_of_the_paper(real: int, fraction: float, features: int) -> None:
    env = AppendNoiseFeatures(SpacesOnly(gym.spaces.Box(-1.0, 1.0, (real,))), fraction)
    assert env.observation_space.shape == (features,)
    assert env.noise_features.tolist() == [False] * real + [True] * (features - real)


def test_real_features_stand_first_and_keep_their_values_type_and_bounds() -> None:
    inner = FunctionEnv()
    inner.observation_space = gym.spaces.Box(np.array([-1.0, -2.0, -3.0]), np.array([4.0, 5.0, 6.0]), dtype=np.float64)
    env = AppendNoiseFeatures(inner, 0.5)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float64
    assert observation[:3].tolist() == inner.state.tolist()
    assert env.observation_space.low.tolist() == [-1.0, -2.0, -3.0] + [-math.inf] * 3  # type: ignore[attr-defined]
    assert env.observation_space.high.tolist() == [4.0, 5.0, 6.0] + [math.inf] * 3  # type: ignore[attr-defined]


def test_noise_is_that_of_its_stream() -> None:
    rng = stream(8, "envs", "noise_features")
    expected = rng.normal(scale=2.5, size=(4, 9))
    assert noise_of(AppendNoiseFeatures(FunctionEnv(), 0.75, std=2.5), seed=8, steps=3).tolist() == expected.tolist()


def test_noise_is_new_at_every_step_and_reset() -> None:
    env = AppendNoiseFeatures(FunctionEnv(), 0.5)
    first, again, other = noise_of(env, 0, 3), noise_of(env, None, 3), noise_of(env, 1, 3)
    assert len(np.unique([first, again, other])) == first.size * 3
    assert noise_of(env, 0, 3).tolist() == first.tolist()


def test_without_a_seed_two_environments_differ() -> None:
    first, second = (noise_of(AppendNoiseFeatures(FunctionEnv(), 0.5), seed=None) for _ in range(2))
    assert first.tolist() != second.tolist()


def test_noise_has_the_scale_that_was_asked_for() -> None:
    env = AppendNoiseFeatures(FunctionEnv(), 0.5, std=4.0)
    drawn = env.draw_noise(np.random.default_rng(0), 40_000)
    assert drawn.shape == (40_000, 3)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=0.08)
    np.testing.assert_allclose(drawn.std(axis=0), 4.0, rtol=0.02)


def test_drawing_for_others_leaves_its_own_generator_alone() -> None:
    env, twin = (AppendNoiseFeatures(FunctionEnv(), 0.5) for _ in range(2))
    noise_of(env, 0), noise_of(twin, 0)
    env.draw_noise(np.random.default_rng(0), 7)
    assert noise_of(env, None).tolist() == noise_of(twin, None).tolist()


def test_noise_from_histograms() -> None:
    """Noise feature j is drawn from histogram j modulo 2: one between 0 and 1, one that is always 5."""
    histograms = FeatureHistograms(np.array([[0.0, 1.0], [5.0, 5.0]]), np.ones((2, 1)))
    noise = noise_of(AppendNoiseFeatures(FunctionEnv(), 0.625, histograms=histograms), seed=0, steps=19)
    assert noise.shape == (20, 5)
    assert (noise[:, [1, 3]] == 5.0).all()
    assert len(np.unique(noise[:, [0, 2, 4]])) == 60
    assert (noise[:, [0, 2, 4]] < 1.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 1.0}, r"noise fraction must be in \[0, 1\), got 1.0"),
        ({"fraction": -0.1}, r"noise fraction must be in \[0, 1\), got -0.1"),
        ({"fraction": math.nan}, r"noise fraction must be in \[0, 1\), got nan"),
        ({"fraction": 0.5, "std": 0.0}, "noise std must be positive and finite, got 0.0"),
        ({"fraction": 0.5, "std": math.inf}, "noise std must be positive and finite, got inf"),
        (
            {"fraction": 0.5, "std": 2.0, "histograms": FeatureHistograms(np.zeros((1, 2)), np.ones((1, 1)))},
            "noise from histograms takes no noise std, got 2.0",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        AppendNoiseFeatures(FunctionEnv(), **arguments)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_noise_beside_whole_numbers_is_none(dtype: Any) -> None:
    space = gym.spaces.Box(0, 1 if dtype is np.bool_ else 9, (3,), dtype)
    env = AppendNoiseFeatures(SpacesOnly(space), 0.5, std=0.3)
    space.seed(0)
    observation, _ = env.reset(seed=0)
    box = env.observation_space
    assert isinstance(box, gym.spaces.Box)
    assert observation.dtype == box.dtype == np.float32
    assert box.contains(observation)
    assert (box.low[3:] == -np.inf).all()
    assert 0 < np.abs(observation[3:]).max() < 2
    assert (observation[3:] % 1 != 0).all()
    assert (observation[:3] % 1 == 0).all()
