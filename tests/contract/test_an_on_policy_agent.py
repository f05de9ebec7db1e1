"""An agent without a replay buffer is trained, evaluated, saved and resumed by the same commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support.envs import FunctionEnv
from support.killed import Killed
from support.runs import last_state, rows, same_run
from support.toy_a2c import ToyA2C, ToyA2CConfig

from sparserl.agents import table
from sparserl.agents.table import AgentSpec, make_agent
from sparserl.cli import main
from sparserl.topology.config import TopologyConfig

STEPS = 130
FLAGS = (
    *("train", "--algo", "toy_a2c", "--env", "Tiny-v0", "--topology.method", "dense", "--agent.net-arch", "12"),
    *("--total-steps", str(STEPS), "--eval.every-steps", "50", "--eval.episodes", "2", "--no-progress"),
    *("--checkpoint-every-steps", "30", "--log-every-steps", "25", "--agent.n-steps", "7"),
)


@pytest.fixture(autouse=True)
def toy(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its row."""
    spec = AgentSpec(ToyA2C, ToyA2CConfig, "Advantage actor-critic", sparse_twin="ds_sac")
    monkeypatch.setitem(table.AGENTS, "toy_a2c", spec)
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")


def train(folder: Path, *flags: str) -> int:
    return main([*FLAGS, "--run-dir", str(folder), *flags])


def test_it_trains_and_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run) == 0
    result = json.loads((run / "result.json").read_text())
    rollouts = -(-STEPS // 7)
    assert (result["algo"], result["steps"], result["density"]) == ("toy_a2c", 7 * rollouts, 1.0)
    assert {int(row["global_step"]) for row in rows(run / "eval.csv")} == {0, 56, 105, 133}
    state = last_state(run)
    assert state["counters"]["_n_updates"] == state["global_step"] // 7 > 10
    assert "replay" not in state
    assert not (run / "replay").exists()
    capsys.readouterr()
    assert main(["eval", "--run", str(run), "--episodes", "2"]) == 0
    assert "toy_a2c" in capsys.readouterr().out


def test_killed_and_resumed_it_ends_like_a_run_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path / "run", "--n-envs", "2") == 0
    learn = ToyA2C.train

    def dies(self: ToyA2C) -> None:
        if self.num_timesteps == 70:
            raise Killed
        learn(self)

    with monkeypatch.context() as patch:
        patch.setattr(ToyA2C, "train", dies)
        with pytest.raises(Killed):
            train(tmp_path / "cut", "--n-envs", "2")
    assert last_state(tmp_path / "cut")["global_step"] == 42
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(tmp_path / "run", tmp_path / "cut")


def test_its_operations_are_counted() -> None:
    agent: Any = make_agent(
        "toy_a2c", ToyA2CConfig(net_arch=(8,), n_steps=5), TopologyConfig(method="dense"), FunctionEnv(), seed=0
    )
    agent.learn(20)
    n_obs, n_action = agent.observation_space.shape[0], agent.action_space.shape[0]
    first, last = 2 * n_obs * 8, 8 * (n_action + 1)
    # Forward, gradients of weights, and of what the second layers read.
    assert agent.flops.total == 4 * 5 * 2 * (2 * (first + last) + last)


def test_options_that_it_has_not_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--agent.buffer-size", "10") == 2
    assert "unknown option '--agent.buffer-size'" in capsys.readouterr().err
    words = ("continual", "--sequence", "halfcheetah_forgetting", "--algo", "toy_a2c", "--method", "finetune")
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
