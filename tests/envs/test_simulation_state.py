"""`capture_state`, `restore_state`: after a restore, all is bit for bit as it was after the capture."""

from __future__ import annotations

import hashlib
import json
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
from safetensors.numpy import load_file, save_file
from support.simulation_states import STEPS_AFTER, STEPS_BEFORE, captured, events, made, started
from support.trees import exactly

from sparserl.envs import EnvState, capture_state, restore_state

ENV_IDS = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5"]


def base(env: gym.Env[Any, Any]) -> MujocoEnv:
    assert isinstance(env.unwrapped, MujocoEnv)
    return env.unwrapped


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
