"""An agent with discrete actions and one network is a row of the table: the command line trains it like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support import toy_dqn
from support.envs import Array, FunctionEnv
from support.killed import Killed
from support.runs import FAST, REWIRE, last_state, logs, rows, same_run, train
from support.toy_dqn import ToyConfig, ToyDQN

from sparserl.agents import table
from sparserl.agents.table import AgentSpec, make_agent
from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.metrics.cost import layer_costs
from sparserl.topology.config import TopologyConfig

ROOT = Path(__file__).resolve().parents[2]
TOUCHED = (
    "agents/toy_dqn.py",  # the agent and its options; here tests/support/toy_dqn.py
    "agents/table.py",  # its row; here `toy`
    "configs/toy_dqn/default.yaml",  # if the defaults of its options are not to be the usual ones
    "tests/agents/test_toy_dqn.py",  # here this file
)
"""What a change that brings the agent would touch."""
FLAGS = ("--algo", "toy_dqn", "--env", "Choices-v0", "--topology.density", "0.4", *REWIRE)
TOPOLOGY = ("--topology.method", "rigl", "--topology.recycle-interval", "15")


class Choices(FunctionEnv):
    """To the left, to the right, or neither."""

    def __init__(self) -> None:
        super().__init__(horizon=17)
        self.action_space = gym.spaces.Discrete(3)  # type: ignore[assignment]

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return super().step(np.array([float(action) - 1.0]))


@pytest.fixture(autouse=True)
def toy(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its row."""
    monkeypatch.setitem(table.AGENTS, "toy_dqn", AgentSpec(ToyDQN, ToyConfig, "Deep Q-learning on a sparse network"))
    gym.register("Choices-v0", entry_point=Choices)
    yield
    gym.registry.pop("Choices-v0")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    assert train(tmp_path / "run", *FAST, *FLAGS, *TOPOLOGY) == 0
    return tmp_path / "run"


def test_it_trains_rewires_and_is_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["algo"] == "toy_dqn"
    assert result["topology_events"] > 2
    assert result["density"] < 0.6
    layers = {row["layer"] for row in rows(run / "topology.csv")}
    assert layers == {"q_net.q.0", "q_net.q.1", "q_net.q.2"}
    assert {int(row["global_step"]) for row in rows(run / "eval.csv")} == {0, 50, 100, 130}
    capsys.readouterr()
    assert main(["eval", "--run", str(run), "--episodes", "2"]) == 0
    assert "toy_dqn" in capsys.readouterr().out


def test_its_operations_are_counted() -> None:
    config = ToyConfig(net_arch=(8, 8), learning_starts=10, batch_size=4, buffer_size=100)
    topology = TopologyConfig(method="static", density=0.4)
    agent: Any = make_agent("toy_dqn", config, topology, Choices(), seed=0)
    agent.learn(30)
    first, *rest = (layer.weights for layer in layer_costs(agent.q_net))
    # The target forward; online forward, weight gradients, input gradients of all layers but the first.
    assert agent.flops.total == 20 * 4 * 2 * (4 * (first + sum(rest)) - first)


def test_killed_and_resumed_it_ends_like_a_run_that_was_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(10_000))
    step = Choices.step

    def dies(self: Choices, action: Any) -> Any:
        if next(steps) == 220:  # some of them of evaluations
            raise Killed
        return step(self, action)

    monkeypatch.setattr(Choices, "step", dies)
    with pytest.raises(Killed):
        train(tmp_path / "cut", *FAST, *FLAGS, *TOPOLOGY)
    assert last_state(tmp_path / "cut")["global_step"] == 90
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(run, tmp_path / "cut")
    assert logs(run)["progress"][-1]["cost/flops_train"] == logs(tmp_path / "cut")["progress"][-1]["cost/flops_train"]


def test_actions_and_densities_that_are_not_its_own_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *FAST, *FLAGS, "--env", "Pendulum-v1") == 2
    assert "environment 'Pendulum-v1' has a Box action space; Discrete is needed" in capsys.readouterr().err
    assert train(tmp_path / "run", *FAST, *FLAGS, "--topology.critic-density", "0.2") == 2
    assert "topology.critic_density has no effect: toy_dqn trains q_net" in capsys.readouterr().err
    assert main(["train", "--algo", "ds_td3", "--env", "CartPole-v1", "--run-dir", str(tmp_path / "run")]) == 2
    with pytest.raises(ConfigError, match=r"toy_dqn takes Discrete actions, got Box"):
        make_agent("toy_dqn", ToyConfig(), TopologyConfig(), FunctionEnv(), seed=0)
    assert not (tmp_path / "run").exists()


def test_a_policy_that_cannot_be_exported_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run", str(run), "--format", "c", "--out", str(run / "policy.h")]) == 2
    assert "a policy is exported for Box actions, not for Discrete(3)" in capsys.readouterr().err


def test_nothing_else_knows_of_it() -> None:
    """What is patched above is the row alone, so the count of files is that of `TOUCHED`."""
    assert len(TOUCHED) <= 4
    own = [Path(toy_dqn.__file__), Path(__file__)]
    folders = ("agents", "continual", "envs", "sparserl", "tests")
    others = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in others if path not in own and "toy_dqn" in path.read_text()] == []


ACTOR_CRITICS = {"dense", "ds_sac", "ds_td3", "parts", "sparse_actor_critic"}
"""Modules of agents that have an actor and critics."""
NAMES_A_NETWORK = re.compile(r"\.(actor|critic)\b|[\"'](actor|critic)[\"']")


def test_what_runs_and_records_agents_names_no_network_of_theirs() -> None:
    rooms = ("cli", "experiment", "plots", "recording", "report", "sweep")
    modules = [path for room in rooms for path in (ROOT / "sparserl" / room).rglob("*.py")]
    modules += [path for path in (ROOT / "agents").glob("*.py") if path.stem not in ACTOR_CRITICS]
    assert len(modules) > 50
    assert [path.name for path in modules if NAMES_A_NETWORK.search(path.read_text())] == []
