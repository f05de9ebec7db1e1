"""Runs in modified environments, modifications as data, and bad input."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from safetensors.numpy import load, save
from stable_baselines3.common.monitor import Monitor
from support.modified_models import ALL, HOPPER, changed, events, made, model_of, tape

from sparserl import config
from sparserl.envs import EnvState, Modification, PartFactors, capture_state, make_env, modify, restore_state
from sparserl.envs.wrapper_stack import layers
from sparserl.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.filterwarnings("error")


# -- Runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modification",
    [
        Modification(gravity=0.5),
        Modification(friction=0.2),
        Modification(parts=(PartFactors("thigh", mass=2.0),)),
        Modification(parts=(PartFactors("thigh", length=0.8),)),
        Modification(disabled_actuators=(0,)),
        Modification(invert_actions=True),
        Modification(broken_sensors=0.5),
        ALL,
    ],
)
def test_trajectories_differ_from_the_plain_ones_and_repeat(modification: Modification) -> None:
    first = tape(made(HOPPER, modification), seed=3)
    again = made(HOPPER, modification)
    assert tape(again, seed=3) == first
    assert tape(again, seed=3) == first, "a reset kept what the first run changed"
    assert first != tape(made(HOPPER), seed=3)
    assert first != tape(made(HOPPER, modification), seed=4)


def test_a_captured_run_goes_on_bit_for_bit() -> None:
    env = Monitor(made(HOPPER, ALL))
    tape(env, seed=5, steps=64)
    state = capture_state(env)
    assert state is not None
    state = EnvState(load(save(state.tensors)), json.loads(json.dumps(state.scalars)))
    expected = events(env, 150)
    assert any(len(event) == 2 for event in expected), "the test must go through a reset"
    fresh, used = Monitor(made(HOPPER, ALL)), Monitor(made(HOPPER, ALL))
    tape(used, seed=6, steps=33)
    for other in (fresh, used):
        restore_state(other, state)
        assert events(other, 150) == expected


def test_a_state_of_other_dynamics_is_refused() -> None:
    state = capture_state(made(HOPPER, Modification(gravity=0.5)))
    assert state is not None
    with pytest.raises(CheckpointError, match=r"^environment state belongs to dynamics of gravity 0\.5, not 0\.75$"):
        restore_state(made(HOPPER, Modification(gravity=0.75)), state)
    with pytest.raises(CheckpointError, match=r"^environment state belongs to \["):
        restore_state(made(HOPPER), state)


def test_its_spec_rebuilds_it() -> None:
    env = made(HOPPER, ALL)
    again = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert [type(layer) for layer in layers(again)] == [type(layer) for layer in layers(env)]
    assert tape(again) == tape(env)


# -- Data and bad input ----------------------------------------------------------------------------


def test_a_modification_is_plain_data() -> None:
    plain = json.loads(json.dumps(config.plain(ALL)))
    assert config.build(Modification, plain) == ALL
    assert config.build(Modification, {"gravity": "5e-1"}) == Modification(gravity=0.5)
    assert hash(ALL) != hash(Modification())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gravity": -0.5}, "modification.gravity must not be negative, got -0.5"),
        ({"gravity": math.nan}, "modification.gravity must not be negative, got nan"),
        ({"friction": 0.0}, "modification.friction must be positive, got 0.0"),
        ({"broken_sensors": 1.0}, "modification.broken-sensors must be in [0, 1), got 1.0"),
        ({"broken_sensors_seed": -1}, "modification.broken-sensors-seed must not be negative, got -1"),
        (
            {"parts": [{"part": "torso", "mass": 0.0}]},
            "modification.parts: torso.mass must be positive, got 0.0",
        ),
        (
            {"parts": [{"part": "foot", "radius": math.inf}]},
            "modification.parts: foot.radius must be finite, got inf",
        ),
        ({"parts": [{"mass": 2.0}]}, "modification.parts: each needs `part`, the name of a body or geom"),
        ({"parts": [{"part": "foot"}, {"part": "foot"}]}, "modification.parts: 'foot' is named twice"),
        ({"gravty": 0.5}, "unknown config key 'gravty'; did you mean 'gravity'?"),
        ({"parts": [{"part": "foot", "mas": 2}]}, "unknown config key 'parts.mas'; did you mean 'parts.mass'?"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(Modification, values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("env_id", "modification", "message"),
    [
        (HOPPER, Modification(parts=(PartFactors("feet"),)), "unknown body part 'feet'; did you mean 'foot'?"),
        (HOPPER, Modification(parts=(PartFactors("floor"),)), "unknown body part 'floor'; did you mean 'foot'?"),
        (
            "Ant-v5",
            Modification(parts=(PartFactors("torso", length=2.0),)),
            "body part 'torso' has a sphere, which has no length to change",
        ),
        (
            HOPPER,
            Modification(disabled_actuators=(3,)),
            "there is no actuator 3; the environment has 3 (0 to 2)",
        ),
    ],
)
def test_what_an_environment_does_not_have(env_id: str, modification: Modification, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(env_id, modification)
    assert str(caught.value) == message


def test_a_part_whose_inertia_is_not_that_of_its_shape() -> None:
    env = make_env(HOPPER)
    assert isinstance(env.unwrapped, MujocoEnv)
    env.unwrapped.model.body_inertia[1] *= 1.1
    with pytest.raises(
        ConfigError, match=r"^body part 'torso' is not of uniform density; only its mass can be changed$"
    ):
        modify(env, Modification(parts=(PartFactors("torso", radius=2.0),)))
    modify(env, Modification(parts=(PartFactors("torso", mass=2.0),)))


def test_a_refused_part_leaves_the_model_as_it_was() -> None:
    env = make_env(HOPPER)
    with pytest.raises(ConfigError, match="unknown body part"):
        modify(env, Modification(gravity=0.5, parts=(PartFactors("foot", mass=2.0), PartFactors("hand"))))
    assert isinstance(env.unwrapped, MujocoEnv)
    assert changed(env.unwrapped.model, model_of(HOPPER)) == set()


def test_gravity_alone_of_classic_control_is_modified() -> None:
    env = modify(gym.make("CartPole-v1"), Modification(gravity=2.0))
    assert env.unwrapped.gravity == 2 * gym.make("CartPole-v1").unwrapped.gravity  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="other dynamics need a MuJoCo environment"):
        modify(gym.make("CartPole-v1"), Modification(gravity=2.0, friction=0.5))


def test_only_mujoco_has_dynamics_to_modify() -> None:
    with pytest.raises(ConfigError, match=r"^other dynamics need a MuJoCo environment of Gymnasium, not <Pendulum"):
        made("Pendulum-v1", Modification(gravity=0.5))
    broken = made("Pendulum-v1", Modification(broken_sensors=0.5))
    assert (broken.reset(seed=0)[0] == 0.0).sum() == 1
