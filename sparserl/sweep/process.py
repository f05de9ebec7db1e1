"""One run of a sweep as a process of this machine: a new run, or the rest of one that was cut off.

All that starts runs (a pool of processes, a task on a cluster, a search) does it here, so a finished run is never
trained again, and no run beside itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sparserl.errors import one_line
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.recording.run_lock import LockedError, only_writer, writer_of
from sparserl.sweep.file import Job

COMMAND = (sys.executable, "-P", "-m", "sparserl.sweep.worker")
"""What trains a run; its words follow."""

END_S = 2.0
"""A process that has finished its run ends within this time, or nothing is lost if it is killed."""

# The kernel keeps the wish (1 is PR_SET_PDEATHSIG) across exec. A caller that was gone before it was made is seen.
ENDS_WITH_CALLER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Source of a program that becomes another one, which is killed when the caller dies."""


class TakenError(Exception):
    """Another process trains the run."""


class JobProcess:
    """A process that trains a run; `start` makes one.

    Attributes:
        path: Folder of the run.
        log: What the process prints; locked as long as it lives.
    """

    def __init__(self, path: Path, process: subprocess.Popen[bytes]):
        self.path, self.log = path, log_of(path)
        self._process = process

    @classmethod
    def start(
        cls, job: Job, path: Path, *, ends_with_caller: bool = False, cwd: Path | None = None
    ) -> JobProcess | None:
        """Starts a new run, or the rest of one that was cut off; None if it is finished.

        Args:
            job: The run.
            path: Its folder. The log lies beside it.
            ends_with_caller: Whether it is killed when the thread that calls this ends; otherwise it trains on.
            cwd: Folder in which the names of files that are not in full begin; the present one if None.

        Raises:
            TakenError: If another process trains it.
        """
        with alone(path) as lock, log_of(path).open("ab") as log:
            if (path / "DONE").exists():  # the holder of the lock until now may have finished it
                return None
            threads = str(job.config["threads"])
            words = [*COMMAND, "go_on" if _can_go_on(path) else "begin", str(path)]
            if ends_with_caller:
                words = [sys.executable, "-P", "-c", ENDS_WITH_CALLER, str(os.getpid()), *words]
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # In a group of its own: Ctrl-C of a terminal reaches the caller alone, who passes it on.
                start_new_session=True,
                # It holds the lock as well, so that a run whose sweep was killed is not started again beside itself.
                pass_fds=[lock.fileno()],
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
            )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as sent:  # how it ended says what was wrong
                sent.write(json.dumps(dict(job.config)).encode())
        return cls(path, process)

    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    @property
    def failure(self) -> str:
        """Why a process ended badly: the signal that killed it, or the last line of its log; empty if it trained to
        the end."""
        status = self._process.returncode
        if status == 0:
            return ""
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return f"killed by {name}" + (" (out of memory?)" if -status == signal.SIGKILL else "")
        lines = self.log.read_text(errors="replace").rstrip().splitlines()
        return one_line(lines[-1]) if lines else f"exit status {status}"

    def check_is_writer(self) -> None:
        """Raises TakenError if another process writes the run, or has finished it: one that took this one for gone, or
        was before it."""
        writer = writer_of(self.path)
        if writer is not None:
            is_other = (writer.pid, writer.host) != (self._process.pid, socket.gethostname())
        else:
            is_other = (self.path / "DONE").exists() and not self._ends_soon()
        if is_other:
            raise TakenError

    def _ends_soon(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        return self.has_ended()

    def stop(self) -> None:
        """Asks the run to save and stop; `wait` for that."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once; the run can go on from its newest checkpoint."""
        self._process.kill()

    def wait(self) -> None:
        """Until the process is over."""
        self._process.wait()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[BinaryIO]:
    """While no other process of this machine starts or trains a run as one of a sweep; gives the file that is locked.

    The run's own lock (`sparserl.recording.run_lock`) is taken by what trains it, so that it holds by hand as well;
    this one spans the time between two of them, in which the folder is looked at and a new one made.

    Args:
        path: Folder of the run.

    Raises:
        TakenError: If one does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with log_of(path).open("a+b") as lock:  # open for writing, or NFS refuses the lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError from None
        yield lock


@contextlib.contextmanager
def not_written(path: Path) -> Iterator[None]:
    """While no other process writes a run that exists, by hand or on another machine.

    Raises:
        TakenError: If one does.
    """
    try:
        with only_writer(path):
            yield
    except LockedError as error:
        raise TakenError(str(error)) from None


def log_of(path: Path) -> Path:
    """Where a run prints to: beside its folder."""
    return path.with_name(f"{path.name}.log")


def _can_go_on(path: Path) -> bool:
    """Whether there is a run with a checkpoint; one without is deleted."""
    if not path.exists():
        return False
    with not_written(path):
        if not full_checkpoints(RunFolder(path)):
            shutil.rmtree(path)
    return path.exists()
