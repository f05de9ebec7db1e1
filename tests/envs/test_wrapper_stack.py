"""Which features of a wrapped environment are noise, and drawing them anew."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv

from sparserl.envs.wrapper_stack import feature_origins, layers, noise_source, relevant_features
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.inverted_actions import InvertActions
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.envs.wrappers.sensor_dropout import SensorDropout
from sparserl.errors import ConfigError

# Noise feature j always reads 10 + j.
CONSTANTS = FeatureHistograms(np.repeat([[10.0], [11.0], [12.0]], 2, axis=1), np.ones((3, 1)))


def noisy() -> gym.Env[Any, Any]:
    return AppendNoiseFeatures(SensorDropout(FunctionEnv(), 0.1), 0.5, histograms=CONSTANTS)


def test_layers_from_outside_to_inside() -> None:
    env = InvertActions(noisy())
    assert [type(layer) for layer in layers(env)] == [InvertActions, AppendNoiseFeatures, SensorDropout, FunctionEnv]


def test_without_noise_every_feature_is_relevant() -> None:
    assert relevant_features(FunctionEnv()).tolist() == [True] * 3
    assert relevant_features(PermuteFeatures(FunctionEnv())).tolist() == [True] * 3


def test_origins_worked_by_hand() -> None:
    assert feature_origins(noisy()).tolist() == [0, 1, 2, -1, -2, -3]
    env = PermuteFeatures(noisy(), permutation=[4, 0, 3, 5, 2, 1])
    assert feature_origins(env).tolist() == [-2, 0, -1, -3, 2, 1]
    assert relevant_features(env).tolist() == [False, True, False, False, True, True]
    twice = PermuteFeatures(InvertActions(env), permutation=[1, 2, 3, 4, 5, 0])
    assert feature_origins(twice).tolist() == [0, -1, -3, 2, 1, -2]


def test_redrawn_noise_stands_where_noise_stands() -> None:
    env = PermuteFeatures(noisy(), every_steps=4)
    orders = set()
    for _ in range(4):
        observation, _ = env.reset(seed=0)
        noise = ~relevant_features(env)
        assert (observation[noise] >= 10.0).all()
        assert (observation[~noise] < 10.0).all()
        redrawn = noise_source(env).draw_noise(np.random.default_rng(0), 2)
        assert redrawn[:, -1 - feature_origins(env)[noise]].tolist() == [observation[noise].tolist()] * 2
        orders.add(tuple(observation[noise]))
        for _ in range(4):
            env.step(np.zeros(2, np.float32))
    assert len(orders) > 1, "the noise features must have changed their order"


def test_redrawing_needs_one_source() -> None:
    with pytest.raises(ConfigError, match="noise features can be redrawn where one wrapper draws them, not 0"):
        noise_source(FunctionEnv())
    with pytest.raises(ConfigError, match="noise features can be redrawn where one wrapper draws them, not 2"):
        noise_source(AppendNoiseFeatures(noisy(), 0.5))


def test_a_wrapper_that_does_not_say_what_it_does() -> None:
    env = gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(noisy(), 9))
    with pytest.raises(ConfigError, match="TimeAwareObservation makes 7 features of 6 without saying how"):
        relevant_features(env)
