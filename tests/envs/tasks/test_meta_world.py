"""`Meta-World/<task>`: what Meta-World does, with episodes that repeat, one space, and an exact state."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from safetensors.numpy import load, save
from support.trees import exactly

from sparserl.envs import EnvState, build_rl_sequence, capture_state, list_env_ids, make, make_env, restore_state
from sparserl.envs.tasks.meta_world import MetaWorldTask, register_tasks
from sparserl.errors import CheckpointError, ConfigError
from sparserl.extras import installer

theirs = pytest.importorskip("metaworld.sawyer_xyz_env")
CLASSES = pytest.importorskip("metaworld.env_dict").ALL_V3_ENVIRONMENTS
POLICIES = pytest.importorskip("metaworld.policies").ENV_POLICY_MAP

# One that measures furniture where the last reset left it, one with an attribute that is a list before the first reset.
QUICK = ["window-close-v3", "sweep-into-v3"]
CW10 = [task.env.removeprefix("Meta-World/") for task in build_rl_sequence("cw10", seed=0, steps=1).tasks]


def each(tasks: Iterable[str]) -> pytest.MarkDecorator:
    marked = [pytest.param(task, marks=() if task in QUICK else pytest.mark.slow) for task in tasks]
    return pytest.mark.parametrize("task", marked)


# The policies warn where an action is outside of the bounds, in which the environment clips it.
pytestmark = pytest.mark.filterwarnings("ignore:Constant.s. may be too high")


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Environments get copies of a model: to compile one takes longer than the rest of a test."""
    compiled = cache(mujoco.MjModel.from_xml_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mujoco.MjModel, "from_xml_path", lambda path: copy.copy(compiled(path)))
        yield


def made(task: str) -> gym.Env[Any, Any]:
    return make_env(f"Meta-World/{task}")


def base(env: gym.Env[Any, Any]) -> Any:
    assert isinstance(env.unwrapped, MetaWorldTask)
    assert isinstance(env.unwrapped, theirs.SawyerXYZEnv)
    return env.unwrapped


def random_steps(env: gym.Env[Any, Any], count: int, reset_every: int | None = None) -> list[Any]:
    """What `env` says to its own random actions, with unseeded resets in between."""
    tape: list[Any] = []
    for step in range(1, count + 1):
        tape.append([exactly(answer) for answer in env.step(env.action_space.sample())])
        if reset_every is not None and step % reset_every == 0:
            tape.append(exactly(env.reset()[0]))
    return tape


def episodes(env: gym.Env[Any, Any], seed: int) -> list[Any]:
    """Three episodes of five steps, of which the first is seeded."""
    first = exactly(env.reset(seed=seed)[0])
    env.action_space.seed(seed)
    return [first, *random_steps(env, 15, reset_every=5)]


# -- What an agent sees ----------------------------------------------------------------------------


def test_observations_are_two_frames_and_the_goal() -> None:
    env = made("push-v3")
    last, _ = env.reset(seed=0)
    assert last.shape == (39,)
    assert last.dtype == np.float64
    np.testing.assert_array_equal(last[:18], last[18:36])
    np.testing.assert_array_equal(last[-3:], base(env)._target_pos)
    for _ in range(5):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        np.testing.assert_array_equal(observation[18:36], last[:18])
        np.testing.assert_array_equal(observation[-3:], last[-3:])
        assert 0.0 <= float(reward) <= 10.0
        assert not terminated
        assert info["success"] == 0.0
        last = observation


def test_one_space_for_all_tasks() -> None:
    env = made("push-v3")
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    frame = [-0.525, 0.348, -0.0525, -1.0, *[-np.inf] * 14]
    np.testing.assert_array_equal(space.low, [*frame, *frame, *[-np.inf] * 3])
    frame = [0.525, 1.025, 0.7, 1.0, *[np.inf] * 14]
    np.testing.assert_array_equal(space.high, [*frame, *frame, *[np.inf] * 3])
    assert made("hammer-v3").observation_space == space


@pytest.mark.filterwarnings("ignore::UserWarning")  # infinite bounds, and a method `seed` of Meta-World
def test_gymnasium_accepts_it() -> None:
    check_env(made("peg-unplug-side-v3").unwrapped, skip_render_check=True)


def test_time_limit() -> None:
    for episode_steps, limit in ((None, 500), (510, 510)):
        env = make_env("Meta-World/window-close-v3", episode_steps=episode_steps)
        env.reset(seed=0)
        ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(limit)]
        assert ends == [(False, False)] * (limit - 1) + [(False, True)]


