"""`NormalizeObservations` and `ObservationStatistics`: running, frozen, shared, saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv

from sparserl.envs.wrappers.normalized_observations import NormalizeObservations, ObservationStatistics
from sparserl.errors import CheckpointError, ConfigError

NO_ACTION = np.zeros(2, np.float32)
STATISTICS = ObservationStatistics(np.array([1.0, -2.0, 0.0]), np.array([4.0, 0.25, 1.0]), 10.0)


def run(env: gym.Env[Any, Any], steps: int, seed: int | None = None) -> list[Any]:
    return [env.reset(seed=seed)[0], *(env.step(NO_ACTION)[0] for _ in range(steps))]


def test_frozen_statistics_worked_by_hand() -> None:
    inner = FunctionEnv(lambda state, action: (np.array([5.0, -1.0, 3.0]), 0.0))
    env = NormalizeObservations(inner, STATISTICS, update=False)
    env.reset(seed=0)
    observation = env.step(NO_ACTION)[0]
    np.testing.assert_allclose(observation, [2.0, 2.0, 3.0], rtol=1e-6)  # 1e-8 under the root
    assert observation.dtype == env.observation_space.dtype == np.float32
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    assert env.statistics.count == 10.0
    assert env.statistics.mean.tolist() == STATISTICS.mean.tolist()


def test_running_statistics_are_those_of_all_observations_so_far() -> None:
    """And of a mean 0 and variance 1 that count as a ten-thousandth of an observation."""
    raw = np.array(run(FunctionEnv(), 12, seed=1))
    env = NormalizeObservations(FunctionEnv())
    seen = np.array(run(env, 12, seed=1))
    count = 13.0 + 1e-4
    mean = raw.sum(axis=0) / count
    var = (1e-4 * (1.0 + mean**2) + ((raw - mean) ** 2).sum(axis=0)) / count
    np.testing.assert_allclose(env.statistics.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(env.statistics.var, var, rtol=1e-12)
    assert env.statistics.count == pytest.approx(count)
    assert env.statistics.mean.dtype == env.statistics.var.dtype == np.float64
    np.testing.assert_allclose(seen[-1], (raw[-1] - mean) / np.sqrt(var + 1e-8), rtol=1e-6)


def test_running_goes_on_from_given_statistics() -> None:
    inner = FunctionEnv(lambda state, action: (np.zeros(3), 0.0))
    env = NormalizeObservations(inner, ObservationStatistics(np.array([3.0, 0.0, 0.0]), np.ones(3), 2.0))
    env.observation(np.zeros(3))
    assert env.statistics.mean.tolist() == [2.0, 0.0, 0.0]  # two observations of mean 3, then a 0
    np.testing.assert_allclose(env.statistics.var, [8.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0])
    assert env.statistics.count == 3.0


def test_statistics_that_were_read_do_not_run_along() -> None:
    env = NormalizeObservations(FunctionEnv(), STATISTICS)
    run(env, 3, seed=0)
    read, state = env.statistics, env.state_dict()
    before = read.mean.tolist(), read.var.tolist(), state["mean"].tolist(), state["var"].tolist()
    run(env, 9)
    assert (read.mean.tolist(), read.var.tolist(), state["mean"].tolist(), state["var"].tolist()) == before
    assert STATISTICS.mean.tolist() == [1.0, -2.0, 0.0]


def test_a_follower_shares_statistics_and_never_updates_them() -> None:
    leader, follower = NormalizeObservations(FunctionEnv()), NormalizeObservations(FunctionEnv(), STATISTICS)
    follower.follow(leader)
    for _ in range(3):
        run(leader, 5)
        before = leader.statistics.mean.tolist(), leader.statistics.count
        raw = run(FunctionEnv(), 8, seed=2)
        now = leader.statistics
        expected = [((row - now.mean) / np.sqrt(now.var + 1e-8)).astype(np.float32).tolist() for row in raw]
        assert [row.tolist() for row in run(follower, 8, seed=2)] == expected
        assert (leader.statistics.mean.tolist(), leader.statistics.count) == before
    leader.load_state_dict(NormalizeObservations(FunctionEnv(), STATISTICS).state_dict())
    assert follower.statistics.mean.tolist() == STATISTICS.mean.tolist()


def test_file_gives_the_same_back_bit_for_bit(tmp_path: Path) -> None:
    env = NormalizeObservations(FunctionEnv())
    run(env, 30, seed=0)
    env.statistics.save(tmp_path / "statistics.json")
    loaded = ObservationStatistics.load(tmp_path / "statistics.json")
    assert loaded.mean.tobytes() == env.statistics.mean.tobytes()
    assert loaded.var.tobytes() == env.statistics.var.tobytes()
    assert loaded.count == env.statistics.count


def test_statistics_of_other_features() -> None:
    with pytest.raises(ConfigError, match=r"^statistics of 3 features do not fit 4$"):
        NormalizeObservations(FunctionEnv(n_obs=4), STATISTICS)
    with pytest.raises(CheckpointError, match=r"^saved statistics of 3 features do not fit 4$"):
        NormalizeObservations(FunctionEnv(n_obs=4)).load_state_dict(NormalizeObservations(FunctionEnv()).state_dict())


@pytest.mark.parametrize(
    ("mean", "var", "count", "message"),
    [
        ([0.0, 1.0], [1.0], 1.0, r"statistics need mean and var of one shape \(n,\), got \(2,\), \(1,\)"),
        ([[0.0]], [[1.0]], 1.0, "statistics need mean and var of one shape"),
        ([math.nan], [1.0], 1.0, "statistics must be finite"),
        ([0.0], [math.inf], 1.0, "statistics must be finite"),
        ([0.0], [-1.0], 1.0, "statistics must be finite, with variances that are not negative"),
        ([0.0], [1.0], 0.0, "a positive count"),
        ([0.0], [1.0], math.nan, "a positive count"),
    ],
)
def test_what_is_no_statistics(mean: Any, var: Any, count: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ObservationStatistics(np.array(mean), np.array(var), count)


def test_a_file_with_many_counts(tmp_path: Path) -> None:
    (tmp_path / "statistics.json").write_text('{"mean": [0], "var": [1], "count": [1, 2]}')
    with pytest.raises(ConfigError, match="count must be one number"):
        ObservationStatistics.load(tmp_path / "statistics.json")
