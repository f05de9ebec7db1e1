"""States of wrappers, and states that do not fit."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from stable_baselines3.common.monitor import Monitor
from support.simulation_states import captured, events, made, started

from sparserl.envs import EnvState, capture_state, make_env, restore_state
from sparserl.envs.wrappers.defects import BreakSensors
from sparserl.errors import CheckpointError


class NoisyObservation(gym.ObservationWrapper[Any, Any, Any]):
    """A stateful wrapper that no table knows."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.noise = np.random.default_rng(0)
        self.mean = np.zeros(3)

    def observation(self, observation: Any) -> Any:
        self.mean += 1.0
        return np.append(observation, self.noise.normal(self.mean))


class SavedNoisyObservation(NoisyObservation):
    """The same one, able to save itself."""

    def state_dict(self) -> dict[str, Any]:
        return {"noise": self.noise.bit_generator.state, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.noise.bit_generator.state = state["noise"]
        self.mean = state["mean"]


class Counter(gym.Env[Any, Any]):
    """A base environment without MuJoCo that saves itself."""

    action_space = observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class EditedHopper(HopperEnv):
    """A user's subclass, which may hold anything."""


class BoundMethod(Counter):
    def state_dict(self) -> dict[str, Any]:
        return {"count": print}


class MyMonitor(Monitor[Any, Any]):
    """A subclass of a known wrapper, which may hold more."""


def edited(state: EnvState, **changes: Any) -> EnvState:
    """The state with entries of its base environment or its head replaced, added, or (None) dropped."""
    prefix = next(key for key in state.tensors if key.endswith("/integration")).removesuffix("integration")
    entries: dict[str, Any] = {**state.tensors, **state.scalars}
    for name, value in changes.items():
        key = name if name in state.scalars else prefix + name
        entries.pop(key, None)
        if value is not None:
            entries[key] = value
    tensors = {key: value for key, value in entries.items() if isinstance(value, np.ndarray)}
    return EnvState(tensors, {key: value for key, value in entries.items() if key not in tensors})


# -- Wrappers --------------------------------------------------------------------------------------


def test_wrapper_that_saves_itself() -> None:
    def wrapped() -> gym.Env[Any, Any]:
        return SavedNoisyObservation(gym.wrappers.RescaleAction(made("Hopper-v5"), np.float32(-0.5), np.float32(0.5)))

    source = wrapped()
    source.reset(seed=0)
    source.action_space.seed(3)  # RescaleAction has an action space of its own
    events(source, 30)
    state = captured(source)
    expected = events(source, 300)
    for _ in range(2):  # the wrapper adds to `mean` in place: the second time shows that it got a copy
        restored = wrapped()
        restore_state(restored, state)
        assert events(restored, 300) == expected


def test_base_environment_that_saves_itself() -> None:
    source, restored = Counter(), Counter()
    source.count = 3
    restore_state(restored, captured(source))
    assert restored.count == 3


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (lambda: gym.make("Pendulum-v1"), "PendulumEnv is not a MuJoCo environment of Gymnasium"),
        (lambda: NoisyObservation(made("Hopper-v5")), "NoisyObservation is not in STATEFUL_WRAPPERS"),
        (lambda: gym.wrappers.NormalizeObservation(made("Hopper-v5")), "NormalizeObservation is not in"),
        (lambda: MyMonitor(make_env("Hopper-v5")), "MyMonitor is not in STATEFUL_WRAPPERS"),
        (EditedHopper, "EditedHopper is not a MuJoCo environment of Gymnasium"),
        (BoundMethod, "own.count holds a builtin_function_or_method"),
    ],
)
def test_what_cannot_be_captured_gives_none_and_a_reason(env: Any, reason: str, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        assert capture_state(env()) is None
    assert reason in caplog.text


# -- States that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "environment state of format 2, not 1"),
        ({"layers": ["Other"]}, "environment state belongs to "),
        ({"integration": np.zeros(3)}, "hopper_v5.HopperEnv here: integration"),
        ({"derived.xpos": None}, "hopper_v5.HopperEnv here: derived.xpos"),
        ({"derived.new": np.zeros(3)}, "hopper_v5.HopperEnv here: derived.new"),
        ({"derived.qpos": np.zeros(6, np.float32)}, "hopper_v5.HopperEnv here: derived.qpos"),
        ({"np_random": {"bit_generator": "seed"}}, "has a generator 'seed'"),
        ({"np_random": None}, "hopper_v5.HopperEnv here: np_random"),
    ],
)
def test_state_that_does_not_fit_changes_nothing(changes: dict[str, Any], message: str) -> None:
    state = captured(started("Hopper-v5"))
    target, twin = started("Hopper-v5", seed=8), started("Hopper-v5", seed=8)
    with pytest.raises(CheckpointError) as caught:
        restore_state(target, edited(state, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert events(target, 100) == events(twin, 100)


@pytest.mark.parametrize("target", [lambda: made("Walker2d-v5"), lambda: make_env("Hopper-v5")])
def test_state_of_another_environment(target: Any) -> None:
    with pytest.raises(CheckpointError, match="environment state belongs to"):
        restore_state(target(), captured(started("Hopper-v5")))


@pytest.mark.parametrize("module", ["sparserl.envs.defects", "sparserl.envs"])
def test_a_state_outlives_a_move_of_our_files(module: str) -> None:
    def broken() -> Monitor[Any, Any]:
        return Monitor(BreakSensors(make_env("Hopper-v5"), [0]))

    env, twin = broken(), broken()
    env.reset(seed=3)
    env.action_space.seed(4)
    state = captured(env)
    name = "sparserl.envs.BreakSensors"
    stack = [str(one).replace(name, f"{module}.BreakSensors") for one in state.scalars["layers"]]
    assert f"{module}.BreakSensors" in stack
    restore_state(twin, edited(state, layers=stack))
    assert events(twin, 100) == events(env, 100)
