"""The options of the replay buffer: what is drawn, worked by hand, and that nothing else changes."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.replay_buffers import ACTION, NEVER, WideActions, add, agent, buffer

from sparserl.agents.replay.batch import sample
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity, replay_options
from sparserl.agents.replay.forget_stale import ForgetStale
from sparserl.errors import ConfigError


def drawn(store: AdaptiveReplayBuffer, count: int = 500) -> set[float]:
    """All observations that are ever drawn."""
    return set(sample(store, count, None, 0.5).observations[:, 0].tolist())


# Multi-step returns.


@pytest.mark.parametrize("size", [8, 100], ids=["wrapped", "not full"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_three_steps_worked_by_hand(size: int, n_envs: int) -> None:
    store = buffer(size, n_envs=n_envs, n_steps=3, gamma=0.5)
    for number in range(11):
        add(store, number, ended={4: "terminal", 6: "limit"}.get(number, ""))
    batch = sample(store, 600, None, 0.5)
    columns = (batch.observations, batch.rewards, batch.next_observations, batch.dones, batch.discounts)
    found = {row[0]: row[1:] for row in zip(*(np.ravel(column).tolist() for column in columns), strict=True)}
    expected = {  # reward, next observation, done, discount
        3.0: (3 + 4 / 2, 5.0, 1.0, 0.25),  # over the terminal transition, not further
        4.0: (4.0, 5.0, 1.0, 0.5),
        5.0: (5 + 6 / 2, 7.0, 0.0, 0.25),  # a time limit ends the sum and keeps the bootstrap
        6.0: (6.0, 7.0, 0.0, 0.5),
        7.0: (7 + 8 / 2 + 9 / 4, 10.0, 0.0, 0.125),
        8.0: (8 + 9 / 2 + 10 / 4, 11.0, 0.0, 0.125),
        9.0: (9 + 10 / 2, 11.0, 0.0, 0.25),  # what follows is not there yet, or is the oldest transition
        10.0: (10.0, 11.0, 0.0, 0.5),
    }
    assert {number: found[number] for number in expected} == expected
    assert set(found) == set(expected) | (set() if size == 8 else {0.0, 1.0, 2.0})


def test_one_step_until_the_update_of_the_delay() -> None:
    store = buffer(9, n_steps=3, n_steps_delay=3, gamma=0.5)
    for number in range(6):
        add(store, number)
    discounts = []
    for _ in range(4):
        batch = sample(store, 200, None, 0.5)
        discounts.append(sorted({float(discount) for discount in np.ravel(batch.discounts)}))
    assert discounts == [[0.5], [0.5], [0.125, 0.25, 0.5], [0.125, 0.25, 0.5]]
    assert store.updates == 4


@pytest.mark.parametrize(
    "options",
    [{}, {"capacity": NEVER}, {"n_steps": 3, "n_steps_delay": 9}, {"redraw_seed": 1}],
    ids=["none", "never forgets", "before the delay", "redraws another feature"],
)
@pytest.mark.parametrize("transitions", [5, 33])
def test_it_draws_what_the_plain_buffer_draws(options: dict[str, Any], transitions: int) -> None:
    own, plain = buffer(10, 2, **options), ReplayBuffer(10, spaces.Box(-np.inf, np.inf, (2,), np.float64), ACTION)
    if "redraw_seed" in options:
        own.redraw_from(lambda: np.array([0, -1]), lambda rng, count: rng.normal(size=(count, 1)))
    for number in range(transitions):
        ended = ("", "limit", "", "terminal")[number % 4]
        add(own, number, ended, wanted=0.0)
        add(plain, number, ended)
    np.random.seed(3)
    ours = [own.sample(8) for _ in range(4)]
    after = np.random.random()
    np.random.seed(3)
    theirs = [plain.sample(8) for _ in range(4)]
    assert np.random.random() == after
    for a, b in zip(ours, theirs, strict=True):
        assert a.discounts is None
        for name in ("observations", "next_observations"):
            assert np.array_equal(getattr(a, name)[:, 0], getattr(b, name)[:, 0])
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("actions", "dones", "rewards"))


# Dynamic capacity.


def stale(**changes: Any) -> AdaptiveReplayBuffer:
    """Transitions 0 to 9, the oldest two of a policy that wanted 1, the others of one that wanted 0."""
    options = {"threshold": 0.2, "minimum": 9, "compared": 2, "fraction": 0.3}
    store = buffer(10, capacity=DynamicCapacity(**{**options, **changes}))
    for number in range(10):
        add(store, number, wanted=float(number < 2))
    return store


@pytest.mark.parametrize(
    ("changes", "distance", "kept"),
    [
        ({}, 0.5, range(3, 10)),  # half of the mean of (1 - 0)^2
        ({"compared": 4}, 0.25, range(3, 10)),
        ({"compared": 10}, 0.1, range(10)),
        ({"compared": 99}, 0.1, range(10)),
        ({"threshold": 0.5}, 0.5, range(10)),  # it must be larger
        ({"fraction": 0.19}, 0.5, range(1, 10)),  # truncated, as in the paper's code
        ({"minimum": 10}, None, range(10)),
    ],
)
def test_forgetting_worked_by_hand(changes: dict[str, Any], distance: float | None, kept: range) -> None:
    store = stale(**changes)
    assert store.forget_stale(lambda observations: np.zeros((len(observations), 2))) == distance
    assert store.size() == len(kept)
    assert drawn(store) == set(kept)


def test_the_oldest_of_a_wrapped_buffer_are_shown_to_the_policy_and_forgotten() -> None:
    store = stale()
    for number in range(10, 14):  # 4 to 13 are left, which lie from row 4 on
        add(store, number, wanted=1.0)
    shown: list[float] = []

    def actions_of(observations: np.ndarray) -> np.ndarray:
        shown.extend(observations[:, 0].tolist())
        return np.ones((len(observations), 2))

    assert store.forget_stale(actions_of) == 0.5
    assert shown == [4, 5]
    assert drawn(store) == set(range(7, 14))
    add(store, 14, wanted=1.0)  # overwrites 4, which was forgotten
    assert drawn(store) == set(range(7, 15))
    for number in range(15, 19):
        add(store, number, wanted=1.0)
    assert drawn(store) == set(range(9, 19))


def test_what_is_compared_is_counted_in_transitions() -> None:
    store = buffer(10, n_envs=2, capacity=DynamicCapacity(minimum=9, compared=3))
    shown: list[list[float]] = []

    def actions_of(observations: np.ndarray) -> np.ndarray:
        shown.append(observations[:, 0].tolist())
        return np.zeros((len(observations), 2))

    for number in range(5):
        assert store.forget_stale(actions_of) is None  # 8 transitions at the last time
        add(store, number, wanted=0.0)
    assert store.forget_stale(actions_of) == 0.0
    assert shown == [[0, 0, 1, 1]]  # all environments of two env steps


@pytest.mark.parametrize("seed", range(20))
def test_it_holds_what_a_list_of_the_kept_transitions_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, n_envs = int(rng.integers(3, 12)), int(rng.integers(1, 3))
    store = buffer(size, n_envs=n_envs, capacity=DynamicCapacity(threshold=0.0, minimum=2, fraction=0.4))
    kept: deque[int] = deque(maxlen=size)
    for number in range(60):
        add(store, number, wanted=0.0)
        kept.append(number)
        if rng.random() < 0.2 and store.forget_stale(lambda observations: np.ones((len(observations), 2))):
            for _ in range(int(0.4 * len(kept))):
                kept.popleft()
        assert store.size() == len(kept)
        assert drawn(store, 300) == set(kept)
    store.reset()
    assert store.size() == 0


def test_what_is_kept_is_drawn_uniformly() -> None:
    store = stale()
    store.forget_stale(lambda observations: np.zeros((len(observations), 2)))
    np.random.seed(0)
    counts = np.bincount(sample(store, 70_000, None, 0.5).observations[:, 0].astype(int), minlength=10)
    assert not counts[:3].any()
    assert np.abs(counts[3:] - 10_000).max() < 5 * np.sqrt(10_000 * 6 / 7)


def test_a_sum_starts_only_at_a_kept_transition() -> None:
    store = buffer(10, n_steps=2, gamma=0.5, capacity=DynamicCapacity(threshold=0.0, minimum=0, fraction=0.5))
    for number in range(13):
        add(store, number, wanted=0.0)
    store.forget_stale(lambda observations: np.ones((len(observations), 2)))
    batch = sample(store, 300, None, 0.5)
    found = dict(zip(batch.observations[:, 0].tolist(), batch.rewards[:, 0].tolist(), strict=True))
    assert found == {8: 12.5, 9: 14.0, 10: 15.5, 11: 17.0, 12: 12.0}


# The callback that runs it.


@pytest.mark.parametrize("kind", [TD3, SAC])
def test_a_run_that_forgets_nothing_learns_as_with_a_fixed_capacity(kind: type[TD3] | type[SAC]) -> None:
    fixed = agent(kind, {}).learn(60)
    capacity = DynamicCapacity(threshold=9.0, minimum=0, interval_steps=7)
    dynamic = agent(kind, replay_options(gamma=0.99, capacity=capacity)).learn(60, callback=ForgetStale())
    for a, b in zip(fixed.policy.parameters(), dynamic.policy.parameters(), strict=True):
        assert np.array_equal(a.detach(), b.detach())
    assert 0.0 <= dynamic.logger.name_to_value["replay/policy_distance"] <= 2.0


@pytest.mark.parametrize("kind", [TD3, SAC])
@pytest.mark.parametrize("normalized", [False, True])
def test_the_policy_is_compared_with_itself_without_exploration(
    kind: type[TD3] | type[SAC], normalized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    env: Any = DummyVecEnv([WideActions])
    if normalized:
        env = VecNormalize(env, training=False)
        env.obs_rms.mean[:], env.obs_rms.var[:] = 1.0, 4.0
    capacity = DynamicCapacity(threshold=9.0, minimum=0, compared=80, interval_steps=30)
    found = []
    monkeypatch.setattr(
        AdaptiveReplayBuffer,
        "forget_stale",
        lambda self, actions_of: found.append((self.pos, actions_of(self.observations[:, 0]), self.policy_actions)),
    )
    run = agent(kind, replay_options(gamma=0.99, capacity=capacity), env, learning_rate=0.0)
    run.learn(70, callback=ForgetStale())
    assert [position for position, *_ in found] == [30, 60]  # after the transition of that env step was stored
    _, now, then = found[-1]
    np.testing.assert_allclose(now[20:60], then[20:60, 0], atol=1e-6)
    store = run.replay_buffer
    seen = (store.observations[20:60, 0] - 1.0) / np.sqrt(4.0 + 1e-8) if normalized else store.observations[20:60, 0]
    with torch.no_grad():
        wanted = run.policy._predict(torch.as_tensor(seen, dtype=torch.float32), deterministic=True).numpy()
    np.testing.assert_allclose(wanted, then[20:60, 0], atol=1e-6)
    assert np.array_equal(store.policy_actions[:20], store.actions[:20])  # random actions stand for themselves
    assert np.abs(store.policy_actions[20:60] - store.actions[20:60]).mean() > 0.01
    assert np.abs(store.actions).max() <= 1.0


def test_a_run_forgets_at_its_interval() -> None:
    capacity = DynamicCapacity(threshold=0.0, minimum=30, compared=5, fraction=0.1, interval_steps=25)
    run = agent(TD3, replay_options(gamma=0.99, capacity=capacity))
    run.learn(79, callback=ForgetStale())  # before Stable-Baselines3 empties its log
    assert run.replay_buffer.forgotten == 5 + 7  # of 50 at step 50, of 70 at step 75, none of 25 at step 25
    assert run.logger.name_to_value["replay/size"] == 63


def test_without_the_callback_it_does_not_go_on_in_silence() -> None:
    with pytest.raises(ConfigError, match="dynamic capacity needs the callback ForgetStale"):
        agent(TD3, replay_options(gamma=0.99, capacity=NEVER)).learn(3)
    with pytest.raises(ConfigError, match="ForgetStale needs a replay buffer of dynamic capacity"):
        agent(TD3, {}).learn(3, callback=ForgetStale())
