"""`sparserl sweep --backend ray` on real nodes of this machine: nodes are lost, sweeps are stopped, nothing is.

Longer than other files, because nodes of one cluster serve all of its tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import yaml
from support import stand_in
from support.runs import ROOT, fingerprint, same_run

from sparserl import __version__
from sparserl.cli import main
from sparserl.errors import SparserlError
from sparserl.recording import run_lock
from sparserl.recording.run_folder import RunFolder, full_checkpoints, step_name
from sparserl.sweep import process as job_process
from sparserl.sweep.file import load_jobs
from sparserl.sweep.pool import JobState, states_of
from sparserl.sweep.process import TakenError, alone

ray = pytest.importorskip("ray")
from ray.exceptions import NodeDiedError, RayTaskError  # noqa: E402

from sparserl.sweep import ray as sweep_ray  # noqa: E402  (it needs ray)
from sparserl.sweep.ray import Request, Result  # noqa: E402

PATIENCE_S = 120
SWEEP: dict[str, Any] = {
    "base": {
        "env": "support.gated_env:Gated-v0",
        "total_steps": 200,
        "agent": {"net_arch": [12, 12], "batch_size": 16, "buffer_size": 5000, "learning_starts": 40},
        "eval": {"every_steps": 50, "episodes": 2},
        "checkpoint_every_steps": 30,
        "log_every_steps": 25,
        "topology": {"update_interval": 20},
    },
    "seeds": [3, 5],
}
CUT_OFF_AT = 90
"""Newest checkpoint of a run that stands before its 120th step."""


SMALL = ("--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--include-log-monitor=false")
"""For a node that begins soon: the driver prints no logs of its tasks, so nobody has to collect them."""


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited too long until {what}"
        time.sleep(0.05)
    return found


class Node:
    """A node of a Ray cluster, as `ray start` makes it; its runs stand still before its gate."""

    def __init__(self, folder: Path, name: str, *words: str, is_open: bool = False):
        self.gate = folder / name
        self.gate.mkdir()
        if is_open:
            self.open()
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "GATE": str(self.gate),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # with Ray's 15, runs hardly move while other tests use the CPUs
            "RAY_health_check_initial_delay_ms": "500",
            "RAY_health_check_period_ms": "500",  # five of them and a node that does not answer is lost
        }
        command = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1")
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *SMALL, *words], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def open(self) -> None:
        (self.gate / "open").touch()

    def close(self) -> None:
        (self.gate / "open").unlink()

    def waiting(self) -> list[int]:
        """Processes that stand before the gate."""
        return [
            int(path.name) for path in self.gate.iterdir() if path.name.isdigit() and psutil.pid_exists(int(path.name))
        ]

    def lose(self) -> None:
        """As if its machine were switched off, as far as Ray can see."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.name() == "raylet":
                child.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        self.process.terminate()  # nothing, if it is over
        self.process.wait(PATIENCE_S)


