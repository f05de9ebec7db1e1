"""NaN and divergence: a run stops where they begin, says so in a line, and its checkpoints stay good."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support.envs import FunctionEnv
from support.runs import ALGOS, FAST, REWIRE, rows, same_run, train

from sparserl.agents import DSTD3
from sparserl.agents.table import AGENTS
from sparserl.cli import main
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.recording import checkpoint

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

EVALUATED = 2 * 34
"""Env steps of the evaluations before step 100."""
Spoil = Callable[[Any], Any]
"""What a step gave -> what it is to give."""


def nan_reward(given: Any) -> Any:
    return given[0], math.nan, *given[2:]


def infinite_observation(given: Any) -> Any:
    return np.where(np.arange(3) == 1, -np.inf, given[0]), *given[1:]


SPOILT: dict[str, tuple[Spoil, int, str]] = {
    "reward": (nan_reward, 77, "reward became nan at step 77"),
    "observation": (infinite_observation, 77, "observation became -inf in 1 of 3 entries at step 77"),
    "observation at the end of an episode": (
        infinite_observation,
        85,
        "observation became -inf in 1 of 3 entries at step 85",
    ),
}


def spoil_steps(patch: pytest.MonkeyPatch, spoil: Spoil, *calls: int) -> None:
    """Spoils what the environment gives at its n-th steps, evaluation included."""
    original, count = FunctionEnv.step, [0]

    def step(self: FunctionEnv, action: Any) -> Any:
        count[0] += 1
        given = original(self, action)
        return spoil(given) if count[0] in calls else given

    patch.setattr(FunctionEnv, "step", step)


def resume(run: Path) -> int:
    return main(["train", "--resume", str(run), "--no-progress"])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("algo", "what"),
    [(algo, what) for algo in ALGOS for what in (SPOILT if algo == "ds_td3" else ["reward"])],
)
def test_what_an_environment_gives_stops_the_run_before_it_is_learned(
    algo: str,
    what: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, step, said = SPOILT[what]
    run, flags = tmp_path / "run", (*FAST, *ALGOS[algo])
    with monkeypatch.context() as patch:
        spoil_steps(patch, spoil, EVALUATED + step)
        assert train(run, *flags) == 1
    assert last_line(capsys) == (
        f"sparserl: {said}; that state is in {run / 'not_finite'}, the last checkpoint before it is step-000000060; "
        "resuming repeats it unless the environment is mended, and other settings need a new run; continue with: "
        f"sparserl train --resume {run}"
    )
    assert not (run / "DONE").exists()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best", "step-000000030", "step-000000060"]
    kept = checkpoint.load(run / "not_finite")
    assert (kept["global_step"], kept["what"]) == (step, said)
    assert all(torch.isfinite(weight).all() for weight in kept["modules"]["policy"].values())
    assert set(kept["seen"]) >= {"actions", "new_obs", "rewards"}
    assert resume(run) == 0  # the environment is mended
    if algo == "ds_td3":
        same_run(finished, run)


def test_before_the_first_checkpoint_there_is_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_steps(monkeypatch, nan_reward, EVALUATED // 2 + 7)
    assert train(tmp_path / "run", *FAST) == 1
    assert last_line(capsys) == (
        f"sparserl: reward became nan at step 7; that state is in {tmp_path / 'run' / 'not_finite'}; "
        f"{tmp_path / 'run'} has no checkpoint yet, so it cannot be resumed"
    )


def spoil_weights(patch: pytest.MonkeyPatch, algo: str, network: str, step: int) -> None:
    """Makes a weight of a network NaN after the gradient update at a step."""
    agent_class = AGENTS[algo].agent
    original = agent_class.train

    def spoilt(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.num_timesteps == step:
            with torch.no_grad():
                next(iter(getattr(self, network).parameters())).view(-1)[0] = math.nan

    patch.setattr(agent_class, "train", spoilt)


@pytest.mark.parametrize(
    ("algo", "network", "step"),
    [*((algo, "critic", 81) for algo in ALGOS), *((algo, "critic_target", 90) for algo in ("ds_td3", "sac"))],
)
def test_weights_that_are_no_numbers_stop_the_run_and_enter_no_checkpoint(
    network: str, step: int, algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run = tmp_path / "run"
    spoil_weights(monkeypatch, algo, network, step)
    assert train(run, *FAST, *ALGOS[algo]) == 1
    said = last_line(capsys)
    if network == "critic":  # seen in the loss of the next update
        assert said.startswith("sparserl: train/")
        assert "_loss became nan at step 82" in said
    else:  # seen before the checkpoint that falls due
        assert said.startswith(f"sparserl: weight policy.{network}.")
        assert "at step 90" in said
    assert not (run / "checkpoints" / "step-000000090").exists()
    assert "the last checkpoint before it is step-000000060" in said


def test_a_gradient_that_no_connection_can_be_chosen_by_is_of_the_same_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--topology.method", "rigl", "--topology.density", "0.5", "--topology.update-interval", "20")
    run, original = tmp_path / "run", DSTD3._critic_loss

    def spoilt(self: DSTD3, q_values: Any, targets: Any) -> Any:
        loss, gradient = original(self, q_values, targets)
        return loss, gradient * (math.nan if self._n_updates == 42 else 1)  # that of an event

    monkeypatch.setattr(DSTD3, "_critic_loss", spoilt)
    assert train(run, *FAST, *flags) == 1
    assert last_line(capsys).startswith(
        "sparserl: the weight gradient holds NaN, so no connection can be chosen by it; that state, of step 82, is in "
        f"{run / 'not_finite'}, the last checkpoint before it is step-000000060; "
    )


def test_an_evaluation_that_is_no_number_hides_no_later_best_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil_steps(patch, nan_reward, 3)  # in the evaluation at step 0
        assert train(run, *FAST, *REWIRE) == 0
    assert (
        "sparserl: the evaluation at step 0 is nan: returns of 1 of 2 episodes are no finite numbers; its policy is "
        "not taken for the best\n"
    ) in capsys.readouterr().err
    means = {
        int(step): np.mean([float(row["return"]) for row in rows(run / "eval.csv") if row["global_step"] == step])
        for step in ("0", "50", "100", "130")
    }
    assert math.isnan(means.pop(0))
    assert checkpoint.load(run / "checkpoints" / "best")["global_step"] == max(means, key=lambda step: means[step])


def test_a_result_that_is_no_number_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil_steps(patch, nan_reward, 3 * 34 + 130 + 1)  # in the last evaluation
        assert train(run, *FAST, *REWIRE) == 0
    result = json.loads((run / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert result["return_last"] is result["return_last10"] is None
    assert result["steps"] == 130


TASKS = {"name": "tiny", "tasks": [{"env": "Tiny-v0", "steps": 45, "name": "a"}, {"env": "Tiny-v0", "steps": 45}]}
SHORT = (
    *("--agent.learning-starts", "15", "--agent.batch-size", "8", "--agent.buffer-size", "200", "--no-progress"),
    *("--agent.net-arch", "12", "12", "--eval.every-steps", "20", "--eval.episodes", "1", "--log-every-steps", "10"),
    *("--checkpoint-every-steps", "20", "--topology.density", "0.5", "--method", "finetune"),
)


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3"])
def test_a_sequence_of_environments_stops_too(algo: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run, file = tmp_path / "run", tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TASKS))
    words = ["continual", "--sequence", str(file), "--algo", algo, *SHORT, "--run-dir", str(run)]
    with monkeypatch.context() as patch:
        spoil_steps(patch, nan_reward, 50 + 2 * 17 + 2 * 2 * 17 * 4)
        assert main(words) == 1
    said = last_line(capsys)
    assert said.startswith(f"sparserl: reward became nan at step 50; that state is in {run / 'not_finite'}, ")
    assert "the last checkpoint before it is step-000000045" in said
    kept = checkpoint.load(run / "not_finite")
    assert (kept["global_step"], kept["learner"]["position"][:2]) == (50, [1, 5])  # 45 before its task
    assert main(["continual", "--resume", str(run), "--no-progress"]) == 0


def test_a_sequence_with_an_evaluation_that_is_no_number_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    run, file = tmp_path / "run", tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TASKS))
    spoil_steps(monkeypatch, nan_reward, 90 + 2 * 17 + 2 * 2 * 17 * 6 + 1)  # after the last task, on the first
    assert main(["continual", "--sequence", str(file), *SHORT, "--run-dir", str(run)]) == 0
    result = json.loads((run / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert result["returns"][1][0] is result["acc"] is None
    assert "acc" in result["undefined"]
    assert sum(row["return"] == "nan" for row in rows(run / "eval.csv")) == 1


@pytest.mark.parametrize("method", ["naive", "spacenet"])
def test_a_classifier_that_diverges_stops(method: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run, original = tmp_path / "run", SupervisedLearner._step

    def diverging(self: SupervisedLearner, batch: Any) -> float:
        loss = original(self, batch)
        return math.inf if self.steps == 28 else loss

    flags = ("--learner.epochs", "2", "--learner.batch-size", "64", "--checkpoint-every-steps", "8", "--no-progress")
    with monkeypatch.context() as patch:
        patch.setattr(SupervisedLearner, "_step", diverging)
        assert main(["continual", *flags, "--method", method, "--run-dir", str(run)]) == 1
    said = last_line(capsys)
    assert said.startswith(f"sparserl: train/loss became inf at step 29; that state is in {run / 'not_finite'}, ")
    assert checkpoint.load(run / "not_finite")["global_step"] == 29
    assert main(["continual", "--resume", str(run), "--no-progress"]) == 0


def test_weights_of_a_classifier_that_are_no_numbers_enter_no_checkpoint(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    original = SupervisedLearner._step

    def diverging(self: SupervisedLearner, batch: Any) -> float:
        loss = original(self, batch)
        if self.steps == 15:  # the next checkpoint is that of step 16
            with torch.no_grad():
                self.network[0].values[3] = math.nan
        return loss

    monkeypatch.setattr(SupervisedLearner, "_step", diverging)
    flags = ("--learner.epochs", "4", "--learner.batch-size", "64", "--checkpoint-every-steps", "8", "--no-progress")
    assert main(["continual", *flags, "--method", "spacenet", "--run-dir", str(tmp_path / "run")]) == 1
    said = last_line(capsys)
    assert said.startswith("sparserl: weight 0.values became nan in 1 of ")
    assert "entries at step 16; " in said
    names = [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")]
    assert "step-000000016" not in names
