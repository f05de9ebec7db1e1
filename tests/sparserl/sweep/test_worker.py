"""The process of a job: it has the resolved config, and trains and ends as the command line does."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import ALGOS, FAST, same_run, train

from sparserl.cli import main
from sparserl.experiment import resolve, runs
from sparserl.experiment.run_config import build_config
from sparserl.sweep import worker
from sparserl.sweep.file import Job, load_jobs
from sparserl.sweep.process import JobProcess

SWEEP: dict[str, Any] = {
    "base": {
        **{"env": "Tiny-v0", "total_steps": 130, "checkpoint_every_steps": 30, "log_every_steps": 25},
        **{"topology_snapshots": 3, "eval": {"every_steps": 50, "episodes": 2}, "topology": {"update_interval": 20}},
        "agent": {"net_arch": [12, 12], "batch_size": 16, "buffer_size": 5000, "learning_starts": 40},
    }
}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    return load_jobs(tmp_path / "sweep.yaml")[0]


@pytest.fixture
def sent(job: Job, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The config of the job, which may be changed, as it stands on standard input."""
    config = json.loads(json.dumps(dict(job.config)))

    class Sent(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return json.dumps(config)

    monkeypatch.setattr(sys, "stdin", Sent())
    return config


def resolved(kind: Any, **wish: Any) -> Any:
    return pytest.param(kind, wish, id=" ".join(map(str, wish.values())))


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        *(resolved("train", algo=algo) for algo in ("ds_td3", "ds_sac", "td3", "sac")),
        resolved("train", wrappers={"normalize_observations": "frozen", "normalization": "statistics.json"}),
        *(resolved("continual", sequence="split_digits", method=method) for method in ("spacenet", "ewc", "joint")),
        *(resolved("continual", sequence="hopper_gravity", method=method) for method in ("packnet", "finetune")),
    ],
)
def test_a_config_is_built_of_its_plain_data(kind: Any, wish: dict[str, Any]) -> None:
    config = resolve(kind, {**wish, "seed": 2**32 - 1})
    assert build_config(json.loads(json.dumps(config.plain()))) == config


@pytest.mark.usefixtures("tiny_env", "undrawn")
def test_a_job_is_the_run_of_the_command_line(
    sent: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, begin = [], runs.begin
    monkeypatch.setattr(runs, "begin", lambda config, source: (given.append(config), begin(config, source))[1])
    path = tmp_path / "job"
    assert worker.main(["begin", str(path)]) == 0
    assert given == [resolve("train", {**SWEEP["base"], "keep_replay": False})]  # as runs of sweeps have it
    assert f"run folder {path}\n" in capsys.readouterr().out
    assert train(tmp_path / "words", *FAST, *ALGOS["ds_td3"], "--no-keep-replay") == 0
    same_run(path, tmp_path / "words")
    assert (path / "command.txt").read_text() == f"sparserl train --config {path}/config.yaml\n"
    assert main(["train", "--config", f"{path}/config.yaml", "--run-dir", str(tmp_path / "again")]) == 0
    same_run(path, tmp_path / "again")


def test_its_process_leaves_nothing_beside_the_run_but_its_log(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    process = JobProcess.start(job, out / job.folder)
    assert process is not None
    process.wait()
    said = process.log.read_text()
    capsys.readouterr()
    status = main(["train", "--env", "Tiny-v0", "--run-dir", str(tmp_path / "run")])
    assert said == capsys.readouterr().err
    assert (process._process.returncode, process.failure) == (status, said.rstrip())
    assert said.startswith("sparserl: ")
    assert said.count("\n") == 1
    assert [path.name for path in out.iterdir()] == [process.log.name]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("agnt", {}, "unknown config key 'agnt'; did you mean 'agent'?"),
        ("total_steps", "many", "total_steps must be int, got 'many'"),
        ("env", "Nowhere-v0", "Nowhere-v0"),
    ],
)
def test_a_config_that_is_wrong_is_one_line(
    key: str, value: Any, message: str, sent: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent[key] = value
    assert worker.main(["begin", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sparserl: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("sent")
def test_a_run_that_cannot_go_on_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["go_on", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sparserl: ")
    assert error.count("\n") == 1


def test_a_module_is_named_before_it_is_imported(
    sent: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent["env"] = "no_such_module:Env-v0"
    assert worker.main(["begin", str(tmp_path / "run")]) == 2
    named, refused = capsys.readouterr().err.splitlines()
    assert named == f"sparserl: environment {sent['env']!r} imports the module no_such_module (not found)"
    assert "no_such_module" in refused
