"""Environments whose observations are a Dict of vectors: flattened, named, saved and restored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from support.envs import DictEnv, SpacesOnly

from sparserl.envs import WrapperConfig, capture_state, feature_names, feature_origins, make_env, restore_state, wrap
from sparserl.errors import ConfigError

PARTS = {
    "position": spaces.Box(-1, 1, (2,), np.float64),
    "mode": spaces.Discrete(3),
    "hand": spaces.Dict({"force": spaces.Box(-1, 1, (1,)), "fingers": spaces.MultiBinary(2)}),
}


@pytest.fixture
def env_id() -> Iterator[str]:
    gym.register("Parts-v0", entry_point=lambda: DictEnv())
    yield "Parts-v0"
    gym.registry.pop("Parts-v0")


def registered(space: spaces.Space[Any]) -> Any:
    gym.register("Some-v0", entry_point=lambda: SpacesOnly(space))
    try:
        return make_env("Some-v0")
    finally:
        gym.registry.pop("Some-v0")


def test_parts_are_put_side_by_side_in_the_order_of_the_space(env_id: str) -> None:
    env, bare = make_env(env_id), gym.make(env_id)
    observation, of_parts = env.reset(seed=3)[0], bare.reset(seed=3)[0]
    assert env.observation_space.shape == (3,)
    assert observation.tolist() == [*of_parts["arm"], of_parts["goal"][0]]
    assert feature_names(env) == ["arm 0", "arm 1", "goal"]
    assert feature_origins(env).tolist() == [0, 1, 2]


def test_parts_of_every_kind_have_names() -> None:
    env = registered(spaces.Dict(PARTS))
    expected = [
        "hand.fingers 0",
        "hand.fingers 1",
        "hand.force",
        "mode 0",
        "mode 1",
        "mode 2",
        "position 0",
        "position 1",
    ]
    assert sorted(feature_names(env)) == expected
    assert env.observation_space.shape == (8,)
    values = env.unwrapped.observation_space.sample()
    flat = dict(zip(feature_names(env), spaces.flatten(env.unwrapped.observation_space, values), strict=True))
    assert flat["position 1"] == values["position"][1]
    assert flat[f"mode {values['mode']}"] == 1
    assert flat["hand.fingers 1"] == values["hand"]["fingers"][1]


def test_wrappers_of_features_go_around_it(env_id: str) -> None:
    config = WrapperConfig(frame_stack=2, noise_fraction=0.2, permute=True, hidden_features=(2,))
    env = wrap(make_env(env_id), config, 0)
    assert set(feature_names(env)) == {"arm 0", "arm 1", "arm 0, 1 step ago", "arm 1, 1 step ago", "noise 0"}


def test_its_state_can_be_saved(env_id: str) -> None:
    env, other = (wrap(make_env(env_id), WrapperConfig(frame_stack=3), 0) for _ in range(2))
    env.reset(seed=1)
    env.step(np.ones(2, np.float32))
    state = capture_state(env)
    assert state is not None
    other.reset(seed=2)
    restore_state(other, state)
    for _ in range(3):
        assert env.step(np.ones(2, np.float32))[0].tolist() == other.step(np.ones(2, np.float32))[0].tolist()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"a": spaces.Box(0, 255, (8, 8, 3), np.uint8), "b": spaces.Box(0, 1, (2,))},
            r"'a' of Box\(0, 255, \(8, 8, 3\)",
        ),
        ({"a": spaces.Dict({"b": spaces.Text(3)})}, r"'a.b' of Text"),
    ],
)
def test_other_parts_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"has Dict observations with {message}.*; vectors are needed") as refusal:
        registered(spaces.Dict(parts))
    assert "\n" not in str(refusal.value)
