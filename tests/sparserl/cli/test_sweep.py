"""`sparserl sweep`: each run is trained once, goes on, or is shown as failed."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from support.runs import same_run
from support.stand_in import calls, give_order
from support.sweep_files import SMALL, sweep_file

from sparserl import config as yaml_config
from sparserl.cli import main
from sparserl.sweep import process as job_process
from sparserl.sweep import slurm as sweep_slurm
from sparserl.sweep.file import Job, load_jobs
from sparserl.sweep.pool import run_locally, states_of
from sparserl.sweep.process import JobProcess, TakenError
from sparserl.sweep.run_folders import run_folders


def test_a_dry_run_starts_nothing(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(sweep_file(tmp_path)), "--dry-run", "--out", str(stand_in)]) == 0
    printed = capsys.readouterr().out
    assert "4 waiting" in printed
    assert all(job.id in printed for job in load_jobs(sweep_file(tmp_path)))
    assert list(stand_in.iterdir()) == []


def test_ids_can_be_read_however_many_settings_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "many.yaml"
    keys = ("method: [set]", "density: [0.3]", "drop: [weight_magnitude]", "decay: [cosine]", "drop_fraction: [0.2]")
    path.write_text("command: train\ngrid:\n" + "".join(f"  topology.{key}\n" for key in keys) + "seeds: 2\n")
    assert main(["sweep", str(path), "--dry-run", "--out", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert all(job.id in printed for job in load_jobs(path))
    assert "drop_fraction 0.2" in printed


def test_each_run_is_trained_once(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", str(sweep_file(tmp_path)), "--workers", "3", "--out", str(stand_in)]
    assert main(words) == 0
    assert len(calls(stand_in)) == 4
    assert sorted(calls(stand_in)) == sorted(
        ["begin", str(stand_in / job.folder)] for job in load_jobs(sweep_file(tmp_path))
    )
    assert "4 done" in capsys.readouterr().out
    assert main(words) == 0
    assert len(calls(stand_in)) == 4
    assert "done before" in capsys.readouterr().out


def test_what_was_cut_off_goes_on_and_what_never_began_begins_anew(stand_in: Path, tmp_path: Path) -> None:
    jobs = load_jobs(sweep_file(tmp_path))
    begun, empty = (stand_in / job.folder for job in jobs[:2])
    (begun / "checkpoints" / "step-000000001").mkdir(parents=True)
    empty.mkdir()
    (empty / "eval.csv").touch()
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in)]) == 0
    assert [call[0] for call in calls(stand_in)] == ["go_on", "begin", "begin", "begin"]
    assert not (empty / "eval.csv").exists()


def of_another_version(job: Job, out: Path, named: str = "", **changed: Any) -> Path:
    """The folder of a run that a version with fewer options began, therefore of another id and maybe name."""
    path = out / dataclasses.replace(job, id="0123456789", name=named or job.name).folder
    path.mkdir(parents=True)
    config = {name: value for name, value in job.config.items() if name != "measure_learning"}
    (path / "config.yaml").write_text(yaml.safe_dump({**config, **changed}))
    return path


def test_a_run_that_another_version_finished_is_left(stand_in: Path, tmp_path: Path) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    path = of_another_version(job, stand_in, wandb={"project": "theirs"})
    (path / "DONE").touch()
    state = states_of(load_jobs(sweep_file(tmp_path)), stand_in)[0]
    assert (state.path, state.status) == (path, "done")
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in)]) == 0
    assert len(calls(stand_in)) == 3
    assert not (stand_in / job.folder).exists()


def test_a_run_that_another_version_began_goes_on(stand_in: Path, tmp_path: Path) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    path = of_another_version(job, stand_in)
    (path / "checkpoints" / "step-000000001").mkdir(parents=True)
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in), "--only", job.id]) == 0
    assert calls(stand_in) == [["go_on", str(path)]]


def test_a_run_that_another_version_named_otherwise_is_left(stand_in: Path, tmp_path: Path) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    path = of_another_version(job, stand_in, named=job.name.replace("d0.5", "half"))
    assert path.name.split("__")[2] == "half"
    (path / "DONE").touch()
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in), "--only", job.id]) == 0
    assert calls(stand_in) == []


def test_configs_of_other_folders_are_read_once_and_only_where_a_run_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    out = tmp_path / "out"
    other = of_another_version(job, out, total_steps=301)
    read: list[Path] = []
    load = yaml_config.load_yaml

    def noted(path: Path) -> dict[str, Any]:
        read.append(path)
        return load(path)

    monkeypatch.setattr(yaml_config, "load_yaml", noted)
    (out / job.folder).mkdir()
    assert run_folders([job], out) == [out / job.folder]
    assert read == []
    (out / job.folder).rmdir()
    for _ in range(2):  # as two trials of a search
        assert run_folders([job], out) == [out / job.folder]
    assert read == [other / "config.yaml"]


@pytest.mark.parametrize(
    "changed", [{"total_steps": 301}, {"no_such_option": 1}, {"device": "cuda"}], ids=["other", "unknown", "refused"]
)
def test_a_run_with_other_options_is_no_run_of_the_sweep(
    changed: dict[str, Any], stand_in: Path, tmp_path: Path
) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    (of_another_version(job, stand_in, **changed) / "DONE").touch()
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in), "--only", job.id]) == 0
    assert calls(stand_in) == [["begin", str(stand_in / job.folder)]]


def test_failures_are_collected(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    give_order(stand_in, "fail s3")
    assert main(["sweep", str(sweep_file(tmp_path)), "--workers", "2", "--out", str(stand_in)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 failed" in printed
    assert printed.count("failed: sparserl: it broke; see ") == 2
    give_order(stand_in)
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in)]) == 0
    assert len(calls(stand_in)) == 6  # the two that were done are left


def test_one_of_the_runs(stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_jobs(sweep_file(tmp_path))[2]
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(stand_in), "--only", job.id]) == 0
    assert "1 done" in capsys.readouterr().out
    assert [path.name for path in stand_in.iterdir() if path.is_dir()] == [job.folder]


def test_a_run_may_end_with_whoever_started_it(stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")
    file = sweep_file(tmp_path)
    program = f"""
