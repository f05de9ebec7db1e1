"""`sparserl sweep --backend ray` on real nodes of this machine: nodes are lost, sweeps are stopped, nothing is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.ray_nodes import PATIENCE_S, SWEEP, Cluster, runs, until
from support.runs import ROOT, fingerprint, same_run

from sparserl import __version__
from sparserl.cli import main
from sparserl.recording.run_folder import RunFolder, full_checkpoints, step_name
from sparserl.sweep.file import load_jobs

ray = pytest.importorskip("ray")

from sparserl.sweep import ray as sweep_ray  # noqa: E402  (it needs ray)

CUT_OFF_AT = 90
"""Newest checkpoint of a run that stands before its 120th step."""


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
