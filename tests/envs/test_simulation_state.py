"""`capture_state`, `restore_state`: after a restore, all is bit for bit as it was after the capture."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from safetensors.numpy import load, load_file, save, save_file
from stable_baselines3.common.monitor import Monitor
from support.trees import exactly

from sparserl.envs import EnvState, capture_state, make_env, restore_state
from sparserl.envs.wrappers.defects import BreakSensors
from sparserl.errors import CheckpointError

ENV_IDS = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5"]
STEPS_BEFORE, STEPS_AFTER = 37, 1200


def made(env_id: str) -> Monitor[Any, Any]:
    return Monitor(make_env(env_id))


def started(env_id: str, seed: int = 5, steps: int = STEPS_BEFORE) -> Monitor[Any, Any]:
    env = made(env_id)
    env.reset(seed=seed)
    env.action_space.seed(seed + 1)
    events(env, steps)
    return env


def base(env: gym.Env[Any, Any]) -> MujocoEnv:
    assert isinstance(env.unwrapped, MujocoEnv)
    return env.unwrapped


def events(env: gym.Env[Any, Any], steps: int) -> list[Any]:
    """Drives `env` with its own random actions, resetting without a seed, and returns everything it said."""
    tape: list[Any] = []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        episode = info.pop("episode", None)
        outcome = (episode["r"], episode["l"]) if episode else None
        tape.append((exactly(obs), exactly(reward), terminated, truncated, outcome, exactly(info)))
        if terminated or truncated:
            obs, info = env.reset()
            tape.append((exactly(obs), exactly(info)))
    return tape


def stored(state: EnvState | None) -> EnvState:
    """The state after a trip through the formats of a checkpoint."""
    assert state is not None
    return EnvState(load(save(state.tensors)), json.loads(json.dumps(state.scalars, allow_nan=False)))


def captured(env: gym.Env[Any, Any]) -> EnvState:
    return stored(capture_state(env))


# Warnings that a user would see are errors here: a restored environment must be as quiet as the original.
pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_restored_run_equals_the_uninterrupted_one(env_id: str) -> None:
    expected = events(started(env_id), STEPS_AFTER)
    assert sum(len(event) == 2 for event in expected) >= 1, "the test must go through a reset"
    if env_id == "HalfCheetah-v5":
        assert [event[3] for event in expected if len(event) == 6].index(True) == 1000 - STEPS_BEFORE - 1
        assert [event[4][1] for event in expected if len(event) == 6 and event[4]] == [1000]

    source = started(env_id)
    state = captured(source)
    assert events(source, STEPS_AFTER) == expected, "capturing changed the environment"

    fresh = made(env_id)
    restore_state(fresh, state)
    assert events(fresh, STEPS_AFTER) == expected

    used = started(env_id, seed=77, steps=211)
    restore_state(used, state)
    assert events(used, STEPS_AFTER) == expected
    assert used.get_episode_rewards() == source.get_episode_rewards()
    assert used.get_episode_lengths() == source.get_episode_lengths()
    assert used.get_total_steps() == source.get_total_steps()


@pytest.mark.parametrize(
    "env_id",
    [
        "HumanoidStandup-v5",
        "InvertedDoublePendulum-v5",
        "InvertedPendulum-v5",
        "Pusher-v5",
        "Reacher-v5",
        "Swimmer-v5",
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 20])
def test_other_environments_and_early_captures(env_id: str, steps: int) -> None:
    source = started(env_id, steps=steps)
    restored = started(env_id, seed=9, steps=3)
    restore_state(restored, captured(source))
    for name in ("goal", "goal_pos", "cylinder_pos"):
        assert exactly(getattr(restored.unwrapped, name, 0)) == exactly(getattr(source.unwrapped, name, 0))
    assert events(restored, 120) == events(source, 120)


@pytest.mark.parametrize("steps", [0, 1])
def test_the_passive_checker_finishes_its_checks_after_a_restore(steps: int) -> None:
    source, fresh = started("Ant-v5", steps=steps), made("Ant-v5")
    restore_state(fresh, captured(source))
    assert events(fresh, 60) == events(source, 60)


def test_the_current_physics_is_not_enough() -> None:
    """Breaks when the derived arrays are left out of the state.

    Ant's reward is the distance of `xpos` before and after a step. `mj_step` ends by moving `qpos`, without
    computing `xpos` again, so `xpos` is one substep older than `qpos`. A restore that saved only the
    integration state would leave a stale `xpos`; one that called `mj_forward` would have a *newer* one than
    the uninterrupted run. Both give another first reward, and with it another return. The same holds for
    Humanoid and `xipos`.
    """
    for env_id in ("Ant-v5", "Humanoid-v5"):
        source = started(env_id)
        state = captured(source)
        action = source.action_space.sample()
        expected = source.step(action)

        exact, forwarded, stale = made(env_id), made(env_id), made(env_id)
        restore_state(exact, state)
        restore_state(forwarded, state)
        mujoco.mj_forward(base(forwarded).model, base(forwarded).data)
        integration = next(value for key, value in state.tensors.items() if key.endswith("/integration"))
        stale.reset(seed=0)
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(base(stale).model, base(stale).data, integration, kind)

        assert exactly(exact.step(action)[1]) == exactly(expected[1])
        assert exactly(forwarded.step(action)[1]) != exactly(expected[1])
        assert exactly(stale.step(action)[1]) != exactly(expected[1])


def test_every_derived_quantity_comes_back() -> None:
    source, restored = started("Humanoid-v5"), made("Humanoid-v5")
    restore_state(restored, captured(source))
    assert base(restored).data.time == base(source).data.time > 0.0
    for name in ("qpos", "qvel", "qacc_warmstart", "xpos", "xipos", "cinert", "cfrc_ext", "ten_length"):
        theirs, ours = getattr(base(source).data, name), getattr(base(restored).data, name)
        assert theirs.any(), name
        assert exactly(theirs) == exactly(ours), name


def test_nothing_of_the_arena_is_touched() -> None:
    """Before a step, arena arrays have null or freed memory behind them, some under a fixed shape."""
    arena = ("efc_", "iefc_", "island", "dof_island", "tendon_efcadr", "contact", "map_")
    for env in (made("Humanoid-v5"), started("Humanoid-v5", steps=0), started("Humanoid-v5")):
        names = {key.partition("derived.")[2] for key in captured(env).tensors}
        assert "xpos" in names
        assert not [name for name in names if name.startswith(arena)]


def test_restores_in_another_process(tmp_path: Path) -> None:
    source = started("Ant-v5")
    state = capture_state(source)
    assert state is not None
    save_file(state.tensors, tmp_path / "env.safetensors")
    (tmp_path / "env.json").write_text(json.dumps(state.scalars))
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    out = subprocess.run(
        [sys.executable, "-c", f"import test_simulation_state as t; t.print_digest({str(tmp_path)!r})"],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == digest(source)


def digest(env: gym.Env[Any, Any]) -> str:
    return hashlib.sha256(repr(events(env, 300)).encode()).hexdigest()


def print_digest(folder: str) -> None:
    """What the other process of `test_restores_in_another_process` runs."""
    env = made("Ant-v5")
    scalars = json.loads((Path(folder) / "env.json").read_text())
    restore_state(env, EnvState(load_file(Path(folder) / "env.safetensors"), scalars))
    print(digest(env))


def test_a_state_can_be_restored_twice_and_is_not_a_view() -> None:
    source = started("Hopper-v5")
    state = capture_state(source)
    assert state is not None
    before = exactly(state.tensors), json.dumps(state.scalars)
    expected = events(source, 200)
    restored = made("Hopper-v5")
    for _ in range(2):
        restore_state(restored, state)
        assert events(restored, 200) == expected
    assert (exactly(state.tensors), json.dumps(state.scalars)) == before


def test_environment_that_was_never_reset() -> None:
    never, used = made("Hopper-v5"), started("Hopper-v5")
    restore_state(used, captured(never))
    with pytest.raises(RuntimeError, match="needs reset"):
        used.step(used.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        used.env.step(np.zeros(3, np.float32))


def test_monitor_clock_goes_on_from_the_elapsed_time() -> None:
    source, restored = started("Hopper-v5"), made("Hopper-v5")
    source.t_start -= 1000.0
    restore_state(restored, captured(source))
    assert 999.0 < time.time() - restored.t_start < 1100.0


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_bit_generator_of_numpy(name: str) -> None:
    source, restored = started("Hopper-v5"), made("Hopper-v5")
    source.unwrapped.np_random = np.random.Generator(getattr(np.random, name)(4))
    source.np_random.integers(5, dtype=np.int32)  # leaves half of a 64-bit draw behind
    restore_state(restored, captured(source))
    assert restored.unwrapped.np_random_seed == source.unwrapped.np_random_seed == -1
    assert restored.np_random.integers(9, size=7, dtype=np.int32).tolist() == (
        source.np_random.integers(9, size=7, dtype=np.int32).tolist()
    )
    assert exactly(restored.reset()[0]) == exactly(source.reset()[0])


def test_whoever_holds_the_generator_keeps_it() -> None:
    source, used = started("Hopper-v5"), started("Hopper-v5", seed=1)
    held = used.np_random
    restore_state(used, captured(source))
    assert used.np_random is held
    assert held.bit_generator.state == source.np_random.bit_generator.state


# -- Wrappers --------------------------------------------------------------------------------------


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


class Counter(gym.Env[Any, Any]):
    """A base environment without MuJoCo that saves itself."""

    action_space = observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_base_environment_that_saves_itself() -> None:
    source, restored = Counter(), Counter()
    source.count = 3
    restore_state(restored, captured(source))
    assert restored.count == 3


class EditedHopper(HopperEnv):
    """A user's subclass, which may hold anything."""


class BoundMethod(Counter):
    def state_dict(self) -> dict[str, Any]:
        return {"count": print}


class MyMonitor(Monitor[Any, Any]):
    """A subclass of a known wrapper, which may hold more."""


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