def test_success_is_told_and_ends_nothing() -> None:
    env, policy = made("window-close-v3"), POLICIES["window-close-v3"]()
    observation, _ = env.reset(seed=0)
    successes = []
    for _ in range(120):
        observation, _, terminated, truncated, info = env.step(policy.get_action(observation).astype(np.float32))
        assert not terminated
        assert not truncated
        successes.append(info["success"])
    assert successes == sorted(successes)
    assert set(successes) == {0.0, 1.0}


# -- Meta-World's own ------------------------------------------------------------------------------


@each(dict.fromkeys(QUICK + CW10))
def test_equals_meta_world(task: str) -> None:
    """Their class with the same placement, driven by their policy: observations, rewards and info bit for bit."""
    env, policy = made(task), POLICIES[task]()
    other = CLASSES[task]()
    for seed, steps in ((3, 80), (4, 10)):
        observation, _ = env.reset(seed=seed)
        placement = {"env_cls": type(other), "rand_vec": base(env)._last_rand_vec, "partially_observable": False}
        other.set_task(theirs.Task(task, pickle.dumps(placement)))
        assert exactly(other.reset()[0]) == exactly(observation)
        for _ in range(steps):
            action = np.clip(policy.get_action(observation), -1.0, 1.0).astype(np.float32)
            ours = env.step(action)
            assert [exactly(answer) for answer in ours] == [exactly(answer) for answer in other.step(action)]
            observation = ours[0]


def test_touching_equals_meta_world() -> None:
    env, policy = made("stick-pull-v3"), POLICIES["stick-pull-v3"]()
    observation, _ = env.reset(seed=0)
    found = []
    for _ in range(100):
        observation = env.step(np.clip(policy.get_action(observation), -1.0, 1.0).astype(np.float32))[0]
        stick = base(env)._get_id_main_object()
        found.append(base(env).touching_object(stick))
        assert found[-1] == theirs.SawyerXYZEnv.touching_object(base(env), stick)
    assert set(found) == {False, True}


def test_welds_of_any_mujoco() -> None:
    """Version 3.17 brought a twelfth number, the scale of the torque."""
    env = base(made("push-v3"))
    env.model.eq_data[:] = 7.0
    theirs.SawyerMocapBase.reset_mocap_welds(env)
    expected = env.model.eq_data.copy()
    env.model.eq_data[:] = 7.0
    env.reset_mocap_welds()
    np.testing.assert_array_equal(env.model.eq_data, expected)
    newer = SimpleNamespace(eq_type=np.array([1, 0, 1]), eq_data=np.full((3, 12), 7.0))
    MetaWorldTask.reset_mocap_welds(SimpleNamespace(model=newer))  # type: ignore[arg-type]
    weld = [*[0.0] * 6, -1.0, *[0.0] * 3, 5.0, 7.0]
    assert newer.eq_data.tolist() == [weld, [7.0] * 12, weld]


# -- Seeds -----------------------------------------------------------------------------------------


@each(dict.fromkeys(QUICK + CW10))
def test_a_seed_repeats_what_follows(task: str) -> None:
    env, other = made(task), made(task)
    first = episodes(env, 5)
    assert episodes(env, 5) == first, "the same environment again"
    random_steps(env, 7)
    assert episodes(env, 5) == first, "whatever it did before"
    np.random.seed(1)  # what Meta-World itself draws from
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    assert episodes(other, 5) == first, "another environment"
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]
    assert episodes(other, 6)[0] != first[0]


def test_every_reset_draws_a_placement() -> None:
    env = made("push-v3")
    space = base(env)._random_reset_space
    placements = []
    for episode in range(20):
        env.reset(seed=0 if episode == 0 else None)
        placements.append(base(env)._last_rand_vec)
        env.step(env.action_space.sample())
        assert base(env)._last_rand_vec is placements[-1]
    drawn = np.array(placements)
    assert len(np.unique(drawn, axis=0)) == 20
    assert all(space.contains(placement) for placement in placements)
    assert np.linalg.norm(drawn[:, :2] - drawn[:, 3:5], axis=1).min() >= 0.15, "goal and object are apart"
    np.testing.assert_allclose(drawn.mean(axis=0)[[0, 3]], 0.0, atol=0.05)


# -- Exact state -----------------------------------------------------------------------------------


def captured(env: gym.Env[Any, Any]) -> EnvState:
    """The state after a trip through the formats of a checkpoint."""
    state = capture_state(env)
    assert state is not None
    return EnvState(load(save(state.tensors)), json.loads(json.dumps(state.scalars, allow_nan=False)))


