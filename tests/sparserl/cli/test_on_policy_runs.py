"""Runs of PPO and A2C on sparse networks: recorded, resumed, looked into, pruned, exported; what they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces
from support.envs import ChoiceEnv, Choices, FunctionEnv
from support.killed import Killed
from support.runs import last_state, rows, same_run

from sparserl.agents.ds_ppo import DSPPO
from sparserl.agents.table import AGENTS
from sparserl.cli import main
from sparserl.experiment import open_run

SMALL = (
    *("train", "--env", "Tiny-v0", "--no-progress", "--agent.net-arch", "12", "10", "--total-steps", "130"),
    *("--eval.every-steps", "50", "--eval.episodes", "2", "--checkpoint-every-steps", "30", "--log-every-steps", "25"),
)
SIZES = {
    "ppo": ("--agent.n-steps", "16", "--agent.batch-size", "8", "--agent.n-epochs", "2"),
    "a2c": ("--agent.n-steps", "4"),
    "recurrent_ppo": (
        *("--agent.n-steps", "16", "--agent.batch-size", "8", "--agent.n-epochs", "2"),
        *("--agent.lstm-hidden", "8"),
    ),
}
NORMALIZED = ("--wrappers.normalize-observations", "running", "--wrappers.normalize-rewards", "0.9")
REWIRE = ("--topology.density", "0.4", "--topology.update-interval", "5")


@pytest.fixture(autouse=True)
def tiny(undrawn: None) -> Iterator[None]:
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")


def train(folder: Path, algo: str, *flags: str) -> int:
    own = SIZES[algo.removeprefix("ds_")]
    fixed = not AGENTS[algo].sparse or "static" in flags
    rewire = () if fixed else REWIRE
    return main([*SMALL, "--algo", algo, *own, *rewire, "--run-dir", str(folder), *flags])


@pytest.mark.parametrize(
    ("algo", "flags"),
    [
        ("ds_ppo", ("--topology.method", "rigl", "--topology.recycle-interval", "9", *NORMALIZED)),
        ("ds_a2c", ("--topology.method", "gmp")),
        ("ppo", NORMALIZED),
        ("ds_recurrent_ppo", ("--topology.method", "set", "--wrappers.hidden-features", "1")),
    ],
)
def test_killed_in_a_rollout_and_resumed_it_ends_like_a_run_that_was_not(
    algo: str, flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*flags, "--n-envs", "2")
    assert train(tmp_path / "run", algo, *flags) == 0
    steps = iter(range(10_000))
    step = FunctionEnv.step

    def dies(self: FunctionEnv, action: Any) -> Any:
        if next(steps) == 230:  # some of them of evaluations
            raise Killed
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(FunctionEnv, "step", dies)
        with pytest.raises(Killed):
            train(tmp_path / "cut", algo, *flags)
    assert 0 < last_state(tmp_path / "cut")["global_step"] < 130
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(tmp_path / "run", tmp_path / "cut")


def test_a_run_records_what_it_does(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, "ds_ppo", *NORMALIZED) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["algo"], result["steps"]) == ("ds_ppo", 144)  # nine rollouts
    assert result["topology_events"] > 3
    assert 0.3 < result["density"] < 0.7
    assert result["flops_train"] > 0
    progress = rows(run / "progress.csv")
    assert float(progress[-1]["train/n_updates"]) == 36
    assert all(row["train/value_loss"] and row["train/std"] for row in progress)
    layers = {row["layer"] for row in rows(run / "topology.csv")}
    assert layers == {"actor.pi.0", "actor.pi.1", "actor.pi.2", "critic.vf.0", "critic.vf.1"}  # one output is dense
    assert "normalized_rewards" in last_state(run)["wrappers"]
    assert (run / "normalization.json").exists()


def test_evaluation_shows_rewards_as_they_are(tmp_path: Path) -> None:
    flags = ("--wrappers.normalize-rewards", "0.9", "--wrappers.normalize-observations", "none")
    assert train(tmp_path / "run", "ds_ppo", *flags) == 0
    agent = open_run(tmp_path / "run", "last").agent  # type: ignore[union-attr]
    returns = []
    for seed in (100, 101):
        env = FunctionEnv(horizon=17)
        observation, _ = env.reset(seed=seed)
        over, total = False, 0.0
        while not over:
            observation, reward, _, over, _ = env.step(agent.predict(observation, deterministic=True)[0])
            total += reward
        returns.append(total)
    shown = [float(row["return"]) for row in rows(tmp_path / "run" / "eval.csv")]
    assert shown[-2:] == pytest.approx(returns, rel=1e-5)


@pytest.mark.parametrize("algo", ["ds_ppo", "ds_a2c"])
def test_every_command_takes_the_run(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run, algo, "--topology.method", "static") == 0
    for words in (
        ("eval", "--run", run, "--episodes", "1"),
        ("inspect", "--run", run),
        *(("export", "--run", run, "--format", kind, "--out", tmp_path / f"policy.{kind}") for kind in ("c", "onnx")),
        ("prune", "--run", run, "--density", "0.2", "--by", "lamp", "--out", tmp_path / "pruned"),
        ("report", run),
    ):
        assert main([str(word) for word in words]) == 0, words
    said = capsys.readouterr().out
    assert "critic" in said
    agent = open_run(tmp_path / "pruned", "last").agent  # type: ignore[union-attr]
    assert type(agent) is AGENTS[algo].agent
    assert [round(layer.density, 1) for layer in agent.evolver.layers.values()] != []
    assert agent.policy.log_std.tolist() == open_run(run).agent.policy.log_std.tolist()  # type: ignore[union-attr]


def test_a_run_with_memory_is_evaluated_and_is_no_chain_of_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, "ds_recurrent_ppo", "--topology.method", "static") == 0
    layers = {row["layer"] for row in rows(run / "topology.csv")}
    assert {"actor.memory.hh_l0", "critic.memory.ih_l0", "actor.pi.1"} <= layers
    assert main(["eval", "--run", str(run), "--episodes", "2", "--checkpoint", "last"]) == 0
    opened: Any = open_run(run, "last")
    returns = []
    for seed in (10_000, 10_001):
        env, act, total, over = opened.make_env(0), opened.policy(0), 0.0, False
        observation, _ = env.reset(seed=seed)
        while not over:
            observation, reward, _, over, _ = env.step(act(observation[None], True)[0])
            total += reward
        returns.append(total)
    assert opened.evaluate(2, seed=10_000).returns == pytest.approx(returns, rel=1e-4)
    capsys.readouterr()
    for words in (
        ("inspect", "--run", run),
        ("export", "--run", run, "--format", "c", "--out", tmp_path / "policy.h"),
        ("prune", "--run", run, "--density", "0.2", "--by", "lamp", "--out", tmp_path / "pruned"),
    ):
        assert main([str(word) for word in words]) == 2, words
        assert "a policy that remembers is no single chain of layers" in capsys.readouterr().err


def test_a_dense_run_is_pruned_into_a_sparse_one(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "ppo") == 0
    words = ("--density", "0.3", "--by", "fisher", "--out", str(tmp_path / "pruned"))
    assert main(["prune", "--run", str(tmp_path / "run"), *words]) == 0
    opened: Any = open_run(tmp_path / "pruned", "last")
    assert type(opened.agent) is DSPPO
    assert opened.agent.policy.log_std.tolist() == open_run(tmp_path / "run").agent.policy.log_std.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("algo", ["ds_ppo", "ds_dqn"])
def test_a_run_of_discrete_actions_is_pruned_by_importance(algo: str, tmp_path: Path) -> None:
    gym.register("Choices-v0", entry_point=ChoiceEnv)
    words = ("train", "--algo", algo, "--env", "Choices-v0", "--no-progress", "--agent.net-arch", "12", "10")
    own = SIZES["ppo"] if algo == "ds_ppo" else ("--agent.learning-starts", "10")
    more = ("--topology.density", "0.7", "--total-steps", "48", "--run-dir", str(tmp_path / "run"))
    prune = ("--density", "0.2", "--by", "fisher", "--out", str(tmp_path / "pruned"))
    try:
        assert main([*words, *own, *more]) == 0
        assert main(["prune", "--run", str(tmp_path / "run"), *prune]) == 0
        assert main(["inspect", "--run", str(tmp_path / "pruned")]) == 0
    finally:
        gym.registry.pop("Choices-v0")


def test_steps_below_one_rollout_are_rounded_up_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "ds_ppo", "--total-steps", "5") == 0
    assert "16 env steps: 5 are not whole rollouts of 16" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 16


REFUSED = {
    "a batch that divides no rollout": (
        ("--agent.batch-size", "12"),
        "agent.batch_size 12 does not divide the 16 env steps of a rollout (agent.n_steps 16 in 1 environment): the "
        "closest that does is 8",
    ),
    "one of several environments": (
        ("--agent.batch-size", "5", "--n-envs", "3"),
        "agent.batch_size 5 does not divide the 48 env steps of a rollout (agent.n_steps 16 in 3 environments): the "
        "closest that does is 4",
    ),
    "a buffer": (("--agent.buffer-size", "10"), "unknown option '--agent.buffer-size'"),
    "moments of an optimizer that has none": (
        ("--algo", "ds_a2c", "--topology.moments", "fresh"),
        "moments 'fresh' count the steps of each connection",
    ),
    "a discount": (("--wrappers.normalize-rewards", "1.5"), "wrappers.normalize-rewards"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, message = REFUSED[name]
    algo = "ds_a2c" if "ds_a2c" in flags else "ds_ppo"
    assert train(tmp_path / "run", algo, *flags) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("algo", ["ds_ppo", "ds_a2c"])
def test_sequences_need_a_replay_buffer(algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["continual", "--sequence", "halfcheetah_forgetting", "--algo", algo, "--method", "finetune"]) == 2
    said = capsys.readouterr().err
    assert f"{algo} has no replay buffer, which agents of sequences learn from; use ds_sac" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("algo", ["ds_ppo", "ppo", "ds_a2c", "ds_recurrent_ppo"])
@pytest.mark.parametrize("actions", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)], ids=["choices", "switches"])
def test_runs_of_several_choices_are_finished(algo: str, actions: Any, tmp_path: Path) -> None:
    gym.register("Several-v0", entry_point=lambda: Choices(actions))
    try:
        assert train(tmp_path / "run", algo, "--env", "Several-v0", "--total-steps", "32") == 0
        assert main(["eval", "--run", str(tmp_path / "run"), "--episodes", "1"]) == 0
    finally:
        gym.registry.pop("Several-v0")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["params_nonzero"] > 0


def test_a_run_of_several_choices_is_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gym.register("Several-v0", entry_point=lambda: Choices(spaces.MultiDiscrete([2, 3])))
    try:
        assert train(tmp_path / "run", "ds_ppo", "--env", "Several-v0", "--total-steps", "32") == 0
        capsys.readouterr()
        words = [
            "prune",
            "--run",
            str(tmp_path / "run"),
            "--density",
            "0.1",
            "--out",
            str(tmp_path / "pruned"),
            "--json",
        ]
        assert main([*words, "--episodes", "1"]) == 0
        said = json.loads(capsys.readouterr().out)
        actor = open_run(tmp_path / "pruned").agent.actor
    finally:
        gym.registry.pop("Several-v0")
    assert said["after"]["policy_parameters"] == sum(parameter.numel() for parameter in actor.parameters())
    assert said["after"]["policy_parameters"] < said["before"]["policy_parameters"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("algo", "flags"),
    [
        ("ds_ppo", ("--agent.n-steps", "1", "--agent.batch-size", "8")),
        ("ppo", ("--agent.n-steps", "1", "--agent.batch-size", "8")),
        ("ds_a2c", ("--agent.n-steps", "1", "--agent.normalize-advantage")),
        ("ds_recurrent_ppo", ("--agent.n-steps", "4", "--agent.batch-size", "32")),
    ],
)
def test_what_learned_in_several_environments_is_opened_in_one(
    algo: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(run, algo, "--n-envs", "8", "--total-steps", "64", *flags) == 0
    for words in (("eval", "--run", run, "--episodes", "1"), ("train", "--from", run, "--run-dir", tmp_path / "next")):
        assert main([*map(str, words), *(("--no-progress",) if words[0] == "train" else ())]) == 0, words
    assert main(["export", "--run", str(run), "--format", "sb3", "--out", str(tmp_path / "agent.zip")]) == 0
    agent: Any = AGENTS[algo].agent.load(tmp_path / "agent.zip")
    assert (agent.n_steps, agent.num_timesteps) == (int(flags[1]), 64)


@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf"])
def test_a_budget_by_momentum_needs_an_optimizer_with_one(
    optimizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--topology.method", "snfs", "--agent.optimizer", optimizer)
    assert train(tmp_path / "run", "ds_a2c", *flags) == 2
    assert "needs an optimizer that gathers one, and this RMSprop" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "run", "ds_a2c", *flags[:-1], "adam") == 0
