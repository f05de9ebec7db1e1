"""`make_env` and `list_env_ids`: what is accepted, and the one line that every refusal gives."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sparserl.envs import list_env_ids, make_env
from sparserl.envs import make as make_module
from sparserl.errors import ConfigError

MUJOCO_V5 = [
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
]
UNIT = gym.spaces.Box(-1.0, 1.0, (3,))


class SpacesOnly(gym.Env[Any, Any]):
    """An environment of which only the spaces matter; counts how often it was closed."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium declares it like this
    closed = 0

    def __init__(self, action: gym.Space[Any], obs: gym.Space[Any], render_mode: str | None = None) -> None:
        self.action_space, self.observation_space, self.render_mode = action, obs, render_mode

    def close(self) -> None:
        SpacesOnly.closed += 1


@pytest.fixture
def registered() -> Iterator[Callable[[gym.Space[Any], gym.Space[Any]], str]]:
    """Registers an environment with the given spaces and returns its id."""

    def register(action: gym.Space[Any], obs: gym.Space[Any]) -> str:
        def creator(**kwargs: Any) -> SpacesOnly:
            return SpacesOnly(action, obs, **kwargs)

        gym.register("SpacesOnly-v0", entry_point=creator)
        return "SpacesOnly-v0"

    yield register
    gym.registry.pop("SpacesOnly-v0", None)


