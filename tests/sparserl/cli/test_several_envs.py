"""`sparserl train` with several environments and with updates in rounds: it resumes, counts and seeds like one env."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from support.envs import FunctionEnv
from support.killed import Killed
from support.runs import FAST, REWIRE, last_state, leave_undrawn, rows, same_run, train

from sparserl.agents.collection import LeanVecEnv
from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.envs import wrapper_state
from sparserl.experiment.agent_training import AgentTraining
from sparserl.experiment.resolving import resolve
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.training import Source
from sparserl.recording import checkpoint

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

ROUNDS = ("--n-envs", "3", "--agent.train-freq", "2", "--agent.gradient-steps", "-1")
"""Six env steps, then six updates."""
WRAPPED = (
    *("--wrappers.noise-fraction", "0.5", "--wrappers.permute", "--wrappers.normalize-observations", "running"),
    *("--wrappers.sensor-dropout", "0.1"),
)
ALGOS = {
    "ds_td3": ("--algo", "ds_td3", *REWIRE, *WRAPPED),
    "td3": ("--algo", "td3", "--agent.n-steps", "3"),
    "ds_sac": ("--algo", "ds_sac", "--topology.method", "gmp", "--topology.density", "0.3", *REWIRE),
    "sac": (
        *("--algo", "sac", "--agent.dynamic-capacity", "--agent.forget-interval-steps", "20"),
        *("--agent.forget-threshold", "0.0", "--agent.forget-minimum", "30"),
    ),
}
SMALL = (*FAST, *ROUNDS, "--agent.buffer-size", "50", "--eval.episodes", "1")  # 48 transitions: the buffer wraps


def steps_of(log: Path) -> list[int]:
    return sorted({int(row["global_step"]) for row in rows(log)})


def newest(run: Path) -> dict[str, Any]:
    """The newest full checkpoint."""
    return checkpoint.load(sorted((run / "checkpoints").glob("step-*"))[-1])


def killed_at(call: int, monkeypatch: pytest.MonkeyPatch, run: Path, *flags: str, env: Any = FunctionEnv) -> None:
    """Trains until environments of a class have begun that many steps, those of evaluations too."""
    original, count = env.step, [0]

    def step(self: Any, action: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            raise Killed
        return original(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(env, "step", step)
        with pytest.raises(Killed):
            train(run, *flags)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_undrawn(patch)
            for algo, own in ALGOS.items():
                assert train(folder / algo, *SMALL, *own) == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return {algo: folder / algo for algo in ALGOS}


# After evaluations at steps 0 and 54, in the step of the third environment in a round, and of the first one.
@pytest.mark.parametrize(("algo", "call"), [*((algo, 2 * 17 + 75) for algo in ALGOS), ("ds_td3", 2 * 17 + 97)])
def test_a_killed_run_that_goes_on_ends_like_one_that_was_not(
    algo: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Path]
) -> None:
    killed_at(call, monkeypatch, tmp_path / "run", *SMALL, *ALGOS[algo])
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    same_run(whole[algo], tmp_path / "run")


def test_a_run_killed_when_all_is_learned_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*SMALL, *ALGOS["ds_td3"], "--checkpoint-every-steps", "132")
    assert train(tmp_path / "whole", *flags) == 0
    with monkeypatch.context() as patch:
        patch.setattr("sparserl.recording.run_folder.RunFolder.finish", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(tmp_path / "run", *flags)
    assert (tmp_path / "run" / "checkpoints" / "step-000000132").is_dir()  # beyond the 130 that were asked for
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    same_run(tmp_path / "whole", tmp_path / "run")


def test_what_is_due_happens_once_at_the_first_round_that_reaches_it(whole: dict[str, Path]) -> None:
    run = whole["ds_td3"]  # asked for 130 steps, in rounds of 6
    assert steps_of(run / "eval.csv") == [0, 54, 102, 132]
    assert steps_of(run / "progress.csv") == [30, 54, 78, 102, 126, 132]
    assert len(rows(run / "eval.csv")) == 4
    assert {path.name for path in (run / "checkpoints").iterdir()} >= {"step-000000090", "step-000000120"}


@pytest.mark.parametrize("algo", ALGOS)
def test_the_result_counts_steps_and_updates_of_all(algo: str, whole: dict[str, Path]) -> None:
    run = whole[algo]
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 132
    assert result["steps_per_second"] == pytest.approx(132 / result["wall_s"], rel=0.01)
    last = rows(run / "progress.csv")[-1]
    assert float(last["train/n_updates"]) == 132 - 36  # learning starts at 40, after the round that ends at 42
    assert float(last["cost/flops_train"]) == result["flops_train"] > 0
    state = checkpoint.load(run / "checkpoints" / "step-000000120")
    assert (state["replay"]["added"], len(state["env"]), tuple(state["last_obs"].shape)[:1]) == (40, 3, (3,))


def test_a_policy_that_learned_in_several_acts_in_one(
    whole: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = whole["ds_td3"]  # with the running statistics of all of them
    capsys.readouterr()
    words = ["--run", str(run), "--checkpoint", "last", "--episodes", "1", "--seed", "100", "--json"]
    assert main(["eval", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["return_mean"] == pytest.approx(float(rows(run / "eval.csv")[-1]["return"]), rel=1e-9)


def test_every_environment_has_a_seed_of_its_own() -> None:
    config = read("train", [*SMALL, *ALGOS["ds_td3"], "--agent.net-arch", "8", "--seed", "5"]).config
    agent: Any = config.make_agent(config.make_envs())
    first = agent.env.reset()
    for place, env in enumerate(agent.env.envs):
        alone = config.make_env()
        alone.reset(seed=5 + place)
        assert alone.unwrapped.state.tolist() == env.unwrapped.state.tolist()
    assert len(np.unique(first, axis=0)) == 3


def test_environments_share_their_running_statistics() -> None:
    config = read("train", [*SMALL, "--wrappers.normalize-observations", "running"]).config
    envs = config.make_envs()
    envs.seed(0)
    envs.reset()
    envs.step(np.zeros((3, 2), np.float32))
    assert {round(env.get_wrapper_attr("obs_rms").count, 2) for env in envs.envs} == {6.0}


@pytest.mark.parametrize(
    ("flags", "updates", "last"),
    [
        ((), 90, 130),
        (("--n-envs", "3"), 31, 132),  # one after each round that ends at 42, 45, ..., 132
        (("--agent.train-freq", "7"), 14, 133),
        (("--agent.gradient-steps", "4"), 360, 130),
        (("--agent.gradient-steps", "-1"), 90, 130),
        (ROUNDS, 96, 132),
        (("--n-envs", "2", "--agent.train-freq", "25", "--agent.gradient-steps", "3"), 9, 150),
        (("--n-envs", "2", "--agent.learning-starts", "0"), 65, 130),
    ],
)
def test_the_config_knows_how_many_updates_there_are(flags: tuple[str, ...], updates: int, last: int) -> None:
    words = [*FAST, "--agent.net-arch", "8", "8", "--agent.batch-size", "4", "--agent.buffer-size", "200", *flags]
    config = read("train", [*words, "--topology.method", "gmp"]).config
    agent: Any = config.make_agent(config.make_envs())
    agent.learn(config.total_steps)
    assert (agent._n_updates, agent.num_timesteps) == (config.total_updates, config.last_step) == (updates, last)
    assert agent.evolver.rule.last_update == round(0.8 * updates)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n-envs", "0"), "--n-envs must be in [1, 100], got 0"),
        (("--n-envs", "101"), "--n-envs must be in [1, 100], got 101"),
        (("--agent.train-freq", "0"), "agent.train_freq must be at least 1, got 0"),
        (("--agent.gradient-steps", "0"), "agent.gradient_steps must be at least 1, or -1 for one update per tra"),
        (("--agent.gradient-steps", "-2"), "agent.gradient_steps must be at least -1, got -2"),
        (
            ("--n-envs", "3", "--agent.learning-starts", "132"),
            "the run ends at step 132, before learning starts at 132; lower --agent.learning-starts",
        ),
        (("--n-envs", "2", "--agent.buffer-size", "1"), "--agent.buffer-size 1 holds no transition of each environm"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *FAST, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_env_without_a_state_starts_new_episodes_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pendulum = tmp_path / "run", type(gym.make("Pendulum-v1").unwrapped)
    flags = (*SMALL, "--wrappers.normalize-observations", "running", "--env", "Pendulum-v1", "--total-steps", "80")
    killed_at(2 * 200 + 65, monkeypatch, run, *flags, env=pendulum)  # after the evaluations at steps 0 and 54
    state = newest(run)
    assert (state["global_step"], state["env"]) == (60, [None] * 3)
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    assert "the environment cannot give its state" in capsys.readouterr().out
    count = json.loads((run / "normalization.json").read_text())["count"]
    # 24 steps are left, and each environment begins an episode, which does not end.
    assert count == pytest.approx(state["wrappers"]["normalized_observations"]["count"] + 24 + 3)


def test_a_checkpoint_of_another_number_of_environments_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(2 * 17 + 75, monkeypatch, tmp_path / "run", *SMALL)
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("n_envs: 3", "n_envs: 2"))
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 2
    assert "its config differs from config.yaml" in capsys.readouterr().err
    edited = {**newest(tmp_path / "run"), "run": yaml.safe_load(path.read_text())}
    checkpoint.save(tmp_path / "run" / "checkpoints" / "step-000000060", edited)
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 2
    assert "safetensors holds no 'observations' of this run's replay buffer" in capsys.readouterr().err


def older(node: Any) -> Any:
    """A config as it was written before there were several environments."""
    if not isinstance(node, dict):
        return node
    new = ("n_envs", "train_freq", "gradient_steps")
    return {key: older(value) for key, value in node.items() if key not in new}


def without_new_options(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(older(yaml.safe_load(path.read_text())), sort_keys=False))
    for one in (run / "checkpoints").glob("step-*"):
        state = checkpoint.load(one)
        checkpoint.save(one, {**state, "run": older(state["run"])})


def test_a_run_from_before_these_options_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    run, finished_copy = tmp_path / "run", tmp_path / "finished"
    shutil.copytree(finished, finished_copy)
    killed_at(2 * 34 + 100, monkeypatch, run, *FAST, *REWIRE)
    without_new_options(run)
    assert "n_envs" not in (run / "config.yaml").read_text()
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    without_new_options(finished_copy)
    same_run(finished_copy, run)


def test_a_dry_run_prints_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", *ROUNDS, "--env", "Tiny-v0"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["n_envs"], printed["agent"]["train_freq"], printed["agent"]["gradient_steps"]) == (3, 2, -1)
    assert TrainConfig().n_envs == TrainConfig().agent.train_freq == TrainConfig().agent.gradient_steps == 1


@pytest.mark.parametrize("algo", ["ds_td3", "td3", "ds_ppo"])
def test_environments_copy_no_more_than_they_must(algo: str) -> None:
    assert type(resolve("train", {"algo": algo, "env": "Tiny-v0", "n_envs": 2}).make_envs()) is LeanVecEnv


def test_networks_of_permuted_features_are_taken_over_in_all_environments(tmp_path: Path) -> None:
    assert train(tmp_path / "run", *FAST, "--wrappers.permute") == 0
    config = resolve("train", {"origin": {"run": str(tmp_path / "run")}, "seed": 5, "n_envs": 3})
    taken = [wrapper_state(env) for env in AgentTraining.begin(config, Source()).envs]
    learned, drawn = last_state(tmp_path / "run")["wrappers"], wrapper_state(config.make_env())
    orders = [state["permuted_features"]["permutation"].tolist() for state in (*taken, learned, drawn)]
    assert orders[:3] == [orders[3]] * 3
    assert orders[3] != orders[4]
