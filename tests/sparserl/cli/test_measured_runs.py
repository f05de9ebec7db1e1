"""`--measure-learning`: when it is measured, that the run learns the same, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cut_runs import cut_off
from support.runs import ALGOS, FAST, REWIRE, TINY, last_state, logs, rows, same_run, train
from support.trees import assert_equal_trees

from sparserl.cli import main

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")
ROLLOUTS = ("--env", "Tiny-v0", "--total-steps", "100", "--agent.n-steps", "20", "--eval.every-steps", "40")
SMALL = (*ROLLOUTS, "--agent.net-arch", "12", "--eval.episodes", "1", "--no-progress", "--checkpoint-every-steps", "40")
RIGL = ("--topology.method", "rigl", "--topology.density", "0.4", "--topology.gradient-batches", "3")


@pytest.mark.parametrize("algo", ["ds_sac", "ds_ppo"])
def test_a_measured_run_learns_what_an_unmeasured_one_does(algo: str, tmp_path: Path) -> None:
    for when in ("never", "events", "evaluations"):
        words = [*FAST, *ALGOS["ds_sac"]] if algo == "ds_sac" else ["--algo", "ds_ppo", *RIGL, *REWIRE]
        if algo == "ds_sac":
            assert train(tmp_path / when, *words, "--measure-learning", when) == 0
        else:
            more = (*SMALL, "--agent.batch-size", "10", "--agent.n-epochs", "5")
            run = ["--run-dir", str(tmp_path / when), "--measure-learning", when]
            assert main(["train", *words, *more, *run]) == 0
    states = {when: last_state(tmp_path / when) for when in ("never", "events", "evaluations")}
    for state in states.values():
        state.pop("run")  # the config, which says when
    assert_equal_trees(states["never"], states["events"])
    assert_equal_trees(states["never"], states["evaluations"])
    found = {when: logs(tmp_path / when) for when in states}
    assert "learning" not in found["never"]
    steps = {row["global_step"] for row in found["evaluations"]["eval"]}
    assert {row["global_step"] for row in found["evaluations"]["learning"]} == steps
    rewired = {row["global_step"] for row in found["events"]["topology"] if row["kind"] != "initial"}
    assert {row["global_step"] for row in found["events"]["learning"]} == rewired
    assert len(rewired) > 1
    for of_run in found.values():
        of_run.pop("learning", None)
    assert_equal_trees(found["never"], found["events"])
    assert_equal_trees(found["never"], found["evaluations"])


@pytest.mark.parametrize("when", ["events", "evaluations"])
def test_a_resumed_run_is_measured_where_it_would_have_been(when: str, tmp_path: Path) -> None:
    words = ["--algo", "ds_td3", *FAST, *REWIRE, "--measure-learning", when]
    assert train(tmp_path / "whole", *words) == 0
    cut = cut_off("agent", tmp_path / "cut", ["train", *TINY, *words, "--run-dir", str(tmp_path / "cut")])
    later = rows(cut / "learning.csv")
    assert main(["train", "--resume", str(cut), "--from-step", "90", "--no-progress"]) == 0
    same_run(tmp_path / "whole", cut)
    assert rows(cut / "learning.csv") == later


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--algo ds_td3 --topology.method static", "topology method 'static' has no topology events; use evaluations"),
        ("--algo ds_td3 --topology.method dense", "topology method 'dense' has no topology events"),
        ("--algo td3", "algo 'td3' has no topology events; use evaluations"),
    ],
)
def test_events_that_never_happen_are_refused(
    words: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words.split(), "--measure-learning", "events", "--run-dir", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert f"--measure-learning events: {said}" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()