def refusal(env_id: str, **kwargs: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make_env(env_id, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("env_id", [*MUJOCO_V5, "Pendulum-v1", "MountainCarContinuous-v0"])
def test_makes_what_gymnasium_makes(env_id: str) -> None:
    env, same = make_env(env_id), gym.make(env_id)
    assert env.spec == same.spec
    obs, _ = env.reset(seed=3)
    assert obs.tobytes() == same.reset(seed=3)[0].tobytes()


def test_module_prefix_is_imported() -> None:
    env = make_env("gymnasium.envs.mujoco:Hopper-v5")
    assert env.spec == gym.make("Hopper-v5").spec


@pytest.mark.parametrize(
    ("env_id", "closest"),
    [
        ("HalfCheeta-v5", "HalfCheetah-v5"),
        ("halfcheetah-v5", "HalfCheetah-v5"),
        ("HalfCheetah-v9", "HalfCheetah-v5"),
        ("HalfCheetah-v1", "HalfCheetah-v5"),
        ("HalfCheetah", "HalfCheetah-v5"),
        ("Walker-v5", "Walker2d-v5"),
        ("Humanoid-Standup-v5", "HumanoidStandup-v5"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("bad id!", None),
        ("nowhere/Thing-v0", None),
        ("", None),
    ],
)
def test_unknown_id_names_it_and_the_closest(env_id: str, closest: str | None) -> None:
    found = re.fullmatch(r"unknown environment '(.*)'; the closest is '(.*)'", refusal(env_id))
    assert found is not None
    assert found[1] == env_id
    assert found[2] in gym.registry
    assert closest in (None, found[2])


@pytest.mark.parametrize("env_id", ["HalfCheetah-v2", "HalfCheetah-v3", "Reacher-v2", "Humanoid-v3", "Pusher-v4"])
@pytest.mark.filterwarnings("error")
def test_outdated_mujoco_versions(env_id: str) -> None:
    current = env_id[:-1] + "5"
    assert refusal(env_id) == f"environment {env_id!r} needs an older MuJoCo; the closest is {current!r}"


def test_module_that_is_not_there() -> None:
    assert refusal("no_such_module:Hopper-v5") == (
        "environment 'no_such_module:Hopper-v5': cannot import module 'no_such_module' "
        "(No module named 'no_such_module')"
    )


def test_missing_dependency_is_one_line() -> None:
    def needs_something(**kwargs: Any) -> gym.Env[Any, Any]:
        raise gym.error.DependencyNotInstalled("box2d is missing,\n  run pip install")

    gym.register("NeedsSomething-v0", entry_point=needs_something)
    try:
        message = refusal("NeedsSomething-v0")
    finally:
        del gym.registry["NeedsSomething-v0"]
    assert message == "environment 'NeedsSomething-v0' cannot be made: box2d is missing, run pip install"


def test_discrete_actions() -> None:
    assert refusal("CartPole-v1") == (
        "environment 'CartPole-v1' has a Discrete action space; a continuous one (Box) is needed"
    )


@pytest.mark.parametrize(
    ("action", "obs", "message"),
    [
        (
            gym.spaces.Box(-1.0, np.inf, (3,)),
            UNIT,
            "has unbounded actions (low -1.0, high inf); finite bounds are needed",
        ),
        (
            gym.spaces.Box(-np.inf, 1.0, (3,)),
            UNIT,
            "has unbounded actions (low -inf, high 1.0); finite bounds are needed",
        ),
        (
            UNIT,
            gym.spaces.Dict({"a": UNIT, "b": gym.spaces.Box(0, 1, (2, 2))}),
            "has Dict observations with 'b' of Box(0.0, 1.0, (2, 2), float32); vectors are needed in all of its parts",
        ),
        (
            UNIT,
            gym.spaces.Discrete(4),
            "has a Discrete observation space; a vector is needed (Box of one dimension)",
        ),
        (
            UNIT,
            gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "has observations of shape (8, 8, 3); a vector is needed (Box of one dimension)",
        ),
    ],
)
def test_spaces_are_refused_and_the_environment_closed(
    registered: Callable[..., str], action: gym.Space[Any], obs: gym.Space[Any], message: str
) -> None:
    before = SpacesOnly.closed
    assert refusal(registered(action, obs)) == f"environment 'SpacesOnly-v0' {message}"
    assert SpacesOnly.closed == before + 1


@pytest.mark.filterwarnings("error")
def test_render_mode_that_is_not_there() -> None:
    assert refusal("HalfCheetah-v5", render_mode="rgb_aray") == (
        "environment 'HalfCheetah-v5': unknown render mode 'rgb_aray'; did you mean 'rgb_array'?"
    )


def test_render_mode_is_passed_on() -> None:
    assert make_env("HalfCheetah-v5", render_mode="rgb_array").render_mode == "rgb_array"


def test_episode_steps_are_passed_on() -> None:
    env = make_env("HalfCheetah-v5", episode_steps=3)
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[2:4] for _ in range(3)] == [(False, False)] * 2 + [(False, True)]
    assert refusal("HalfCheetah-v5", episode_steps=0) == "an episode needs at least 1 step, got 0"


def test_list_starts_with_mujoco_v5() -> None:
    ids = list_env_ids()
    assert ids[: len(MUJOCO_V5)] == MUJOCO_V5
    assert len(ids) == len(set(ids))
    assert {"Pendulum-v1", "MountainCarContinuous-v0", "Ant-v4", "CartPole-v1", "Acrobot-v1"} <= set(ids)
    assert not {"Blackjack-v1", "HalfCheetah-v3", "Reacher-v2", "CarRacing-v3", "Pusher-v4"} & set(ids)


@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_everything_listed_from_gymnasium_can_be_made() -> None:
    for env_id in list_env_ids():
        spec = gym.registry[env_id]
        if isinstance(spec.entry_point, str) and spec.entry_point.startswith("gymnasium."):
            make_env(env_id, actions=(gym.spaces.Box, gym.spaces.Discrete)).close()


def test_a_package_that_is_missing_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(make_module, "_has_box2d", lambda: False)
    with pytest.raises(ConfigError, match=r"^environment 'LunarLander-v3' needs Box2D; .*pip install .* brings it$"):
        make_env("LunarLander-v3", actions=(gym.spaces.Discrete,))
    assert "LunarLander-v3" not in list_env_ids()


def test_list_includes_other_packages(registered: Callable[..., str]) -> None:
    assert registered(UNIT, UNIT) == list_env_ids()[-1]
