"""An agent with discrete actions and one network is a row of the table: the command line trains it like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from support.envs import ChoiceEnv, FunctionEnv, SpacesOnly
from support.killed import Killed
from support.runs import FAST, REWIRE, last_state, logs, rows, same_run, train

from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.table import make_agent
from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.experiment import open_run
from sparserl.topology.config import TopologyConfig

ROOT = Path(__file__).resolve().parents[2]
AGENT = (
    *("--env", "Choices-v0", "--agent.net-arch", "8", "8", "--agent.batch-size", "16"),
    *("--agent.target-update-interval", "7", "--agent.max-grad-norm", "0.5"),
    *("--agent.exploration-initial-eps", "0.9", "--agent.exploration-fraction", "0.5"),
)
SPARSE = (*("--algo", "ds_dqn", "--topology.density", "0.4", "--agent.double-q"), *AGENT, *REWIRE)
ALGOS = {
    "ds_dqn": (*SPARSE, "--topology.method", "rigl", "--topology.recycle-interval", "15"),
    "dqn": ("--algo", "dqn", *AGENT, "--agent.n-steps", "3"),
}


@pytest.fixture(autouse=True)
def choices(undrawn: None) -> Iterator[None]:
    """Environments with discrete actions."""
    several = SpacesOnly(gym.spaces.Box(-1, 1, (3,)), gym.spaces.MultiDiscrete([2, 3]))
    gym.register("Choices-v0", entry_point=ChoiceEnv, kwargs={"horizon": 17})
    gym.register("Several-v0", entry_point=lambda: several)
    yield
    for name in ("Choices-v0", "Several-v0"):
        gym.registry.pop(name)


def test_it_trains_rewires_and_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run, *FAST, *ALGOS["ds_dqn"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["algo"] == "ds_dqn"
    assert result["topology_events"] > 2
    assert result["density"] < 0.6
    layers = {row["layer"] for row in rows(run / "topology.csv")}
    assert layers == {"q_net.q.0", "q_net.q.1", "q_net.q.2"}
    assert {int(row["global_step"]) for row in rows(run / "eval.csv")} == {0, 50, 100, 130}
    last = logs(run)["progress"][-1]
    assert float(last["rollout/exploration_rate"]) == pytest.approx(0.01)
    assert float(last["train/loss"]) >= 0
    capsys.readouterr()
    assert main(["eval", "--run", str(run), "--episodes", "2"]) == 0
    assert "ds_dqn" in capsys.readouterr().out


@pytest.mark.parametrize("algo", ALGOS)
def test_killed_and_resumed_it_ends_like_a_run_that_was_not(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "run", *FAST, *ALGOS[algo]) == 0
    steps = iter(range(10_000))
    step = ChoiceEnv.step

    def dies(self: ChoiceEnv, action: Any) -> Any:
        if next(steps) == 220:  # some of them of evaluations
            raise Killed
        return step(self, action)

    monkeypatch.setattr(ChoiceEnv, "step", dies)
    with pytest.raises(Killed):
        train(tmp_path / "cut", *FAST, *ALGOS[algo])
    assert last_state(tmp_path / "cut")["global_step"] == 90
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(tmp_path / "run", tmp_path / "cut")
    name = "cost/flops_train"
    assert logs(tmp_path / "run")["progress"][-1][name] == logs(tmp_path / "cut")["progress"][-1][name]


@pytest.mark.parametrize("algo", ALGOS)
def test_every_command_on_a_run_takes_it(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, small = tmp_path / "run", tmp_path / "small"
    assert train(run, *FAST, *ALGOS[algo]) == 0
    capsys.readouterr()
    assert main(["inspect", "--run", str(run), "--episodes", "1", "--json"]) == 0
    [network] = json.loads(capsys.readouterr().out)["networks"].values()
    trained: Any = open_run(run)
    x = torch.from_numpy(trained.visited(0, 1)[0]).requires_grad_()
    values = trained.agent.q_net(x)
    slopes = [torch.autograd.grad(values[:, one].sum(), x, retain_graph=True)[0].abs().mean(dim=0) for one in range(3)]
    found = [one["attribution"] for one in sorted(network["inputs"], key=lambda one: one["name"])]
    assert found == pytest.approx(sum(slopes).tolist(), rel=1e-4)  # type: ignore[union-attr]
    for file_format in ("c", "onnx", "safetensors"):
        out = tmp_path / f"policy.{file_format}"
        assert main(["export", "--run", str(run), "--format", file_format, "--out", str(out)]) == 0
        assert "0.0e+00 at most" in capsys.readouterr().out
    assert main(["prune", "--run", str(run), "--density", "0.3", "--episodes", "1", "--out", str(small)]) == 0
    again = ["train", "--from", str(small), "--topology.method", "set", "--total-steps", "60", "--no-progress"]
    assert main([*again, "--run-dir", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "result.json").read_text())["algo"] == "ds_dqn"


REFUSED = {
    (*SPARSE, "--env", "Pendulum-v1"): "has a Box action space; Discrete is needed; use ds_td3 or ds_sac",
    (*SPARSE, "--env", "Several-v0"): "has a MultiDiscrete action space; Discrete is needed; ",
    ("--algo", "ds_td3", "--env", "Choices-v0"): "a continuous one (Box) is needed; use ds_dqn",
    ("--algo", "sac", "--env", "Choices-v0"): "a continuous one (Box) is needed; use dqn",
    (*SPARSE, "--topology.critic-density", "0.2"): "topology.critic_density has no effect: ds_dqn trains q_net",
    (*SPARSE, "--agent.target-update-interval", "0"): "agent.target_update_interval must be at least 1, got 0",
    (*SPARSE, "--agent.exploration-final-eps", "2"): "agent.exploration_final_eps must be in [0, 1], got 2",
    (*SPARSE, "--agent.exploration-final-eps", "0.9"): "agent.exploration_fraction 0.5 has no effect: it needs",
    (*SPARSE, "--agent.loss", "hubber"): "unknown --agent.loss 'hubber'; did you mean 'huber'?",
    (*SPARSE, "--agent.dynamic-capacity", "--agent.forget-minimum", "10"): "compares actions that are vectors, not of",
    (*SPARSE, "--agent.policy-delay", "2"): "unknown option '--agent.policy-delay'",
    ("--algo", "dqn", *AGENT, "--agent.double-q"): "agent.double_q True is not for dqn, which is Stable-Baselines3's",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_it_cannot_have_is_refused_in_one_line(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *FAST, *words) == 2
    said = capsys.readouterr().err
    assert REFUSED[words] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_actions_of_another_kind_are_refused_where_it_is_made() -> None:
    with pytest.raises(ConfigError, match=r"^ds_dqn takes Discrete actions, got Box.*; use ds_td3 or ds_sac"):
        make_agent("ds_dqn", DQNConfig(), TopologyConfig(), FunctionEnv(), seed=0)


def test_nothing_else_knows_of_it() -> None:
    """Beside its own file, its row, what users import from the package, and benchmarks, which compare what is named."""
    folders = (ROOT / "agents", ROOT / "continual", ROOT / "envs", *(ROOT / "sparserl").glob("[!_]*/"))
    folders = tuple(folder for folder in folders if not folder.is_symlink() and folder.name != "bench")
    modules = {path for folder in folders for path in folder.rglob("*.py")}
    assert len(modules) > 200
    known = {path.relative_to(ROOT).as_posix() for path in modules if re.search(r"ds_dqn\b", path.read_text())}
    assert known == {"agents/__init__.py", "agents/ds_dqn.py", "agents/table.py"}


ACTOR_CRITICS = {
    *(
        "critics_config",
        "dense",
        "ds_crossq",
        "ds_recurrent_ppo",
        "ds_sac",
        "ds_td3",
        "ds_tqc",
        "on_policy_parts",
        "parts",
    ),
    "sparse_actor_critic",
}
"""Modules of agents that have an actor and critics."""
NAMES_A_NETWORK = re.compile(r"\.(actor|critic)\b|[\"'](actor|critic)[\"']")


def test_what_runs_and_records_agents_names_no_network_of_theirs() -> None:
    rooms = ("cli", "experiment", "plots", "recording", "report", "sweep")
    modules = [path for room in rooms for path in (ROOT / "sparserl" / room).rglob("*.py")]
    modules += [path for path in (ROOT / "agents").glob("*.py") if path.stem not in ACTOR_CRITICS]
    assert len(modules) > 50
    assert [path.name for path in modules if NAMES_A_NETWORK.search(path.read_text())] == []
