"""`NormalizeRewards`: worked by hand, beside Stable-Baselines3's `VecNormalize`, shared, saved, followed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.envs import FunctionEnv

from sparserl.envs import WrapperConfig, around_counted, share_statistics, wrap
from sparserl.envs.wrappers.normalized_rewards import NormalizeRewards
from sparserl.errors import CheckpointError, ConfigError

NO_ACTION = np.zeros(2, np.float32)


def env_of(*rewards: float) -> FunctionEnv:
    remaining = iter(rewards)
    return FunctionEnv(lambda state, action: (state, next(remaining)), horizon=3)


def rewards_of(env: gym.Env[Any, Any], steps: int) -> list[float]:
    env.reset(seed=0)
    rewards = []
    for _ in range(steps):
        _, reward, terminated, truncated, _ = env.step(NO_ACTION)
        rewards.append(float(reward))
        if terminated or truncated:
            env.reset()
    return rewards


def test_rewards_worked_by_hand() -> None:
    env = NormalizeRewards(env_of(2.0, 2.0, 0.0, 4.0), discount=0.5)
    seen = rewards_of(env, 4)
    # Discounted returns: 2, 1 + 2, 1.5 + 0; then a new episode: 4. The first statistics weigh 1e-4.
    returns = np.array([2.0, 3.0, 1.5, 4.0])
    for count, (reward, scaled) in enumerate(zip([2.0, 2.0, 0.0, 4.0], seen, strict=True), 1):
        whole = count + 1e-4
        mean = returns[:count].sum() / whole
        var = (1e-4 * (1 + mean**2) + np.square(returns[:count] - mean).sum()) / whole
        assert scaled == pytest.approx(np.clip(reward / np.sqrt(var + 1e-8), -10, 10), rel=1e-5)
    assert seen[0] == 10.0  # one return has no deviation to speak of


def test_it_is_what_stable_baselines3_does() -> None:
    theirs = VecNormalize(DummyVecEnv([FunctionEnv]), norm_obs=False, gamma=0.9)
    theirs.seed(0)
    theirs.reset()
    expected = [float(theirs.step(NO_ACTION[None])[1][0]) for _ in range(70)]
    env = NormalizeRewards(FunctionEnv(), discount=0.9)
    np.testing.assert_allclose(rewards_of(env, 70), expected, rtol=1e-5)


def test_an_environment_that_follows_shows_rewards_as_they_are() -> None:
    config = WrapperConfig(normalize_rewards=0.9)
    leader = wrap(FunctionEnv(), config, seed=0)
    follower = wrap(FunctionEnv(), config, seed=0, follow=leader)
    assert rewards_of(follower, 30) == rewards_of(FunctionEnv(), 30)
    assert rewards_of(leader, 30) != rewards_of(FunctionEnv(), 30)


def test_returns_are_counted_before_rewards_are_scaled() -> None:
    env = around_counted(wrap(FunctionEnv(), WrapperConfig(normalize_rewards=0.9), seed=0), Monitor)
    scaled, plain = rewards_of(env, 20), rewards_of(FunctionEnv(), 20)
    [counted] = env.get_wrapper_attr("get_episode_rewards")()
    assert counted == pytest.approx(sum(plain))
    assert counted != pytest.approx(sum(scaled))
    plainly = around_counted(FunctionEnv(), Monitor)
    assert isinstance(plainly, Monitor)


def test_statistics_are_shared_by_several_and_returns_are_not() -> None:
    envs = [NormalizeRewards(env_of(1.0, 1.0, 1.0)), NormalizeRewards(env_of(5.0, 5.0, 5.0))]
    share_statistics(envs)
    for env in envs:
        rewards_of(env, 2)
    states = [env.state_dict() for env in envs]
    assert states[0]["count"] == states[1]["count"] == pytest.approx(4.0001)
    assert [state["return"] for state in states] == pytest.approx([1.99, 9.95])


def test_it_goes_on_from_a_saved_state() -> None:
    env = NormalizeRewards(FunctionEnv())
    rewards_of(env, 25)
    other = NormalizeRewards(FunctionEnv())
    other.load_state_dict(env.state_dict())
    assert other.state_dict() == env.state_dict()
    with pytest.raises(CheckpointError, match="saved statistics of rewards are not finite"):
        other.load_state_dict({**env.state_dict(), "var": float("nan")})


@pytest.mark.parametrize("discount", [0.0, 1.5])
def test_a_discount_out_of_range_is_refused(discount: float) -> None:
    with pytest.raises(ConfigError, match=rf"a discount in \(0, 1\], got {discount}"):
        NormalizeRewards(FunctionEnv(), discount)
