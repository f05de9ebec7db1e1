"""What does not fit into the memory of the machine is refused, with an estimate, before it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv
from support.envs import FunctionEnv

from sparserl import machine_memory
from sparserl.agents.critics_config import TD3Config
from sparserl.agents.table import AGENTS, _memory, make_agent
from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.machine_memory import check_fits, memory_bytes
from sparserl.topology.config import TopologyConfig


def test_the_machine_has_what_its_container_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    monkeypatch.setattr(machine_memory, "MEMINFO", meminfo)
    monkeypatch.setattr(machine_memory, "LIMITS", (limit, tmp_path / "none"))
    assert memory_bytes() is None
    check_fits({"anything": 1e30})
    meminfo.write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nSwapTotal: 24 kB\n")
    assert memory_bytes() == 1024 * 1024
    limit.write_text("max\n")
    assert memory_bytes() == 1024 * 1024
    limit.write_text("5000\n")
    assert memory_bytes() == 5000


def test_the_line_names_the_largest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "memory_bytes", lambda: 16_000_000_000)
    check_fits({"a": 8e9, "b": 8e9})
    line = "this would take about 3.01 TB of memory, 3 TB of it for b, and the machine has 16 GB"
    with pytest.raises(ConfigError, match=f"^{line}$"):
        check_fits({"a": 8e9, "b": 3e12})


def test_an_estimate_of_an_agent_worked_by_hand() -> None:
    row, env = AGENTS["ds_td3"], FunctionEnv()
    (n_obs,), (n_action,) = env.observation_space.shape or (0,), env.action_space.shape or (0,)
    config = TD3Config(buffer_size=1000, net_arch=(10, 20))
    item = env.observation_space.dtype.itemsize  # type: ignore[union-attr]
    buffer, _, networks = _memory(row, config, None, env, 1000).values()
    assert buffer == 1000 * (2 * item * n_obs + 4 * n_action + 12)  # also reward, done and time limit, of 4 bytes
    actor = n_obs * 10 + 10 * 20 + 20 * n_action
    critic = (n_obs + n_action) * 10 + 10 * 20 + 20
    assert networks == 20 * (actor + 2 * critic)
    half_dense = TopologyConfig("set", density=0.5, output_layer="sparse", allocation="uniform")
    half = _memory(row, config, half_dense, env, 1000)
    assert half["the networks (--agent.net-arch)"] == 40 * (actor + 2 * critic) / 2
    assert _memory(row, config, None, env, 1)["the replay buffer (--agent.buffer-size)"] < 100


@pytest.mark.parametrize(("algo", "n_envs"), [("ds_ppo", 3), ("ds_a2c", 1), ("ds_recurrent_ppo", 2)])
def test_an_estimate_of_a_rollout_is_what_it_holds(algo: str, n_envs: int) -> None:
    config, topology = AGENTS[algo].config(n_steps=128), TopologyConfig("static", density=0.5)  # type: ignore[call-arg]
    env = DummyVecEnv([FunctionEnv] * n_envs)
    rollout: Any = make_agent(algo, config, topology, env, seed=0).rollout_buffer  # type: ignore[attr-defined]
    rollout.reset()
    held = sum(array.nbytes for array in vars(rollout).values() if isinstance(array, np.ndarray))
    assert _memory(AGENTS[algo], config, topology, env, 1000)["the rollout (--agent.n-steps)"] == held


def test_of_a_buffer_only_what_the_run_fills_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    env, topology = FunctionEnv(), TopologyConfig("dense")
    config = TD3Config(buffer_size=100_000, net_arch=(8, 8), batch_size=4)
    monkeypatch.setattr(machine_memory, "memory_bytes", lambda: 1_000_000)
    agent = make_agent("td3", config, topology, env, seed=0, total_steps=500)
    assert agent.replay_buffer is not None
    assert agent.replay_buffer.buffer_size == 100_000
    for total_steps in (None, 50_000):
        with pytest.raises(ConfigError, match=r"of it for the replay buffer \(--agent\.buffer-size\)"):
            make_agent("td3", config, topology, env, seed=0, total_steps=total_steps)


WORDS = {
    "--agent.buffer-size": ("train", "--agent.buffer-size", "1e12"),
    "--agent.net-arch": ("train", "--agent.net-arch", "1000000", "1000000", "--topology.density", "0.5"),
    "--agent.batch-size": ("train", "--agent.batch-size", "1e12"),
    "--learner.hidden": ("continual", "--method", "naive", "--learner.hidden", "1000000", "1000000"),
}


@pytest.mark.parametrize("option", WORDS)
def test_commands_refuse_what_does_not_fit(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS[option], "--no-progress"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sparserl: this would take about ")
    assert f"({option})" in said
    assert not list(tmp_path.iterdir())
