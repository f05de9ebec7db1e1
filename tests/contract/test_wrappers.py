"""What every wrapper of the table does, whatever it changes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from safetensors.numpy import load, save
from stable_baselines3.common.monitor import Monitor
from support.envs import SpacesOnly
from support.trees import exactly

from sparserl.envs import WRAPPERS, EnvState, FeatureHistograms, ObservationStatistics, capture_state, make_env
from sparserl.envs import restore_state as restore
from sparserl.errors import ConfigError

ENV = "Hopper-v5"  # 11 features, 3 actuators; under random actions an episode ends after some 20 steps
FEATURES = np.arange(11.0)
HISTOGRAMS = FeatureHistograms(np.array([[0.0, 1.0, 3.0], [-5.0, 0.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]]))
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "inverted_actions": [{}, {"indices": [1]}],
    "hidden_features": [{"features": [5]}, {"features": [7, 0, 4]}],
    "sensor_dropout": [{"probability": 0.3}, {"probability": 1.0, "sensors": [2, 7]}],
    "normalized_observations": [
        {},
        {"statistics": ObservationStatistics(FEATURES, FEATURES + 1.0, 3.0), "update": False},
    ],
    "stacked_frames": [{"frames": 2}, {"frames": 5}],
    "noise_features": [{"fraction": 0.0}, {"fraction": 0.8, "std": 2.0}, {"fraction": 0.5, "histograms": HISTOGRAMS}],
    "normalized_rewards": [{}, {"discount": 0.5}],
    "permuted_features": [{"seed": 4}, {"every_steps": 25}, {"permutation": list(range(10, -1, -1))}],
}
CASES = [
    pytest.param(name, arguments, id=f"{name}-{number}")
    for name in WRAPPERS
    for number, arguments in enumerate(ARGUMENTS.get(name, []))
]
every_case = pytest.mark.parametrize(("name", "arguments"), CASES)


def wrapped(name: str, arguments: dict[str, Any], env: gym.Env[Any, Any] | None = None) -> gym.Env[Any, Any]:
    return WRAPPERS[name].wrapper(env or make_env(ENV), **arguments)


def events(env: gym.Env[Any, Any], steps: int) -> Iterator[Any]:
    """Drives `env` with its own random actions and says everything it said; resets take no seed."""
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        yield exactly(observation), exactly(reward), terminated, truncated
        if terminated or truncated:
            yield exactly(env.reset()[0])


def tape(env: gym.Env[Any, Any], seed: int = 0, steps: int = 80) -> list[Any]:
    first = env.reset(seed=seed)[0]
    env.action_space.seed(seed + 1)
    said = [exactly(first), *events(env, steps)]
    assert len(said) > steps + 1, "the test must go through resets"
    return said


class Spy(gym.Wrapper[Any, Any, Any, Any]):
    """Notes what reaches the environment and what it answers."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.notes: list[Any] = []

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**arguments)
        self.notes.append((arguments.get("seed"), exactly(observation)))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        answer = super().step(action)
        self.notes.append((exactly(action), exactly(answer[0]), *answer[1:4]))
        return answer


def test_every_wrapper_is_tested_here() -> None:
    assert set(ARGUMENTS) == set(WRAPPERS)


@every_case
def test_observations_are_as_the_space_declares(name: str, arguments: dict[str, Any]) -> None:
    env = gym.wrappers.PassiveEnvChecker(wrapped(name, arguments))
    observation, _ = env.reset(seed=0)
    space = env.observation_space
    for _ in range(60):
        assert observation.dtype == space.dtype
        assert space.contains(observation)
        previous = observation
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert not np.shares_memory(observation, previous)
        if terminated or truncated:
            observation, _ = env.reset()


@every_case
def test_single_precision_stays_single_precision(name: str, arguments: dict[str, Any]) -> None:
    spaces = [gym.spaces.Box(-1.0, 1.0, (count,), np.float32) for count in (len(FEATURES), 3)]
    env = wrapped(name, arguments, SpacesOnly(*spaces))
    for observation in (env.reset(seed=0)[0], env.step(env.action_space.sample())[0]):
        assert observation.dtype == env.observation_space.dtype == np.float32
        assert env.observation_space.contains(observation)


@every_case
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is:UserWarning")
def test_the_checker_of_gymnasium_is_content(name: str, arguments: dict[str, Any]) -> None:
    if name == "normalized_rewards" or (name == "normalized_observations" and not arguments):
        pytest.skip("statistics that run along outlive a reset with a seed, which the checker does not expect")
    check_env(wrapped(name, arguments), skip_render_check=True)


@every_case
def test_the_same_seed_gives_the_same_run(name: str, arguments: dict[str, Any]) -> None:
    assert tape(wrapped(name, arguments), seed=3) == tape(wrapped(name, arguments), seed=3)


@every_case
def test_the_environment_goes_its_own_way(name: str, arguments: dict[str, Any]) -> None:
    """What the wrapper draws is not drawn from the environment, which answers actions as it does without a wrapper."""
    spy = Spy(make_env(ENV))
    tape(wrapped(name, arguments, spy))
    bare = make_env(ENV)
    for note in spy.notes:
        if len(note) == 2:
            assert (note[0], exactly(bare.reset(seed=note[0])[0])) == note
        else:
            action = np.frombuffer(note[0][1], note[0][0])
            answer = bare.step(action)
            assert (exactly(action), exactly(answer[0]), *answer[1:4]) == note
    assert bare.np_random.bit_generator.state == spy.np_random.bit_generator.state


@every_case
def test_a_captured_run_goes_on_bit_for_bit(name: str, arguments: dict[str, Any]) -> None:
    env = Monitor(wrapped(name, arguments))
    tape(env, seed=5, steps=64)
    state = capture_state(env)
    assert state is not None
    state = EnvState(load(save(state.tensors)), json.loads(json.dumps(state.scalars)))
    expected = list(events(env, 150))

    fresh, used = Monitor(wrapped(name, arguments)), Monitor(wrapped(name, arguments))
    tape(used, seed=6, steps=33)
    for other in (fresh, used):
        restore(other, state)
        assert list(events(other, 150)) == expected
        assert other.get_episode_rewards() == env.get_episode_rewards()


@every_case
def test_its_spec_rebuilds_it(name: str, arguments: dict[str, Any]) -> None:
    env = wrapped(name, arguments)
    spec = pickle.loads(pickle.dumps(env.spec))
    again = gym.make(spec)
    assert type(again) is type(env)
    assert again.observation_space == env.observation_space
    assert tape(again) == tape(env)


@every_case
def test_it_can_be_applied_twice_and_under_a_time_limit(name: str, arguments: dict[str, Any]) -> None:
    once = wrapped(name, arguments)
    count = once.observation_space.shape[0]  # type: ignore[index]
    if "permutation" in arguments or "statistics" in arguments:
        assert count == len(FEATURES)
    twice = gym.wrappers.TimeLimit(wrapped(name, arguments, once), 4)
    assert twice.observation_space.contains(twice.reset(seed=0)[0])
    truncations = [twice.step(twice.action_space.sample())[3] for _ in range(4)]
    assert truncations == [False, False, False, True]


@every_case
def test_observations_must_be_vectors(name: str, arguments: dict[str, Any]) -> None:
    if name == "normalized_rewards":
        pytest.skip("rewards are numbers whatever is observed")
    images = gym.spaces.Box(0.0, 1.0, (4, 4))
    with pytest.raises(ConfigError, match=r"vectors?.* \(Box of one dimension\), not Box\(.*\)$"):
        wrapped(name, arguments, SpacesOnly(images, images))
