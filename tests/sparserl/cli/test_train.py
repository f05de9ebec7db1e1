"""`sparserl train`: what a run leaves, and that it repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.runs import FAST, REWIRE, rows, same_run, train
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.recording import checkpoint
from sparserl.topology import evolver

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

SECTION_3 = {
    *("algo", "env", "seed", "steps", "wall_s", "steps_per_second", "return_last", "return_last10", "params_nonzero"),
    *("params_dense", "density", "flops_train", "topology_events", "explored_fraction"),
}
"""Keys of result.json that design.md (section 3) promises."""


def test_a_run_leaves_its_files(finished: Path) -> None:
    expected = {
        "config.yaml",
        "command.txt",
        "versions.json",
        "eval.csv",
        "progress.csv",
        "topology.csv",
        "learning.csv",
        "result.json",
        "DONE",
        "plot.png",
    }
    assert expected == {path.name for path in finished.iterdir() if path.is_file()}
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {
        "best",
        "final",
        "step-000000090",
        "step-000000120",
    }
    assert list((finished / "replay").iterdir()) == []  # a finished run is not continued
    assert {path.name for path in (finished / "topology").iterdir()} >= {
        "step-000000000.safetensors",
        "step-000000043.safetensors",
    }
    assert (finished / "command.txt").read_text().startswith("sparserl train --agent.net-arch 12 12")


def test_the_logs_have_their_columns_and_rows(finished: Path) -> None:
    evaluation = rows(finished / "eval.csv")
    assert list(evaluation[0]) == ["global_step", "episode", "return", "length", "cut_off"]
    steps = [(int(row["global_step"]), int(row["episode"])) for row in evaluation]
    assert steps == [(step, episode) for step in (0, 50, 100, 130) for episode in (0, 1)]
    assert {row["length"] for row in evaluation} == {"17"}
    progress = rows(finished / "progress.csv")
    assert [int(row["global_step"]) for row in progress] == [25, 50, 75, 100, 125, 130]
    assert progress[0]["train/critic_loss"] == ""
    assert all(float(row["train/critic_loss"]) > 0 for row in progress[1:])
    assert int(float(progress[-1]["train/n_updates"])) == 90
    topology = rows(finished / "topology.csv")
    events = [(int(row["update"]), row["kind"]) for row in topology if row["layer"] == "critic.qf0.1"]
    assert events == [(0, "initial"), (2, "rewire"), (22, "rewire"), (42, "rewire"), (62, "rewire"), (82, "rewire")]
    assert all(
        int(row["global_step"]) == (int(row["update"]) + 40 if row["kind"] != "initial" else 0) for row in topology
    )


def test_the_result_has_its_keys(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert set(result) >= SECTION_3
    assert (result["algo"], result["env"], result["seed"], result["steps"]) == ("ds_td3", "Tiny-v0", 0, 130)
    means = [
        np.mean([float(row["return"]) for row in rows(finished / "eval.csv") if row["global_step"] == step])
        for step in ("0", "50", "100", "130")
    ]
    assert result["return_last"] == pytest.approx(means[-1])
    assert result["return_last10"] == pytest.approx(np.mean(means[1:]))  # nothing is learned at step 0
    assert result["return_last10_n"] == 3
    assert result["topology_events"] == 5
    assert 0.5 < result["explored_fraction"] < 1
    best = checkpoint.load(finished / "checkpoints" / "best")
    assert best["global_step"] == [0, 50, 100, 130][int(np.argmax(means))]


def test_the_same_seed_repeats_and_another_does_not(finished: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "again", *FAST, *REWIRE) == 0
    same_run(finished, tmp_path / "again")
    assert train(tmp_path / "other", *FAST, *REWIRE, "--seed", "1") == 0
    assert rows(finished / "eval.csv") != rows(tmp_path / "other" / "eval.csv")


def test_the_config_of_a_run_repeats_it(finished: Path, tmp_path: Path) -> None:
    words = ["train", "--config", str(finished / "config.yaml"), "--no-progress", "--run-dir", str(tmp_path / "again")]
    assert main(words) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    same_run(finished, tmp_path / "again")


def test_recording_does_not_change_what_is_learned(finished: Path, tmp_path: Path) -> None:
    often = ("--eval.every-steps", "7", "--log-every-steps", "3", "--checkpoint-every-steps", "13", "--tensorboard")
    assert train(tmp_path / "often", *FAST, *REWIRE, *often) == 0
    assert_equal_trees(
        [row for row in rows(finished / "eval.csv") if row["global_step"] == "130"],
        [row for row in rows(tmp_path / "often" / "eval.csv") if row["global_step"] == "130"],
    )
    assert rows(finished / "topology.csv") == rows(tmp_path / "often" / "topology.csv")
    assert list((tmp_path / "often" / "tensorboard").iterdir())


def test_growing_by_gradient_is_charged_where_something_grew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    charged: list[int] = []
    monkeypatch.setattr(evolver, "count", charged.append)
    flags = ("--topology.method", "rigl", "--topology.density", "0.5", "--topology.shrink-at-end", "True")
    assert train(tmp_path / "run", *FAST, *REWIRE, *flags) == 0
    kinds = [row["kind"] for row in rows(tmp_path / "run" / "topology.csv")]
    assert kinds.count("shrink") > 0
    assert len(charged) == kinds.count("rewire") > 0
    assert min(charged) > 0