@each(CLASSES)
def test_restored_run_equals_the_uninterrupted_one(task: str) -> None:
    def started(seed: int, steps: int) -> gym.Env[Any, Any]:
        env = made(task)
        env.reset(seed=seed)
        env.action_space.seed(seed)
        random_steps(env, steps)
        return env

    def seen(env: gym.Env[Any, Any]) -> Any:
        model, attributes = base(env).model, vars(base(env))
        return exactly(model.body_pos), exactly(model.site_pos), {name: type(attributes[name]) for name in attributes}

    source = started(1, 8)
    others = [started(2, 3), *([made(task)] if task in (*QUICK, *CW10) else [])]  # used, and as it is made
    state = captured(source)
    for env in others:
        restore_state(env, state)
        assert seen(env) == seen(source)
    expected = random_steps(source, 14, reset_every=6)
    for env in others:
        assert random_steps(env, 14, reset_every=6) == expected
        assert exactly(captured(env).tensors) == exactly(captured(source).tensors)


def test_a_captured_fresh_environment_makes_a_used_one_fresh() -> None:
    env, used = made("sweep-into-v3"), made("sweep-into-v3")
    used.reset(seed=0)
    random_steps(used, 3)
    restore_state(used, captured(env))
    assert {name: exactly(value) for name, value in base(used).state_dict().items()} == {
        name: exactly(value) for name, value in base(env).state_dict().items()
    }
    generator = {"_np_random", "_np_random_seed"}
    assert vars(base(used)).keys() - generator == vars(base(env)).keys() - generator


def test_no_state_rather_than_a_wrong_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sparserl.envs.simulation_state")
    env = made("push-v3")
    env.reset(seed=0)
    for strange, reason in (
        (base(env).model.body_pos[3], "an attribute is a view of something that is not a row"),
        (base(env).data.qpos[2:5], "an attribute is a view of something that is not a row"),
        (object(), "own.attribute.strange holds a object"),
    ):
        base(env).strange = strange
        assert capture_state(env) is None
        assert reason in caplog.messages[-1]
    del base(env).strange
    assert capture_state(env) is not None


def test_a_state_of_another_task_is_refused() -> None:
    with pytest.raises(CheckpointError, match="belongs to"):
        restore_state(made("push-v3"), captured(made("push-back-v3")))


# -- Names and the extra ---------------------------------------------------------------------------


def test_all_tasks_are_listed_and_nothing_else() -> None:
    listed = [env_id for env_id in list_env_ids() if env_id.startswith("Meta-World/")]
    assert listed == sorted(f"Meta-World/{task}" for task in CLASSES)
    assert len(listed) == 50


@pytest.mark.parametrize(
    ("env_id", "closest"),
    [
        ("Meta-World/hamer-v3", "Meta-World/hammer-v3"),
        ("Meta-World/hammer-v2", "Meta-World/hammer-v3"),
        ("Meta-World/hammer", "Meta-World/hammer-v3"),
        ("MetaWorld/hammer-v3", "Meta-World/hammer-v3"),
        ("push-wall-v3", "Meta-World/push-wall-v3"),
        ("Meta-World/MT10", None),
        ("Meta-World/MT1", None),
        ("Meta-World/goal_observable", None),
    ],
)
def test_unknown_names(env_id: str, closest: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(env_id)
    start = f"unknown environment {env_id!r}; the closest is 'Meta-World/"
    assert str(caught.value).startswith(start)
    assert closest is None or str(caught.value) == f"unknown environment {env_id!r}; the closest is {closest!r}"


NOT_INSTALLED = (
    "environment 'Meta-World/hammer-v3' cannot be made: Meta-World is not installed; "
    f"{installer()} 'metaworld<4,>=3.1.1' brings it"
)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.setitem(make._EXTRAS, "Meta-World", register_tasks.__wrapped__)
    with pytest.raises(ConfigError) as caught:
        make_env("Meta-World/hammer-v3")
    assert str(caught.value) == NOT_INSTALLED


@pytest.mark.slow
def test_all_else_works_without_the_extra() -> None:
    script = """
import sys
sys.modules["metaworld"] = None
from sparserl.envs import WrapperConfig, build_rl_sequence, check_spaces, list_env_ids, make_env
from sparserl.extras import installer
from sparserl.errors import ConfigError
make_env("HalfCheetah-v5").reset(seed=0)
assert not any("Meta-World" in env_id for env_id in list_env_ids())
sequence = build_rl_sequence("cw10", seed=0, steps=100)
for ask in (lambda: check_spaces(sequence, WrapperConfig(), 0), lambda: make_env("HalfCheeta-v5")):
    try:
        ask()
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"task 0: {NOT_INSTALLED}",
        "unknown environment 'HalfCheeta-v5'; the closest is 'HalfCheetah-v5'",
    ]
