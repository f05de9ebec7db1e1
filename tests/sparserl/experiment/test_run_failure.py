"""A run that has a folder and goes wrong: before it learns, while it learns, and when it writes its result."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.runs import FAST, train

from sparserl.cli import main
from sparserl.experiment.run_failure import TRACEBACK_FILE
from sparserl.recording.run_folder import RunFolder

TINY_TD3 = (*FAST, "--algo", "td3", "--total-steps", "60", "--eval.every-steps", "60")


def broken(error: BaseException) -> Callable[..., Any]:
    def fails(*args: object, **options: object) -> Any:
        raise error

    return fails


def interrupted(*args: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("tiny_env")
@pytest.mark.parametrize(
    "what", ["sparserl.experiment.agent_training.AgentTraining.draw", "sparserl.recording.run_folder.RunFolder.finish"]
)
def test_a_run_that_cannot_write_its_result_says_how_to_go_on(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(what, broken(OSError(28, "No space left on device")))
        assert train(run, *TINY_TD3) == 1
    said = capsys.readouterr().err
    assert said.startswith("sparserl: the run failed (OSError: [Errno 28] No space left on device), see error.txt in ")
    assert said.count("\n") == 1
    assert "raise error" in (run / TRACEBACK_FILE).read_text()
    if not RunFolder(run).is_done:
        assert said.endswith(f"continue with: sparserl train --resume {run}\n")
        assert main(["train", "--resume", str(run), "--no-progress"]) == 0
        assert (run / "plot.png").exists()


@pytest.mark.usefixtures("tiny_env")
def test_a_failure_that_cannot_be_written_is_said_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sparserl.agents.run_recorder.RunRecorder.result", broken(RuntimeError("x\n" * 10_000)))
    monkeypatch.setattr(Path, "write_bytes", broken(OSError(28, "No space left on device")))
    assert train(tmp_path / "run", *TINY_TD3) == 1
    said = capsys.readouterr().err
    assert said.startswith("sparserl: the run failed (RuntimeError: x x")
    assert TRACEBACK_FILE not in said
    assert len(said) < 320


@pytest.mark.usefixtures("tiny_env")
def test_a_fault_before_learning_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("sparserl.experiment.training.trackers", broken(KeyError("project")))
    assert train(run, *TINY_TD3) == 1
    assert capsys.readouterr().err == (
        "sparserl: the run failed (KeyError: 'project'), see error.txt in its folder; "
        f"{run} has no checkpoint yet, so it cannot be resumed\n"
    )
    assert (run / TRACEBACK_FILE).exists()


@pytest.mark.usefixtures("tiny_env")
def test_ctrl_c_before_learning_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sparserl.experiment.training.trackers", interrupted)
    assert train(tmp_path / "run", *TINY_TD3) == 130
    assert capsys.readouterr().err == "sparserl: interrupted\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tiny_env")
def test_ctrl_c_while_the_result_is_written_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sparserl.recording.run_folder.RunFolder.finish", interrupted)
    assert train(tmp_path / "run", *TINY_TD3) == 130
    how = f"continue with: sparserl train --resume {tmp_path / 'run'}"
    assert capsys.readouterr().err == f"sparserl: stopped at once; {how}\n"


@pytest.mark.usefixtures("tiny_env")
def test_a_tracker_that_cannot_end_leaves_no_other_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending:
        ended: ClassVar[list[str]] = []

        def __init__(self, name: str):
            self.name = name

        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            pass

        def close(self, summary: Mapping[str, Any]) -> None:
            self.ended.append(self.name)
            if self.name == "first":
                raise OSError(28, "No space left on device")

    given = [Ending("first"), Ending("second")]
    monkeypatch.setattr("sparserl.experiment.training.trackers", lambda *args, **options: given)
    assert train(tmp_path / "run", *TINY_TD3) == 1
    assert Ending.ended == ["first", "second"]
