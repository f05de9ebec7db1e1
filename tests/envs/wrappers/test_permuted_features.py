"""`PermuteFeatures`: which feature goes where, and when the order changes."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import FunctionEnv, SpacesOnly

from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.errors import CheckpointError, ConfigError

NO_ACTION = np.zeros(2, np.float32)


class Constant(FunctionEnv):
    """Always observes 0, 1, 2, ..., so that an observation of a permutation is that permutation."""

    def __init__(self, n_obs: int = 6, horizon: int = 3) -> None:
        super().__init__(lambda state, action: (state, 0.0), n_obs=n_obs, horizon=horizon)

    def reset(self, **arguments: Any) -> Any:
        super().reset(**arguments)
        self.state = np.arange(float(self.state.size))
        return self.state.copy(), {}


def test_a_given_order_worked_by_hand() -> None:
    env = PermuteFeatures(Constant(n_obs=4), permutation=(2, 0, 3, 1))
    assert env.reset(seed=0)[0].tolist() == [2.0, 0.0, 3.0, 1.0]
    assert env.step(NO_ACTION)[0].tolist() == [2.0, 0.0, 3.0, 1.0]
    assert env.permutation.tolist() == [2, 0, 3, 1]
    assert env.permutation.dtype == np.int64


def test_bounds_move_with_the_features_while_the_order_is_fixed() -> None:
    inner = SpacesOnly(gym.spaces.Box(np.array([-1.0, -2.0, -3.0]), np.array([4.0, 5.0, 6.0]), dtype=np.float64))
    fixed: Any = PermuteFeatures(inner, permutation=[2, 0, 1]).observation_space
    assert (fixed.low.tolist(), fixed.high.tolist()) == ([-3.0, -1.0, -2.0], [6.0, 4.0, 5.0])
    changing: Any = PermuteFeatures(inner, permutation=[2, 0, 1], every_steps=5).observation_space
    assert (changing.low.tolist(), changing.high.tolist()) == ([-3.0] * 3, [6.0] * 3)
    assert fixed.dtype == changing.dtype == np.float64


def test_the_order_belongs_to_the_seed_of_the_run_and_not_of_the_reset() -> None:
    first, again, other = (
        PermuteFeatures(Constant(12)),
        PermuteFeatures(Constant(12)),
        PermuteFeatures(Constant(12), seed=1),
    )
    assert first.reset(seed=3)[0].tolist() == again.reset(seed=4)[0].tolist() == first.permutation.tolist()
    assert sorted(first.permutation) == list(range(12))
    assert other.reset(seed=3)[0].tolist() != first.permutation.tolist()


def episode(env: gym.Env[Any, Any]) -> list[Any]:
    """The order that each observation of one episode shows."""
    seen = [env.reset()[0].tolist()]
    finished = False
    while not finished:
        observation, _, _, finished, _ = env.step(NO_ACTION)
        seen.append(observation.tolist())
    return seen


def test_a_new_order_at_the_first_end_of_an_episode_after_each_period() -> None:
    """Episodes of 3 steps, periods of 5: ends at 3, 6, 9, 12, 15 and 18 lie in the periods 0, 1, 1, 2, 3 and 3."""
    env = PermuteFeatures(Constant(horizon=3), every_steps=5)
    episodes = [episode(env) for _ in range(7)]
    assert all(order == seen[0] for seen in episodes for order in seen), "the order changed within an episode"
    orders = [seen[0] for seen in episodes]
    changed = [after != before for before, after in itertools.pairwise(orders)]
    assert changed == [False, True, False, True, True, False]
    assert all(sorted(order) == list(range(6)) for order in orders)


def test_an_episode_over_several_periods_brings_one_new_order() -> None:
    """All periods from the start of the run count, so the third order is that of step 20, not the third drawn."""
    env, short = (
        PermuteFeatures(Constant(horizon=10), every_steps=4),
        PermuteFeatures(Constant(horizon=4), every_steps=4),
    )
    orders = [episode(env)[0] for _ in range(3)]
    every = [episode(short)[0] for _ in range(6)]
    assert orders == [every[0], every[2], every[5]]
    assert len({tuple(order) for order in every}) == 6


def test_a_given_order_is_only_the_first() -> None:
    env = PermuteFeatures(Constant(), permutation=range(6), every_steps=3)
    assert episode(env)[0] == list(range(6))
    assert episode(env)[0] != list(range(6))


def test_a_follower_has_the_order_of_its_leader_at_all_times() -> None:
    leader = PermuteFeatures(Constant(horizon=3), every_steps=3)
    follower = PermuteFeatures(Constant(horizon=50), every_steps=3)
    follower.follow(leader)
    for _ in range(4):
        assert episode(leader)[0] == follower.reset()[0].tolist() == follower.permutation.tolist()
    before = leader.permutation.tolist()
    episode(follower), episode(follower)  # a hundred steps of its own change nothing
    assert follower.permutation.tolist() == leader.permutation.tolist() == before


def test_a_state_of_other_features() -> None:
    env, other = PermuteFeatures(Constant(6)), PermuteFeatures(Constant(4))
    with pytest.raises(CheckpointError, match="a saved order of 4 features does not fit 6"):
        env.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"permutation": range(5)}, "permutation must have 6 entries, got 5"),
        ({"permutation": range(7)}, "permutation must have 6 entries, got 7"),
        ({"permutation": []}, "permutation must have 6 entries, got 0"),
        (
            {"permutation": [0, 1, 2, 3, 4, 4]},
            r"permutation must hold each number from 0 to 5 once, got \[0, 1, 2, 3, 4, 4\]",
        ),
        ({"permutation": [1, 2, 3, 4, 5, 6]}, "permutation must hold each number from 0 to 5 once, got .*"),
        ({"permutation": [-1, 0, 1, 2, 3, 4]}, "permutation must hold each number from 0 to 5 once, got .*"),
        ({"every_steps": 0}, "permutation period must be at least 1 env step, got 0"),
        ({"every_steps": -3}, "permutation period must be at least 1 env step, got -3"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        PermuteFeatures(Constant(), **arguments)
