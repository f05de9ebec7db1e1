"""`sparserl card`: a folder that says what a run is, is itself a run, and names no place on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import safetensors.numpy
import yaml
from support.cut_runs import KINDS, command, cut_off
from support.envs import FunctionEnv
from support.runs import leave_undrawn, rows, train

from sparserl.cli import main
from sparserl.experiment import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        for kind in KINDS:
            assert main(command(kind, folder / kind)) == 0
    yield folder
    gym.registry.pop("Tiny-v0")


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_of_a_card_is_a_run_that_names_no_place(kind: str, runs: Path, tmp_path: Path) -> None:
    card = tmp_path / "card"
    assert main(["card", str(runs / kind), "--out", str(card)]) == 0
    front = yaml.safe_load((card / "README.md").read_text().split("---\n")[1])
    assert front["library_name"] == "sparserl"
    assert f" on {open_run(runs / kind, 'last').config.task_label}\n" in (card / "README.md").read_text()
    for file in card.rglob("*"):
        if file.is_file() and file.suffix not in (".safetensors", ".png"):
            assert str(runs) not in file.read_text(), file
    assert open_run(card, "last").evaluate(2) == open_run(runs / kind, "last").evaluate(2)
    names = {file.name for file in card.iterdir()}
    assert names >= {"README.md", "config.yaml", "result.json", "versions.json", "eval.csv", "checkpoints", "DONE"}
    assert ("policy.safetensors" in names) == (kind == "agent")
    assert ("policy_1.h" in names) == (kind == "agent on tasks")


def test_the_policy_and_its_returns(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(runs / "agent")]) == 0
    card = runs / "agent" / "card"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(card / "README.md")
    assert {Path(line) for line in said} == {file for file in card.rglob("*") if file.is_file()}
    policy = safetensors.numpy.load_file(card / "policy.safetensors")
    assert "layer0.row_ptr" in policy
    assert "void policy(const float *observation, float *action)" in (card / "policy.h").read_text()
    (last,) = [row for row in rows(runs / "agent" / "eval.csv") if row["global_step"] == "130"]
    assert f"| mean return of 1 evaluation episode | {float(last['return']):.3g} |" in (card / "README.md").read_text()
    assert main(["card", str(runs / "agent")]) == 2
    assert "card exists; delete it, or choose another --out" in capsys.readouterr().err


def test_the_best_checkpoint_says_that_it_was_chosen(runs: Path, tmp_path: Path) -> None:
    assert main(["card", str(runs / "agent"), "--checkpoint", "best", "--out", str(tmp_path / "card")]) == 0
    assert "chosen by these very episodes" in (tmp_path / "card" / "README.md").read_text()
    assert (tmp_path / "card" / "checkpoints" / "best").is_dir()
    assert not (tmp_path / "card" / "checkpoints" / "final").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_begins_with_another_does_not_say_where_that_was(runs: Path, tmp_path: Path) -> None:
    words = ["--from", str(runs / "agent"), "--total-steps", "60", "--eval.episodes", "1"]
    assert train(tmp_path / "later", *words) == 0
    assert main(["card", str(tmp_path / "later"), "--out", str(tmp_path / "card")]) == 0
    assert yaml.safe_load((tmp_path / "card" / "config.yaml").read_text())["origin"]["run"] == "agent"
    assert open_run(tmp_path / "card", "last").evaluate(1)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (lambda runs, here: [str(here)], "is not a run folder"),
        (lambda runs, here: [str(here / "no")], "no run folder at"),
        (lambda runs, here: [str(runs / "agent"), "--out", str(here)], "exists; delete it, or choose another --out"),
        (lambda runs, here: [str(runs / "agent"), "--out", "/proc/none/card"], "cannot "),
        (lambda runs, here: [str(runs / "classifier"), "--checkpoint", "best"], "has no best checkpoint"),
        (lambda runs, here: [str(runs / "agent"), "--checkpoint", "first"], "unknown --checkpoint 'first'"),
    ],
)
def test_bad_wishes_are_one_line(
    wish: Any, message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", *wish(runs, tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("undrawn", "runs")
def test_a_run_that_is_not_finished_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = cut_off("agent", tmp_path / "cut")
    assert main(["card", str(cut)]) == 2
    assert "is not finished, and a card says what a run has reached" in capsys.readouterr().err
    assert not (cut / "card").exists()


@pytest.mark.parametrize(("which", "suffix"), [("best", "_best"), ("last", "")])
def test_a_card_of_a_network_on_a_table_has_the_numbers_of_its_checkpoint(
    which: str, suffix: str, tmp_path: Path, undrawn: None
) -> None:
    words = ("wine", "--learner.epochs", "12", "--learner.learning-rate", "0.02", "--density", "0.3", "--no-progress")
    assert main(["fit", *words, "--run-dir", str(tmp_path / "run")]) == 0
    assert main(["card", str(tmp_path / "run"), "--checkpoint", which, "--out", str(tmp_path / "card")]) == 0
    text = (tmp_path / "card" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    metrics = {one["type"]: one["value"] for one in front["model-index"][0]["results"][0]["metrics"]}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["loss_test"] != result["loss_test_best"]
    assert metrics == {name: result[f"{name}_test{suffix}"] for name in ("accuracy", "loss")}
    assert "episodes" not in text


def test_a_network_that_rebuilds_its_inputs_is_no_classifier(tmp_path: Path, undrawn: None) -> None:
    words = ("wine", "--task", "reconstruct", "--learner.epochs", "2", "--no-progress")
    assert main(["fit", *words, "--run-dir", str(tmp_path / "run")]) == 0
    assert main(["card", str(tmp_path / "run"), "--out", str(tmp_path / "card")]) == 0
    text = (tmp_path / "card" / "README.md").read_text()
    assert "classif" not in text