import sys, pathlib
from sparserl.sweep import process as job_process
from sparserl.sweep.file import load_jobs
job_process.COMMAND = {job_process.COMMAND!r}
for job, ends in zip(load_jobs(pathlib.Path({str(file)!r})), (True, False)):
    process = job_process.JobProcess.start(job, pathlib.Path({str(stand_in)!r}) / job.folder, ends_with_caller=ends)
    print(process._process.pid, flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-P", "-c", program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        ends, goes_on = (psutil.Process(int(caller.stdout.readline())) for _ in range(2))
        while len(calls(stand_in)) < 2:
            time.sleep(0.02)
        assert ends.is_running()
        caller.kill()
    ends.wait(30)
    assert goes_on.is_running()
    goes_on.kill()


def test_a_script_for_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, out = tmp_path / "array.sh", tmp_path / "runs of mine"
    words = ["sweep", str(sweep_file(tmp_path)), "--out", str(out), "--slurm", str(script)]
    assert main(words) == 0
    assert "an array of 4 runs; never tried on a real Slurm" in capsys.readouterr().out
    text = script.read_text()
    assert "\n#SBATCH --array=0-3\n" in text
    assert "\n#SBATCH --cpus-per-task=1\n" in text
    assert text.startswith("#!/bin/bash\n# UNTESTED on a real Slurm")
    assert not out.exists()
    assert main(words) == 2
    assert "array.sh: File exists" in capsys.readouterr().err
    # As an array task would, with a stand-in for what it calls.
    script.write_text(text.replace(f"exec {shlex.join(sweep_slurm.COMMAND)} ", "printf '%s\\n' "))
    ids = [job.id for job in load_jobs(sweep_file(tmp_path))]
    for task, id in enumerate(ids):
        said = subprocess.run(
            ["bash", str(script)],
            env={"SLURM_ARRAY_TASK_ID": str(task), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        file = str(tmp_path / "sweep.yaml")
        assert said == ["sweep", file, "--only", id, "--out", str(out), "--no-progress"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_run(number: int, stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")

    def interrupt() -> None:
        while len(calls(stand_in)) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    assert main(["sweep", str(sweep_file(tmp_path)), "--workers", "2", "--out", str(stand_in)]) == 130
    thread.join()
    assert time.monotonic() - began < 50  # the runs would have slept for 60 s
    assert len(calls(stand_in)) == 2


def test_a_signal_in_a_destructor_stops_every_run(stand_in: Path, tmp_path: Path) -> None:
    class Raises:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def watch() -> None:
        if len(calls(stand_in)) == 2:
            Raises()

    give_order(stand_in, "wait")
    states = states_of(load_jobs(sweep_file(tmp_path)), stand_in)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_locally(states, watch, workers=2)
    assert all(state.process is None or state.process.has_ended() for state in states)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_that_another_process_trains_is_left_alone(stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")
    job = load_jobs(sweep_file(tmp_path))[0]
    states = states_of([job], stand_in)
    process = JobProcess.start(job, states[0].path)
    assert process is not None
    try:
        run_locally(states, lambda: None)
        assert (states[0].status, states[0].error) == ("failed", "another process is training it")
    finally:
        process.kill()
        process.wait()


def test_a_run_that_another_process_has_finished_meanwhile_is_done(stand_in: Path, tmp_path: Path) -> None:
    job = load_jobs(sweep_file(tmp_path))[0]
    states = states_of([job], stand_in)  # looked at while the other one still trained
    process = JobProcess.start(job, states[0].path)
    assert process is not None
    process.wait()
    run_locally(states, lambda: None)
    assert (states[0].status, states[0].was_done) == ("done", True)
    assert len(calls(stand_in)) == 1


def test_the_lock_goes_with_the_process_that_trains(stand_in: Path, tmp_path: Path) -> None:
    give_order(stand_in, "wait")
    job = load_jobs(sweep_file(tmp_path))[0]
    path = stand_in / job.folder
    process = JobProcess.start(job, path)
    assert process is not None
    with pytest.raises(TakenError):
        JobProcess.start(job, path)
    process.kill()
    process.wait()
    give_order(stand_in)
    again = JobProcess.start(job, path)
    assert again is not None
    again.wait()
    assert again.failure == ""


@pytest.mark.slow
def test_real_runs_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = {
        **SMALL["base"],
        **{"log_every_steps": 100, "checkpoint_every_steps": 100, "eval": {"every_steps": 300, "episodes": 1}},
        "agent": {"learning_starts": 100, "net_arch": [32, 32], "batch_size": 16, "buffer_size": 400},
    }
    path = sweep_file(tmp_path, base=base, grid={}, seeds=1)
    words = ["sweep", str(path), "--out", str(tmp_path / "runs")]
    assert main(words) == 0
    (whole,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert (whole / "DONE").exists()
    assert yaml.safe_load((whole / "config.yaml").read_text())["total_steps"] == 300
    assert "1 done" in capsys.readouterr().out
    assert main(words) == 0
    # The same by the array script.
    script, out = tmp_path / "array.sh", tmp_path / "slurm"
    assert main(["sweep", str(path), "--out", str(out), "--slurm", str(script)]) == 0
    subprocess.run(["bash", str(script)], env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"}, check=True)
    (run,) = (path for path in out.iterdir() if path.is_dir())
    assert run.name == whole.name
    same_run(run, whole)


def test_a_run_that_is_killed_says_by_which_signal(stand_in: Path, tmp_path: Path) -> None:
    state = states_of(load_jobs(sweep_file(tmp_path, seeds=[3], grid={})), stand_in)[0]
    give_order(stand_in, "wait")
    process = JobProcess.start(state.job, state.path)
    assert process is not None
    process.kill()
    process.wait()
    assert process.failure == "killed by SIGKILL (out of memory?)"


def test_runs_of_a_sweep_keep_no_replay_unless_told(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for said, kept in (("", False), (", keep_replay: true", True)):
        file.write_text(f"base: {{algo: td3, env: Hopper-v5{said}}}\n")
        assert [job.config["keep_replay"] for job in load_jobs(file)] == [kept]
    file.write_text("command: fit\nbase: {data: iris}\n")
    assert "keep_replay" not in load_jobs(file)[0].config
