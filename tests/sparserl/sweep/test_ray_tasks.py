"""What a task of a Ray cluster does on its node, without a cluster: trains a run, sends it, or leaves it to another."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import yaml
from support import stand_in
from support.ray_nodes import SWEEP, runs, until
from support.runs import fingerprint

from sparserl import __version__
from sparserl.errors import SparserlError
from sparserl.recording import run_lock
from sparserl.sweep import process as job_process
from sparserl.sweep.file import load_jobs
from sparserl.sweep.pool import JobState, states_of
from sparserl.sweep.process import TakenError, alone

ray = pytest.importorskip("ray")
from ray.exceptions import NodeDiedError, RayTaskError  # noqa: E402

from sparserl.sweep import ray as sweep_ray  # noqa: E402  (it needs ray)
from sparserl.sweep.ray import Request, Result  # noqa: E402


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[JobState]:
    """Two runs that a script pretends to train; the second one fails."""
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    monkeypatch.setattr(job_process, "COMMAND", stand_in.COMMAND)
    monkeypatch.setenv(stand_in.ORDER, "fail s5")
    return states_of(load_jobs(file), tmp_path / "runs")


class Progress:
    """One that needs no cluster."""

    def __init__(self) -> None:
        self.post = self
        self.steps: list[int] = []

    def remote(self, id: str, step: int) -> None:
        self.steps.append(step)


def test_of_what_went_wrong_a_line_is_said(states: list[JobState], monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in {
        RayTaskError("task", "", SparserlError("no such thing")): "no such thing",
        RayTaskError("task", "", ValueError("unforeseen\nand more")): "unforeseen",
        NodeDiedError("the node died\n\nlogs"): "the node died",
        TakenError(): "another process is training it",
    }.items():
        monkeypatch.setattr(ray, "get", Mock(side_effect=error))
        sweep_ray._end(states[0], None)
        assert (states[0].status, states[0].error) == ("failed", said)


def test_a_finished_run_is_sent_and_of_a_failed_one_the_log(states: list[JobState]) -> None:
    out, progress = states[0].path.parent, Progress()
    results = [sweep_ray._carry_out(Request(state.job, __version__), progress) for state in states]
    assert [result.failure for result in results] == ["", "sparserl: it broke"]
    assert progress.steps[0] == 0
    assert not out.exists()
    for state, result in zip(states, results, strict=True):
        assert result.files is not None
        sweep_ray._unpack(result.files, state)
    assert sorted(path.name for path in out.iterdir()) == sorted([runs(out)[0], states[0].log.name, states[1].log.name])
    assert {path.name for path in states[0].path.iterdir()} == {"DONE", "checkpoints", "progress.csv", "result.json"}
    assert [state.log.read_text() for state in states] == ["trained\n", "first\nsparserl: it broke\n"]


def test_names_of_files_begin_where_the_sweep_was_started(
    states: list[JobState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node that sees that folder."""
    begun, popen = [], job_process.subprocess.Popen

    def watched(*words: Any, **how: Any) -> Any:
        begun.append(how["cwd"])
        return popen(*words, **how)

    monkeypatch.setattr(job_process.subprocess, "Popen", watched)
    alive, state = tmp_path / "alive", states[0]
    alive.touch()
    for cwd in (tmp_path, tmp_path / "elsewhere"):
        request = Request(state.job, __version__, state.path.with_name(f"{len(begun)}"), alive, cwd)
        state.path.parent.mkdir(exist_ok=True)
        assert sweep_ray._carry_out(request, Progress()) == Result()
    assert begun == [tmp_path, None]


def test_what_is_sent_disturbs_no_run_that_is_trained_here(states: list[JobState]) -> None:
    state = states[0]
    files = sweep_ray._carry_out(Request(state.job, __version__), Progress()).files
    assert files is not None
    with alone(state.path), pytest.raises(TakenError):
        sweep_ray._unpack(files, state)
    assert not state.path.exists()
    # Cut off here, and finished there: that counts. Finished here meanwhile: this does.
    state.path.mkdir()
    (state.path / "begun").touch()
    sweep_ray._unpack(files, state)
    assert not (state.path / "begun").exists()
    (state.path / "of here").touch()
    sweep_ray._unpack(files, state)
    assert (state.path / "of here").exists()


def test_a_task_that_is_given_twice_trains_once(states: list[JobState], tmp_path: Path) -> None:
    state = states[0]
    request = Request(state.job, __version__, state.path)
    assert sweep_ray._carry_out(request, Progress()) == Result()
    before = fingerprint(tmp_path)
    assert sweep_ray._carry_out(request, Progress()) == Result(was_done=True)
    assert fingerprint(tmp_path) == before


def test_a_task_whose_run_another_machine_took_over_ends_and_waits_for_that(
    states: list[JobState], monkeypatch: pytest.MonkeyPatch
) -> None:
    touches: list[int] = []
    is_gone = threading.Event()

    def touched(path: Path) -> int:
        if not is_gone.is_set():
            touches.append(len(touches))
        return len(touches)

    monkeypatch.setattr(run_lock, "_touched", touched)
    monkeypatch.setattr(run_lock, "LEASE_S", 0.5)
    monkeypatch.setattr(sweep_ray, "BEAT_S", 0.05)
    state = states[0]
    out, lock = state.path.parent, state.path / run_lock.LOCK
    out.mkdir()
    stand_in.give_order(out, "wait")
    results: list[Result] = []
    request = Request(state.job, __version__, state.path)
    before = set(psutil.Process().children())
    task = threading.Thread(target=lambda: results.append(sweep_ray._carry_out(request, Progress())))
    task.start()
    until((state.path / "progress.csv").exists, "the run has begun")
    (process,) = set(psutil.Process().children()) - before
    other = asdict(replace(run_lock.Holder.here(), host="elsewhere", boot="another start"))
    lock.write_text(json.dumps(other))
    until(lambda: not process.is_running(), "the process has ended")
    stand_in.give_order(out)
    until(lambda: len(touches) > 6, "the task has seen several times that the other one lives")
    assert len(stand_in.calls(out)) == 1
    assert json.loads(lock.read_text()) == other
    is_gone.set()
    task.join()
    assert results == [Result()]
    assert [call[0] for call in stand_in.calls(out)] == ["begin", "go_on"]


def test_a_task_whose_run_another_machine_has_finished_meanwhile_ends(
    states: list[JobState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_process, "END_S", 0.2)
    out = states[0].path.parent
    out.mkdir()
    stand_in.give_order(out, "wait")
    finish = threading.Thread(
        target=lambda: (
            until((states[0].path / "progress.csv").exists, "the run has begun"),
            (states[0].path / "DONE").touch(),
        )
    )
    finish.start()
    request = Request(states[0].job, __version__, states[0].path)
    assert sweep_ray._carry_out(request, Progress()) == Result(was_done=True)
    finish.join()
    assert len(stand_in.calls(out)) == 1
    assert "trained" not in states[0].log.read_text()


def test_a_node_refuses_what_it_cannot_do(states: list[JobState], tmp_path: Path) -> None:
    state = states[0]
    with pytest.raises(SparserlError, match=f"has sparserl {__version__}, not 9$"):
        sweep_ray._carry_out(Request(state.job, "9"), Progress())
    request = Request(state.job, __version__, state.path, alive_file=tmp_path / "elsewhere")
    with pytest.raises(SparserlError, match=r"does not see .*/runs; --no-shared-files has the runs sent"):
        sweep_ray._carry_out(request, Progress())
    assert not state.path.parent.exists()
