"""`WrapperConfig`, `wrap`: what a run puts around its environments, and in which order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv
from support.trees import assert_equal_trees

from sparserl import config
from sparserl.envs import (
    WRAPPERS,
    FeatureHistograms,
    ObservationStatistics,
    WrapperConfig,
    load_wrapper_state,
    make_env,
    relevant_features,
    wrap,
    wrapper_state,
)
from sparserl.envs.wrapper_stack import layers
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.envs.wrappers.normalized_observations import NormalizeObservations
from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.errors import CheckpointError, ConfigError
from sparserl.recording import checkpoint

ALL = WrapperConfig(
    noise_fraction=0.5,
    noise_std=3.0,
    permute=True,
    permute_every_steps=4,
    normalize_observations="running",
    invert_actions=True,
    sensor_dropout=0.25,
    hidden_features=(1,),
    normalize_rewards=0.9,
    frame_stack=2,
)
NO_ACTION = np.zeros(2, np.float32)


def found(env: gym.Env[Any, Any], kind: Any) -> Any:
    return next(layer for layer in layers(env) if type(layer) is kind)


def drive(env: gym.Env[Any, Any], steps: int, seed: int | None = None) -> list[Any]:
    seen = [env.reset(seed=seed)[0].tolist()]
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(NO_ACTION)
        seen.append(observation.tolist())
        if terminated or truncated:
            seen.append(env.reset()[0].tolist())
    return seen


def test_the_defaults_leave_the_environment_alone() -> None:
    env = FunctionEnv()
    assert wrap(env, WrapperConfig(), seed=0) is env


def test_all_wrappers_in_their_order() -> None:
    env = wrap(FunctionEnv(), ALL, seed=0)
    names = [type(layer).__name__ for layer in layers(env)]
    assert names == [
        "NormalizeRewards",
        "PermuteFeatures",
        "AppendNoiseFeatures",
        "StackFrames",
        "NormalizeObservations",
        "SensorDropout",
        "HideFeatures",
        "InvertActions",
        "FunctionEnv",
    ]
    assert names[-2::-1] == [wrapping.wrapper.__name__ for wrapping in WRAPPERS.values()]
    assert env.observation_space.shape == (8,)  # two that are seen, twice, and as much noise


@pytest.mark.parametrize(
    ("option", "wrapper"),
    [
        ({"noise_fraction": 0.5}, "noise_features"),
        ({"permute": True}, "permuted_features"),
        ({"normalize_observations": "running"}, "normalized_observations"),
        ({"invert_actions": True}, "inverted_actions"),
        ({"sensor_dropout": 0.5}, "sensor_dropout"),
        ({"hidden_features": (1,)}, "hidden_features"),
        ({"normalize_rewards": 1.0}, "normalized_rewards"),
        ({"frame_stack": 2}, "stacked_frames"),
    ],
)
def test_one_option_brings_one_wrapper(option: dict[str, Any], wrapper: str) -> None:
    outer, inner = layers(wrap(FunctionEnv(), WrapperConfig(**option), seed=0))
    assert type(outer) is WRAPPERS[wrapper].wrapper
    assert type(inner) is FunctionEnv


def test_noise_keeps_its_scale_beside_normalised_features() -> None:
    settings = WrapperConfig(noise_fraction=0.5, noise_std=100.0, normalize_observations="running", permute=True)
    env = wrap(FunctionEnv(), settings, seed=0)
    seen = np.array(drive(env, 400, seed=0))
    noise = ~relevant_features(env)
    assert (seen[:, noise].std(axis=0) > 80.0).all()
    assert (seen[:, ~noise].std(axis=0) < 3.0).all()


def test_the_seed_of_the_run_orders_the_features_and_that_of_the_reset_draws_the_noise() -> None:
    def permutation(seed: int) -> list[int]:
        order = found(wrap(FunctionEnv(n_obs=8), WrapperConfig(permute=True), seed), PermuteFeatures).permutation
        assert isinstance(order, np.ndarray)
        return order.tolist()

    assert permutation(1) == permutation(1) != permutation(2)
    settings = WrapperConfig(noise_fraction=0.5)
    first, second = (wrap(FunctionEnv(), settings, seed) for seed in (1, 2))
    assert drive(first, 5, seed=7) == drive(second, 5, seed=7) != drive(second, 5, seed=8)


def test_files_reach_their_wrappers(tmp_path: Path) -> None:
    statistics = ObservationStatistics(np.array([1.0, 2.0, 3.0]), np.ones(3), 5.0)
    statistics.save(tmp_path / "statistics.json")
    FeatureHistograms(np.array([[7.0, 7.0]]), np.ones((1, 1))).save(tmp_path / "histograms.json")
    settings: dict[str, Any] = {
        "noise_fraction": 0.5,
        "noise_histograms": tmp_path / "histograms.json",
        "normalization": tmp_path / "statistics.json",
    }
    frozen = wrap(FunctionEnv(), WrapperConfig(**settings, normalize_observations="frozen"), seed=0)
    assert [row[3:] for row in drive(frozen, 4)] == [[7.0] * 3] * 5
    assert found(frozen, NormalizeObservations).statistics.mean.tolist() == [1.0, 2.0, 3.0]
    running = wrap(FunctionEnv(), WrapperConfig(**settings, normalize_observations="running"), seed=0)
    assert found(running, NormalizeObservations).statistics.count == 5.0
    drive(running, 4)
    assert found(running, NormalizeObservations).statistics.count == 10.0


def test_a_file_of_another_environment(tmp_path: Path) -> None:
    ObservationStatistics(np.zeros(4), np.ones(4), 5.0).save(tmp_path / "statistics.json")
    settings = WrapperConfig(normalize_observations="frozen", normalization=tmp_path / "statistics.json")
    with pytest.raises(ConfigError, match="statistics of 4 features do not fit 3"):
        wrap(FunctionEnv(), settings, seed=0)
    missing = WrapperConfig(normalize_observations="frozen", normalization=tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"cannot read .*none.json: No such file"):
        wrap(FunctionEnv(), missing, seed=0)


def test_an_evaluation_environment_follows_the_training_environment() -> None:
    training = wrap(FunctionEnv(horizon=5), ALL, seed=0)
    evaluation = wrap(FunctionEnv(horizon=5), ALL, seed=0, follow=gym.wrappers.TimeLimit(training, 100))
    mine, theirs = ([found(env, PermuteFeatures), found(env, NormalizeObservations)] for env in (training, evaluation))
    orders = set()
    drive(training, 3, seed=0)
    for _ in range(6):
        before = mine[0].permutation.tolist(), mine[1].statistics.mean.tolist(), mine[1].statistics.count
        drive(evaluation, 13, seed=1)
        for permutation, normalization in (mine, theirs):
            now = normalization.statistics
            assert (permutation.permutation.tolist(), now.mean.tolist(), now.count) == before
        orders.add(tuple(before[0]))
        drive(training, 7)
    assert len(orders) > 3
    assert found(evaluation, AppendNoiseFeatures) is not found(training, AppendNoiseFeatures)


def test_state_of_the_wrappers_alone(tmp_path: Path) -> None:
    """Pendulum cannot give its state; what the agent has learned to see must survive all the same."""
    source, target = (wrap(make_env("Pendulum-v1"), ALL, seed=0) for _ in range(2))
    for env in (source, target):
        env.reset(seed=0)
        env.action_space.seed(0)
    for _ in range(300):
        if source.step(source.action_space.sample())[3]:
            source.reset()
    checkpoint.save(tmp_path / "saved", wrapper_state(source))
    load_wrapper_state(target, checkpoint.load(tmp_path / "saved"))
    assert_equal_trees(wrapper_state(target), wrapper_state(source))
    assert set(wrapper_state(source)) == set(WRAPPERS) - {"inverted_actions", "hidden_features"}
    assert found(target, NormalizeObservations).statistics.count > 300.0
    assert found(target, PermuteFeatures).permutation.tolist() == found(source, PermuteFeatures).permutation.tolist()
    for name in ("noise_features", "sensor_dropout"):
        ours, other = (found(env, WRAPPERS[name].wrapper)._generator for env in (source, target))
        assert ours.random() == other.random()
    with pytest.raises(CheckpointError, match=r"state of the wrappers .* does not fit"):
        load_wrapper_state(wrap(make_env("Pendulum-v1"), WrapperConfig(permute=True), 0), wrapper_state(source))


def test_config_is_plain_data() -> None:
    settings = WrapperConfig(noise_fraction=0.5, noise_histograms=Path("a.json"), permute=True, permute_every_steps=9)
    plain = json.loads(json.dumps(config.plain(settings)))
    assert config.build(WrapperConfig, plain) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_fraction": 1.0}, "wrappers.noise-fraction must be in [0, 1), got 1.0"),
        ({"noise_fraction": 0.5, "noise_std": -1.0}, "wrappers.noise-std must be positive, got -1.0"),
        ({"noise_std": 2.0}, "wrappers.noise-std needs wrappers.noise-fraction"),
        ({"noise_histograms": Path("a")}, "wrappers.noise-histograms needs wrappers.noise-fraction"),
        (
            {"noise_fraction": 0.5, "noise_std": 2.0, "noise_histograms": Path("a")},
            "wrappers.noise-histograms does not go with wrappers.noise-std",
        ),
        ({"permute_every_steps": 5}, "wrappers.permute-every-steps needs wrappers.permute"),
        (
            {"permute": True, "permute_every_steps": 0},
            "wrappers.permute-every-steps must be at least 1, got 0",
        ),
        ({"normalization": Path("a")}, "wrappers.normalization needs wrappers.normalize-observations"),
        ({"normalize_observations": "frozen"}, "wrappers.normalize-observations frozen needs wrappers.normalization"),
        (
            {"hide_velocities": True, "hidden_features": (1,)},
            "wrappers.hidden-features does not go with wrappers.hide-velocities: name them, too",
        ),
        ({"hidden_features": (-1,)}, "wrappers.hidden-features must not be negative, got (-1,)"),
        ({"sensor_dropout": 2.0}, "wrappers.sensor-dropout must be in [0, 1], got 2.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WrapperConfig(**options)
    assert str(caught.value) == message
