"""Runs of a sweep in processes of this machine: finished ones are left, broken ones go on, failures are collected."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from sparserl.cli.sweep_file import Job
from sparserl.records import RunFolder, full_checkpoints

Status = Literal["waiting", "running", "done", "failed"]
POLL_S = 0.2
COMMAND = (sys.executable, "-P", "-m", "sparserl")
"""What starts a run; the sub-command and its options follow."""


@dataclass
class JobState:
    """Where a run of a sweep stands.

    Attributes:
        job: The run.
        path: Its folder.
        status: Likewise.
        was_done: Whether it was finished before this sweep began.
        error: Last line of its log, if it failed.
    """

    job: Job
    path: Path
    status: Status = "waiting"
    was_done: bool = False
    error: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def step(self) -> int:
        """`global_step` of its newest row in progress.csv."""
        try:
            last = (self.path / "progress.csv").read_text().rstrip().rpartition("\n")[2]
        except FileNotFoundError:
            return 0
        first = last.partition(",")[0]
        return int(first) if first.isdigit() else 0


def states_of(jobs: Sequence[Job], out: Path) -> list[JobState]:
    """Where the runs stand in a folder, before anything is started."""
    states = []
    for job in jobs:
        path = out / job.folder
        done = (path / "DONE").exists()
        states.append(JobState(job, path, "done" if done else "waiting", was_done=done))
    return states


def run_locally(states: Sequence[JobState], workers: int, watch: Callable[[], None]) -> None:
    """Trains what is not done, several runs at a time.

    Ctrl-C stops every run as it would a single one, which saves first; the same sweep then goes on.

    Args:
        states: The runs; changed in place.
        workers: Processes at a time, >= 1.
        watch: Called again and again while runs go on.

    Raises:
        KeyboardInterrupt: After everything has been stopped.
    """
    waiting = [state for state in states if state.status == "waiting"]
    running: list[JobState] = []
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                state = waiting.pop(0)
                if _start(state):
                    running.append(state)
            time.sleep(POLL_S)
            for state in [state for state in running if _has_ended(state)]:
                running.remove(state)
            watch()
    except KeyboardInterrupt:
        for state in running:
            assert state.process is not None
            state.process.send_signal(signal.SIGTERM)
        for state in running:
            assert state.process is not None
            state.process.wait()
            state.status = "waiting"
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    del number, frame
    raise KeyboardInterrupt


def _start(state: JobState) -> bool:
    """Starts a new run, or the rest of one that was cut off; whether that was possible."""
    state.path.parent.mkdir(parents=True, exist_ok=True)
    lock = state.path.with_name(f"{state.path.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        state.status, state.error = "failed", "another process is training it"
        return False
    resumable = state.path.exists() and bool(full_checkpoints(RunFolder(state.path)))
    if resumable:
        words = ["--resume", str(state.path)]
    else:
        shutil.rmtree(state.path, ignore_errors=True)
        config = state.path.with_name(f"{state.path.name}.yaml")
        config.write_text(yaml.safe_dump(dict(state.job.config), sort_keys=False))
        words = ["--config", str(config), "--run-dir", str(state.path)]
    threads = str(state.job.config["threads"])
    with state.log.open("ab") as log:
        state.process = subprocess.Popen(
            [*COMMAND, state.job.command, *words, "--no-progress"],
            stdout=log,
            stderr=subprocess.STDOUT,
            # In a group of its own: Ctrl-C of a terminal reaches this process alone, which passes it on.
            start_new_session=True,
            # It holds the lock as well, so that a run whose sweep was killed is not started again beside itself.
            pass_fds=[lock.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
        )
    lock.close()  # the process keeps it
    state.status = "running"
    return True


def _has_ended(state: JobState) -> bool:
    assert state.process is not None
    code = state.process.poll()
    if code is None:
        return False
    state.status = "done" if code == 0 else "failed"
    state.path.with_name(f"{state.path.name}.lock").unlink(missing_ok=True)
    if code:
        lines = state.log.read_text(errors="replace").rstrip().splitlines()
        state.error = lines[-1] if lines else f"exit status {code}"
    return True
