"""Runs of a sweep in processes of this machine: finished ones are left, broken ones go on, failures are collected."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

from sparserl.experiment.signals import handled
from sparserl.sweep.file import Job
from sparserl.sweep.process import JobProcess, TakenError, log_of
from sparserl.sweep.run_folders import run_folders

Status = Literal["waiting", "running", "done", "failed"]
POLL_S = 0.2


@dataclass
class JobState:
    """Where a run of a sweep stands.

    Attributes:
        job: The run.
        path: Its folder.
        status: Likewise.
        was_done: Whether it was finished before this sweep began.
        error: Last line of its log, if it failed.
        step_said: Its step as another machine said it, whose files are not seen here.
    """

    job: Job
    path: Path
    status: Status = "waiting"
    was_done: bool = False
    error: str = ""
    step_said: int = 0
    process: JobProcess | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What its process printed."""
        return log_of(self.path)

    @property
    def step(self) -> int:
        """How far it is known to be."""
        return self.step_said or step_of(self.path)


def step_of(path: Path) -> int:
    """`global_step` of the newest row in the progress.csv of a run folder; 0 if there is none."""
    try:
        last = (path / "progress.csv").read_text().rstrip().rpartition("\n")[2]
    except FileNotFoundError:
        return 0
    first = last.partition(",")[0]
    return int(first) if first.isdigit() else 0


def states_of(jobs: Sequence[Job], out: Path) -> list[JobState]:
    """Where the runs stand in a folder, before anything is started."""
    states = []
    for job, path in zip(jobs, run_folders(jobs, out), strict=True):
        done = (path / "DONE").exists()
        states.append(JobState(job, path, "done" if done else "waiting", was_done=done))
    return states


def run_locally(states: Sequence[JobState], watch: Callable[[], None], *, workers: int = 1) -> None:
    """Trains what is not done, several runs at a time; `run_jobs` says how.

    Args:
        states: The runs; changed in place.
        watch: Called again and again while runs go on.
        workers: Processes at a time, >= 1.
    """
    run_jobs((state for state in states if state.status == "waiting"), watch, workers=workers)


def run_jobs(
    waiting: Iterator[JobState], watch: Callable[[], None], *, workers: int, waits_for_others: bool = False
) -> None:
    """Trains runs in processes of this machine until there are no more.

    Ctrl-C stops every run as it would a single one, which saves first; the same runs then go on.

    Args:
        waiting: Asked for the next run when there is a worker for it.
        watch: Called again and again while runs go on, and at the end.
        workers: Processes at a time, >= 1.
        waits_for_others: Whether a run that another process trains waits for that; otherwise it fails.

    Raises:
        KeyboardInterrupt: After everything has been stopped, as with whatever `waiting` and `watch` raise.
    """
    running: list[JobState] = []
    with noted_signals() as raise_if_stopped:
        try:
            while True:
                raise_if_stopped()
                running = [state for state in running if state.status == "running"]
                for state in itertools.islice(waiting, workers - len(running)):
                    state.status = "running"
                    running.append(state)
                if not running:
                    break
                for state in running:
                    _go_on(state, waits_for_others)
                watch()
                time.sleep(POLL_S)
            watch()
        finally:
            left = [state for state in running if state.status == "running"]
            processes = [state.process for state in left if state.process is not None]
            for process in processes:
                process.stop()
            for process in processes:
                process.wait()
            for state in left:
                state.status = "waiting"


@contextmanager
def noted_signals() -> Iterator[Callable[[], None]]:
    """While the first SIGINT or SIGTERM is only noted; gives what raises KeyboardInterrupt if there was one.

    It is not raised where it comes: that may be between the start of a process and the note of it, or in a destructor
    or a callback of a library, which loses it. The second one is.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    def raise_if_stopped() -> None:
        if came:
            raise KeyboardInterrupt

    with handled(note):
        yield raise_if_stopped


def _go_on(state: JobState, waits_for_others: bool) -> None:
    """Begins a run that has been given a worker, or sees whether it has ended."""
    if state.process is not None:
        if state.process.has_ended():
            state.error = state.process.failure
            state.status = "failed" if state.error else "done"
        return
    try:
        state.process = JobProcess.start(state.job, state.path)
    except TakenError as error:
        if not waits_for_others:
            state.status, state.error = "failed", str(error) or "another process is training it"
        return
    if state.process is None:
        state.status, state.was_done = "done", True