class Cluster:
    """A head whose gate is open, and nodes that join it."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder = folder
        port = self.address.rpartition(":")[2]
        words = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}")
        self.head = Node(folder, "head", *words, is_open=True)
        self.nodes = [self.head]
        until(self._answers, "the head of the cluster answers")

    def _answers(self) -> bool:
        assert self.head.process.poll() is None, (self.folder / "head.log").read_text()
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except OSError:
            return False
        return True

    def joined(self, name: str) -> Node:
        self.nodes.append(Node(self.folder, name, f"--address={self.address}"))
        return self.nodes[-1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a socket lies within, whose name must be short
    made = Cluster(folder)
    yield made
    for node in reversed(made.nodes):
        node.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    path.write_text(yaml.safe_dump(SWEEP))
    return path


@pytest.fixture(scope="module")
def locally(file: Path) -> Path:
    """Folder of the same runs, trained in this process."""
    out = file.with_name("local")
    out.mkdir()
    for job in load_jobs(file):
        config = out / f"{job.folder}.yaml"
        config.write_text(yaml.safe_dump(dict(job.config)))
        words = ["--config", str(config), "--run-dir", str(out / job.folder), "--no-progress"]
        assert main([job.command, *words]) == 0
    return out


def start(file: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sparserl", "sweep", str(file), "--out", str(out), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )


def printed(sweep: subprocess.Popen[str]) -> str:
    """What a sweep says until it ends."""
    with sweep:
        try:
            return sweep.communicate(timeout=PATIENCE_S)[0]
        except subprocess.TimeoutExpired:
            sweep.kill()
            raise


def done_before(file: Path, out: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> int:
    """How many runs a sweep finds done, which shall be all: nothing is asked of the cluster, so it needs no process."""
    capsys.readouterr()
    assert main(["sweep", str(file), "--out", str(out), *words]) == 0
    assert not ray.is_initialized()
    return capsys.readouterr().out.count("done before")


def runs(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


def logs(out: Path) -> str:
    return "".join(path.read_text() for path in sorted(out.glob("*.log")))


def on(cluster: Cluster) -> tuple[str, ...]:
    return ("--backend", "ray", "--address", cluster.address)


def same_runs(left: Path, right: Path, count: int) -> None:
    """Bit for bit."""
    assert len(runs(left)) == count
    for name in runs(left):
        assert (left / name / "DONE").exists()
        same_run(left / name, right / name)


# Nodes of a cluster.


@pytest.mark.slow
def test_a_node_is_lost_and_its_run_goes_on_elsewhere(
    cluster: Cluster, file: Path, locally: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    node = cluster.joined("second")
    cluster.head.close()
    sweep = start(file, out, *on(cluster))
    (pid,) = until(node.waiting, "a run stands before the gate of the second node")
    cluster.head.open()
    node.lose()
    until(lambda: not psutil.pid_exists(pid), "the run has died with its node")
    assert "2 done" in printed(sweep)
    assert sweep.returncode == 0
    same_runs(out, locally, 2)
    begun = [line.split(" at ")[-1] for line in logs(out).splitlines() if line.startswith(("run folder", "resuming"))]
    assert sorted(begun)[-1] == f"step {CUT_OFF_AT}"
    assert len(begun) == 3
    before = fingerprint(out)
    assert done_before(file, out, *on(cluster), capsys=capsys) == 2
    assert fingerprint(out) == before


@pytest.mark.slow
def test_without_shared_files_what_is_finished_is_sent(
    cluster: Cluster, file: Path, locally: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    node = cluster.joined("third")
    cluster.head.close()
    sweep = start(file, out, *on(cluster), "--no-shared-files")
    (pid,) = until(node.waiting, "a run stands before the gate of the third node")
    assert runs(out) == []
    cluster.head.open()
    node.lose()
    until(lambda: not psutil.pid_exists(pid), "the run has died with its node")
    assert "2 done" in printed(sweep)
    same_runs(out, locally, 2)
    assert "resuming" not in logs(out)
    assert logs(out).count("\nrun folder ") == 2  # the log of the lost attempt is lost
    assert sorted(path.name for path in out.iterdir()) == sorted([*runs(out), *(f"{name}.log" for name in runs(out))])
    assert done_before(file, out, *on(cluster), "--no-shared-files", capsys=capsys) == 2


@pytest.mark.slow
def test_a_sweep_that_is_stopped_or_killed_leaves_no_process(
    cluster: Cluster, file: Path, locally: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    one, other = load_jobs(file)
    cluster.head.close()
    sweep = start(file, out, *on(cluster), "--only", one.id)
    until(cluster.head.waiting, "a run stands before the gate")
    sweep.send_signal(signal.SIGINT)
    assert "the same command goes on" in printed(sweep)
    assert sweep.returncode == 130
    assert not cluster.head.waiting()
    assert full_checkpoints(RunFolder(out / one.folder))[-1].name == step_name(120)  # it saved
    sweep = start(file, out, *on(cluster), "--only", other.id)
    until(cluster.head.waiting, "a run stands before the gate")
    sweep.kill()
    printed(sweep)
    until(lambda: not cluster.head.waiting(), "the run has died with the sweep")
    sweep = start(file, tmp_path / "sent", *on(cluster), "--no-shared-files")
    until(cluster.head.waiting, "a run stands before the gate")
    sweep.send_signal(signal.SIGTERM)
    printed(sweep)
    assert sweep.returncode == 130
    until(lambda: not cluster.head.waiting(), "the run has died with its task")
    assert not list((tmp_path / "sent").iterdir())
    cluster.head.open()
    assert main(["sweep", str(file), "--out", str(out), *on(cluster)]) == 0
    assert "2 done" in capsys.readouterr().out
    same_runs(out, locally, 2)


@pytest.mark.slow
def test_what_cannot_be_done_is_said(
    cluster: Cluster, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(file: Path, status: int) -> str:
        capsys.readouterr()
        assert main(["sweep", str(file), "--out", str(tmp_path / "runs"), *on(cluster)]) == status
        assert not ray.is_initialized()
        return "".join(capsys.readouterr())

    with monkeypatch.context() as patch:
        patch.setattr(sweep_ray, "__version__", "9")
        assert said(file, 1).count(f"{socket.gethostname()} has sparserl {__version__}, not 9") == 2
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "9")
        line = said(file, 2)
    assert "cannot be joined: Version mismatch" in line
    assert line.count("\n") == 1
    wide = tmp_path / "wide.yaml"
    wide.write_text(yaml.safe_dump({**SWEEP, "base": {**SWEEP["base"], "threads": 3}}))
    line = said(wide, 2)
    assert "needs 3 CPUs, and no node of the cluster has over 1\n" in line
    assert line.count("\n") == 1


# Without a cluster.


@pytest.mark.parametrize(
    "address", [(), ("--address", "127.0.0.1:1"), ("--address", "nowhere"), ("--address", "local")]
)
def test_a_cluster_that_is_not_there(
    address: tuple[str, ...],
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray notes the newest cluster of a machine
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)  # and whatever else runs here
    assert main(["sweep", str(file), "--backend", "ray", *address, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert "there is no Ray cluster" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert not ray.is_initialized()


class Progress:
    """One that needs no cluster."""

    def __init__(self) -> None:
        self.post = self
        self.steps: list[int] = []

    def remote(self, id: str, step: int) -> None:
        self.steps.append(step)


@pytest.fixture
def states(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> list[JobState]:
    """Two runs that a script pretends to train; the second one fails."""
    monkeypatch.setattr(job_process, "COMMAND", stand_in.COMMAND)
    monkeypatch.setenv(stand_in.ORDER, "fail s5")
    return states_of(load_jobs(file), tmp_path / "runs")


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
        sweep_ray._unpack(result.files, state.path)
    assert sorted(path.name for path in out.iterdir()) == sorted([runs(out)[0], states[0].log.name, states[1].log.name])
    assert {path.name for path in states[0].path.iterdir()} == {"DONE", "checkpoints", "progress.csv", "result.json"}
    assert [state.log.read_text() for state in states] == ["trained\n", "first\nsparserl: it broke\n"]


def test_what_is_sent_disturbs_no_run_that_is_trained_here(states: list[JobState]) -> None:
    state = states[0]
    files = sweep_ray._carry_out(Request(state.job, __version__), Progress()).files
    assert files is not None
    with alone(state.path), pytest.raises(TakenError):
        sweep_ray._unpack(files, state.path)
    assert not state.path.exists()
    # Cut off here, and finished there: that counts. Finished here meanwhile: this does.
    state.path.mkdir()
    (state.path / "begun").touch()
    sweep_ray._unpack(files, state.path)
    assert not (state.path / "begun").exists()
    (state.path / "of here").touch()
    sweep_ray._unpack(files, state.path)
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
