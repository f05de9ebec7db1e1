"""`SensorDropout`: which sensors read 0, and how often."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs.wrappers.sensor_dropout import SensorDropout
from sparserl.errors import ConfigError
from sparserl.seeding import stream

NO_ACTION = np.zeros(2, np.float32)


def readings(env: gym.Env[Any, Any], steps: int, seed: int | None = 0) -> Any:
    return np.array([env.reset(seed=seed)[0], *(env.step(NO_ACTION)[0] for _ in range(steps))])


def test_readings_worked_from_the_stream() -> None:
    raw = readings(FunctionEnv(), 9)
    fails = stream(0, "envs", "sensor_dropout").random((10, 3)) < 0.4
    seen = readings(SensorDropout(FunctionEnv(), 0.4), 9)
    assert seen.tolist() == np.where(fails, 0.0, raw).tolist()
    assert 0 < fails.sum() < fails.size
    assert seen.dtype == np.float64


def test_each_sensor_fails_as_often_as_it_should_and_on_its_own() -> None:
    failed = readings(SensorDropout(FunctionEnv(n_obs=2), 0.3), 20_000) == 0.0
    np.testing.assert_allclose(failed.mean(axis=0), 0.3, atol=0.015)
    np.testing.assert_allclose((failed[:, 0] & failed[:, 1]).mean(), 0.09, atol=0.01)
    np.testing.assert_allclose((failed[1:, 0] & failed[:-1, 0]).mean(), 0.09, atol=0.01)


def test_broken_sensors_always_read_0_and_others_never() -> None:
    raw = readings(FunctionEnv(), 9)
    seen = readings(SensorDropout(FunctionEnv(), 1.0, sensors=[2, 0]), 9)
    assert (seen[:, [0, 2]] == 0.0).all()
    assert seen[:, 1].tolist() == raw[:, 1].tolist()


def test_probability_0_changes_nothing() -> None:
    assert readings(SensorDropout(FunctionEnv(), 0.0), 9).tolist() == readings(FunctionEnv(), 9).tolist()


def test_another_seed_drops_others_and_a_reset_without_one_goes_on() -> None:
    env = SensorDropout(FunctionEnv(), 0.5)
    first, more, other = (readings(env, 20, seed) == 0.0 for seed in (0, None, 1))
    assert first.tolist() != more.tolist() != other.tolist() != first.tolist()
    assert (readings(env, 20, 0) == 0.0).tolist() == first.tolist()


def test_0_belongs_to_the_space_of_what_can_fail() -> None:
    inner = SpacesOnly(gym.spaces.Box(np.array([1.0, 1.0, -3.0]), np.array([2.0, 2.0, -1.0]), dtype=np.float64))
    space: Any = SensorDropout(inner, 0.5, sensors=[1, 2]).observation_space
    assert (space.low.tolist(), space.high.tolist()) == ([1.0, 0.0, -3.0], [2.0, 2.0, 0.0])
    assert space.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": -0.1}, "dropout probability must be in [0, 1], got -0.1"),
        ({"probability": 1.5}, "dropout probability must be in [0, 1], got 1.5"),
        ({"probability": math.nan}, "dropout probability must be in [0, 1], got nan"),
        ({"probability": 0.5, "sensors": [3]}, "there is no sensor 3; the environment has 3 (0 to 2)"),
        ({"probability": 0.5, "sensors": [1, 1]}, "sensor 1 is named twice"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SensorDropout(FunctionEnv(), **arguments)
    assert str(caught.value) == message
