"""`sparserl train --resume DIR --total-steps N`: a finished run goes on as one of N steps from the start would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from support.killed import Killed
from support.runs import ALGOS, FAST, fingerprint, same_run, train

from sparserl.cli import main
from sparserl.experiment import open_run
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

STEADY = ("--topology.method", "set", "--topology.density", "0.4", "--topology.update-interval", "20")
OFF_POLICY = (*FAST, "--eval.episodes", "1", "--topology-snapshots", "1")
KINDS = {
    "set": (*OFF_POLICY, "--agent.buffer-size", "50", "--algo", "ds_td3", *STEADY),  # the buffer wraps
    "dense": (*OFF_POLICY, *ALGOS["sac"]),
    "wrapped": (*OFF_POLICY, *ALGOS["ds_sac"], *STEADY, "--topology.gradient-batches", "1"),
    "rollouts": (
        *("--env", "Tiny-v0", "--eval.every-steps", "50", "--log-every-steps", "25", "--topology-snapshots", "1"),
        *("--algo", "ppo", "--agent.n-steps", "10"),
    ),
}


def extend(run: Path, steps: int, *words: str) -> int:
    return main(["train", "--resume", str(run), "--total-steps", str(steps), "--no-progress", *words])


def start(folder: Path, kind: str, steps: int, *more: str) -> int:
    words = (*KINDS[kind], *more, "--total-steps", str(steps), "--run-dir", str(folder), "--no-progress")
    small = ("--agent.net-arch", "12", "12", "--agent.batch-size", "10")
    return main(["train", *words, *small])


@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_run_is_one_of_that_length(kind: str, tmp_path: Path) -> None:
    grown, straight = tmp_path / "grown", tmp_path / "straight"
    assert start(grown, kind, 100) == 0
    assert start(straight, kind, 200) == 0
    assert extend(grown, 200) == 0
    same_run(grown, straight)
    assert (grown / "config.yaml").read_text() == (straight / "config.yaml").read_text()
    last = (grown / "command.txt").read_text().splitlines()[-1]
    assert last == f"sparserl train --resume {grown} --total-steps 200"
    assert open_run(grown).result["steps"] == 200  # type: ignore[index]  # it is finished


def test_a_run_that_ended_between_two_evaluations_learns_the_same(tmp_path: Path) -> None:
    """Its logs keep the evaluation at its former end."""
    grown, straight = tmp_path / "grown", tmp_path / "straight"
    assert start(grown, "set", 70) == 0
    assert start(straight, "set", 160) == 0
    assert extend(grown, 130) == 0
    assert open_run(grown).resume(total_steps=160).step == 160
    states = [checkpoint.load(path / "checkpoints" / "final")["modules"]["policy"] for path in (grown, straight)]
    assert states[0].keys() == states[1].keys()
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[0])
    assert len((grown / "command.txt").read_text().splitlines()) == 3


def test_an_extension_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, straight = tmp_path / "grown", tmp_path / "straight"
    assert start(grown, "set", 100) == 0
    assert start(straight, "set", 200) == 0
    for moment in ("write_atomically", "remove"):  # within `RunFolder.extend`, and at the next checkpoint
        with monkeypatch.context() as patch:

            def die(*args: object) -> None:
                raise Killed

            if moment == "write_atomically":
                patch.setattr(f"sparserl.recording.run_folder.{moment}", die)
            else:
                patch.setattr(checkpoint, moment, die)
            with pytest.raises(Killed):
                extend(grown, 200)
        assert not (grown / "DONE").exists()
        assert not (grown / "result.json").exists()
    assert open_run(grown).step in (120, 150)  # the final policy of before is not taken for the last one
    assert main(["train", "--resume", str(grown), "--no-progress"]) == 0
    same_run(grown, straight)


@pytest.mark.parametrize(
    ("more", "steps", "message"),
    [
        ((), 100, "--total-steps 100 must be above the 100 of the run"),
        (("--topology.method", "rigl"), 200, "topology method 'rigl' has a schedule over all of its updates"),
        (("--lr-schedule", "cosine"), 200, "agent.learning_rate_schedule is over all of its steps"),
        (("--no-keep-replay",), 200, "cannot go beyond its end: what --keep-replay keeps is not there"),
    ],
)
def test_what_cannot_be_extended_is_refused_and_left_as_it_is(
    more: tuple[str, ...], steps: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert start(run, "set", 100, *more) == 0
    has_replay = any((run / "replay").glob("*"))
    assert has_replay == (not more)  # what cannot be used is not kept
    before = fingerprint(run)
    capsys.readouterr()
    assert extend(run, steps) == 2
    assert message in capsys.readouterr().err
    assert fingerprint(run) == before


def test_exploration_over_a_share_of_the_run_is_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train --algo dqn --env CartPole-v1 --agent.learning-starts 20 --total-steps 60 --no-progress"
    falling = ("--agent.exploration-initial-eps", "0.5", "--eval.episodes", "1")
    assert main([*words.split(), *falling, "--run-dir", str(tmp_path / "run")]) == 0
    assert extend(tmp_path / "run", 90) == 2
    assert "agent.exploration_fraction is over all of its steps" in capsys.readouterr().err


def test_an_edited_length_is_no_way_around_a_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    pruned = ("--algo", "ds_ppo", "--topology.method", "rigl", "--topology.density", "0.4")
    assert start(run, "rollouts", 130, *pruned, "--checkpoint-every-steps", "50") == 0
    shutil.rmtree(run / "checkpoints" / "final")
    (run / "DONE").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "total_steps": 200}, sort_keys=False))
    assert RunFolder(run).is_done is False
    assert main(["train", "--resume", str(run), "--no-progress"]) == 2
    assert "has a schedule over all of its updates" in capsys.readouterr().err


def test_other_commands_extend_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", *FAST, *ALGOS["td3"]) == 0
    assert main(["continual", "--resume", str(tmp_path / "run"), "--total-steps", "200"]) == 2
    assert "takes no --total-steps" in capsys.readouterr().err
