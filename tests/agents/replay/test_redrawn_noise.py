"""Fresh noise in replayed features; bad input of replay options, and the way to the constructor."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.envs import FunctionEnv
from support.replay_buffers import NEVER, add, agent, buffer

from sparserl.agents.replay.batch import sample
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity, check_n_steps, replay_options
from sparserl.errors import CheckpointError, ConfigError
from sparserl.seeding import stream


class Noise:
    """Two noise features: the k-th is drawn around 100 (k + 1), and stands where `origins` says."""

    def __init__(self, *origins: int) -> None:
        self.origins = np.array(origins)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.normal((100.0, 200.0), size=(count, 2))


def redrawing(noise: Noise, size: int = 20, **options: Any) -> AdaptiveReplayBuffer:
    store = buffer(size, noise.origins.size, redraw_seed=7, **options)
    store.redraw_from(lambda: noise.origins, noise.draw)
    return store


# Fresh noise.


@pytest.mark.parametrize("n_steps", [1, 2])
def test_noise_features_are_drawn_anew_each_time(n_steps: int) -> None:
    noise = Noise(0, -1, 1, -2)
    store = redrawing(noise, n_steps=n_steps)
    for number in range(8):
        add(store, number)
    stored = store.observations.copy(), store.next_observations.copy()
    rng = stream(7, "agents", "replay", "redrawn_noise")
    for _ in range(2):
        batch = sample(store, 6, None, 0.5)
        for array in (batch.observations, batch.next_observations):  # in this order, from its own generator
            np.testing.assert_array_equal(array[:, [1, 3]], noise.draw(rng, 6).astype(np.float32))
            np.testing.assert_array_equal(array[:, 0], array[:, 2])
        assert set(batch.observations[:, 0]) <= set(range(8))
        assert ((batch.next_observations - batch.observations)[:, 0] <= n_steps).all()
    assert np.array_equal(store.observations, stored[0])
    assert np.array_equal(store.next_observations, stored[1])


def test_noise_goes_where_it_stood_when_the_transition_was_observed() -> None:
    noise = Noise(0, 1, -1, -2)
    store = redrawing(noise)
    add(store, 0)
    add(store, 1)
    noise.origins = np.array([-2, 0, -1, 1])  # the reset after transition 2 has already happened when it is stored
    add(store, 2, ended="limit")
    add(store, 3)
    add(store, 4, ended="terminal")
    noise.origins = np.array([1, 0, -2, -1])  # a reset that no transition announced
    add(store, 5)
    noise.origins = np.array([-1, -2, 0, 1])
    add(store, 6, ended="limit")
    add(store, 7, ended="terminal")  # an episode of one step
    assert store.noise_positions.tolist() == [[2, 3], [2, 0], [3, 2], [0, 1]]
    real_first_second = ("rrab", "rrab", "rrab", "brar", "brar", "rrba", "rrba", "abrr")
    expected = dict(enumerate(real_first_second))
    batch = sample(store, 300, None, 0.5)
    for array in (batch.observations, batch.next_observations):
        for number, row in zip(batch.rewards[:, 0].astype(int), array, strict=True):
            kinds = "".join("r" if value < 50 else "a" if value < 150 else "b" for value in row)
            assert kinds == expected[number]


def test_a_copy_forgets_the_source_of_noise_and_says_so() -> None:
    noise = Noise(0, -1, -2)
    store = redrawing(noise)
    add(store, 0)
    copied = pickle.loads(pickle.dumps(store))
    for call in (lambda: copied.sample(2), lambda: add(copied, 1)):
        with pytest.raises(ConfigError, match="must be told its source by `redraw_from`"):
            call()
    copied.redraw_from(lambda: noise.origins, noise.draw)
    np.random.seed(0)
    expected = store.sample(5)
    np.random.seed(0)
    assert all(np.array_equal(a, b) for a, b in zip(expected[:5], copied.sample(5)[:5], strict=True))


def test_a_run_redraws_with_any_agent() -> None:
    run = agent(SAC, replay_options(gamma=0.99, n_steps=2, redraw_seed=0))
    run.replay_buffer.redraw_from(lambda: np.array([0, -1, 1]), lambda rng, count: rng.normal(size=(count, 1)))
    run.learn(40)
    assert run.replay_buffer.updates == run._n_updates == 20
    assert run.replay_buffer.sample(5).observations.shape == (5, 3)


# Bad input, and the way to the constructor.


@pytest.mark.parametrize(
    ("origins", "message"),
    [
        ([0, 1, 2], "there are no noise features to redraw"),
        ([0, -1], r"features of shape \(2,\) do not fit observations of shape \(3,\)"),
    ],
)
def test_a_source_of_noise_must_fit(origins: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        buffer(4, 3, redraw_seed=0).redraw_from(lambda: np.array(origins), Noise().draw)


def test_noise_is_redrawn_where_that_is_possible() -> None:
    with pytest.raises(ConfigError, match="noise features are redrawn for one environment, not 2"):
        buffer(4, 3, n_envs=2, redraw_seed=0)
    with pytest.raises(ConfigError, match="redraws no noise; give it a redraw_seed"):
        buffer(4, 3).redraw_from(lambda: np.array([0, 0, -1]), Noise().draw)
    store = redrawing(Noise(0, -1, -2))
    add(store, 0)
    with pytest.raises(ConfigError, match="cannot be redrawn under VecNormalize"):
        store.sample(2, env=VecNormalize(DummyVecEnv([FunctionEnv])))


def test_a_state_with_another_option_is_refused() -> None:
    with pytest.raises(CheckpointError, match="differs in whether it redraws noise"):
        redrawing(Noise(0, -1, -2)).load_state_dict(buffer(4).state_dict())


@pytest.mark.parametrize(
    ("n_steps", "delay", "message"),
    [
        (0, 0, "agent.n_steps must be at least 1, got 0"),
        (3, -1, "agent.n_steps_delay must not be negative, got -1"),
        (1, 5, "agent.n_steps_delay 5 needs agent.n_steps above 1"),
    ],
)
def test_steps_out_of_range_are_named(n_steps: int, delay: int, message: str) -> None:
    for call in (check_n_steps, lambda n, d: buffer(4, n_steps=n, n_steps_delay=d)):
        with pytest.raises(ConfigError, match=f"^{message}$"):
            call(n_steps, delay)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("interval_steps", 0),
        ("compared", 0),
        ("minimum", -1),
        ("threshold", -0.5),
        ("threshold", float("nan")),
        ("fraction", 0.0),
        ("fraction", 1.0),
    ],
)
def test_a_capacity_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^agent.forget_{name} must .*, got {value}$"):
        DynamicCapacity(**{name: value})


def test_defaults_are_those_of_the_paper() -> None:
    found = {field.name: field.default for field in fields(DynamicCapacity)}
    assert found == {
        "interval_steps": 10_000,
        "threshold": 0.2,
        "minimum": 100_000,
        "compared": 8 * 256,
        "fraction": 0.1,
    }


def test_no_option_is_the_plain_buffer() -> None:
    assert replay_options(gamma=0.9) == {}
    for option in ({"n_steps": 2}, {"capacity": NEVER}, {"redraw_seed": 0}):
        run = agent(TD3, replay_options(gamma=0.9, **option))
        assert type(run.replay_buffer) is AdaptiveReplayBuffer
        assert run.replay_buffer.gamma == 0.9
    with pytest.raises(ConfigError, match=r"agent\.n_steps"):
        replay_options(gamma=0.9, n_steps=-1)
