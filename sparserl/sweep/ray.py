"""Runs of a sweep on a Ray cluster that is there: one task each, which Ray gives to another node when its own is lost.

With a common folder a task trains in it, and goes on from the newest checkpoint of the task that had the run before.
Without, it trains in a temporary folder of its node and sends what is finished, so that a lost node costs its runs from
their beginning. Either way a task that is given twice does no work twice: it looks for `DONE`, and it waits as long as
someone else trains the run. Who trains it is said by its own lock (`sparserl.recording.run_lock`), which holds between
machines as well: a node that another one took for gone finds that out there, and ends its process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sparserl import __version__
from sparserl.errors import ConfigError, SparserlError
from sparserl.sweep.file import Job
from sparserl.sweep.pool import POLL_S, JobState, noted_signals, step_of
from sparserl.sweep.process import JobProcess, TakenError, alone, log_of, not_written
from sparserl.sweep.progress import Progress

MAX_RETRIES = 3
"""Nodes that a run may lose and still be tried again."""
CONNECT_S = 5.0
"""A cluster that does not answer for so long is not there; Ray itself would ask for minutes."""
BEAT_S = 0.5
"""Time between two looks of a task at its process."""


@dataclass(frozen=True)
class Request:
    """What a task shall do.

    Attributes:
        job: The run.
        version: Version of sparserl that asks; nodes with another one refuse it.
        path: Run folder in a common folder; None to train elsewhere and send the result.
        alive_file: File in that folder which is there as long as the sweep goes on.
        cwd: Folder in which names of files that are not in full begin; that of the node if None.
    """

    job: Job
    version: str
    path: Path | None = None
    alive_file: Path | None = None
    cwd: Path | None = None

    def is_stopped(self) -> bool:
        """Whether that file is gone, or was never seen here. Opened each time, since NFS asks its server then."""
        if self.alive_file is None:
            return False
        try:
            self.alive_file.open().close()
        except OSError:
            return True
        return False

    @property
    def folder(self) -> Path | None:
        """`cwd`, if the node sees it."""
        return self.cwd if self.cwd is not None and self.cwd.is_dir() else None


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        failure: Last line of the log of a run that ended badly; empty otherwise.
        was_done: Whether there was nothing to do.
        files: A tar of run folder and log, or of the log alone after a failure; None from a common folder.
    """

    failure: str = ""
    was_done: bool = False
    files: bytes | None = None


def run_on_ray(
    states: Sequence[JobState],
    watch: Callable[[], None],
    *,
    address: str | None = None,
    shared_files: bool = True,
    workers: int | None = None,
) -> None:
    """Trains what is not done, as many runs at a time as the cluster has room for.

    Args:
        states: The runs; changed in place.
        watch: Called again and again while runs go on.
        address: HOST:PORT of the cluster; $RAY_ADDRESS, or the one that this machine belongs to, if None. No cluster
            is ever started.
        shared_files: Whether the nodes see the folders of the runs under the same names.
        workers: At most so many at a time, if not None.

    Raises:
        ConfigError: If there is no such cluster, or none of its nodes has the threads that a run asks for.
        SparserlError: If the cluster is lost.
        KeyboardInterrupt: After everything has been stopped; with a common folder, and saved.
    """
    waiting = [state for state in states if state.status == "waiting"]
    if not waiting:
        return
    _join(_existing(address))
    alive_file = waiting[0].path.absolute().with_name(f".sweep-{uuid.uuid4().hex}")
    alive_file.parent.mkdir(parents=True, exist_ok=True)
    alive_file.touch()
    try:
        _check_room(waiting)
        _run(waiting, watch, alive_file if shared_files else None, workers or len(waiting))
    except RayError as error:
        raise SparserlError(f"the Ray cluster is lost ({_first_line(error)}); the same command goes on") from None
    finally:
        alive_file.unlink(missing_ok=True)
        ray.shutdown()


def _existing(address: str | None) -> str:
    """HOST:PORT of a cluster that answers."""
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        found = canonicalize_bootstrap_address_or_die(named or "auto")
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError):
        where = f"at {named}" if named else "that this machine belongs to"
        how = "begin one with ray start, or give --address HOST:PORT"
        raise ConfigError(f"there is no Ray cluster {where}; {how}") from None
    return found


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError) as error:  # another version of Ray or of Python
        said = " ".join(str(error).split())
        raise ConfigError(f"the Ray cluster at {address} cannot be joined: {said}") from None


def _check_room(states: Sequence[JobState]) -> None:
    nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]
    most = max(int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"])
    for state in states:
        threads = state.job.config["threads"]
        if threads > most:
            raise ConfigError(f"{state.path.name} needs {threads} CPUs, and no node of the cluster has over {most}")


def _run(waiting: Sequence[JobState], watch: Callable[[], None], alive_file: Path | None, workers: int) -> None:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    progress: Any = ray.remote(num_cpus=0)(Progress).options(scheduling_strategy=here).remote()
    task: Any = ray.remote(max_retries=MAX_RETRIES)(_carry_out)
    waiting = list(waiting)
    given: dict[Any, JobState] = {}
    with noted_signals() as raise_if_stopped:
        try:
            while waiting or given:
                raise_if_stopped()
                while waiting and len(given) < workers:
                    state = waiting.pop(0)
                    common = (state.path.absolute(), alive_file, Path.cwd()) if alive_file else ()
                    request = Request(state.job, __version__, *common)
                    given[task.options(num_cpus=state.job.config["threads"]).remote(request, progress)] = state
                ended, _ = ray.wait(list(given), timeout=POLL_S)
                steps = ray.get(progress.steps.remote())
                for state in given.values():
                    if state.job.id in steps:
                        state.status, state.step_said = "running", steps[state.job.id]
                for reference in ended:
                    _end(given.pop(reference), reference)
                watch()
        except KeyboardInterrupt:
            _stop(given, alive_file)
            raise


def _stop(given: Mapping[Any, JobState], alive_file: Path | None) -> None:
    """Ends all tasks; those that work in a common folder save first."""
    if alive_file is None:
        for reference in given:
            ray.cancel(reference, force=True)
    else:
        alive_file.unlink()
    for reference, state in given.items():
        _end(state, reference)  # it may have been finished meanwhile
        if state.status == "failed":
            state.status, state.error = "waiting", ""


def _end(state: JobState, reference: Any) -> None:
    """Takes the result of a task."""
    try:
        result: Result = ray.get(reference)
        if result.files is not None:
            _unpack(result.files, state)
        state.error, state.was_done = result.failure, result.was_done
    except RayTaskError as error:
        state.error = _first_line(error.cause)
    except RayError as error:  # its nodes were lost more often than it may be tried again
        state.error = _first_line(error)
    except TakenError:
        state.error = "another process is training it"
    state.status = "failed" if state.error else "done"
    if not state.error:
        state.step_said = 0  # its files are here


def _first_line(error: Exception) -> str:
    """What a one-line message can say of an error of Ray, which may print pages, or of any that was not foreseen."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _unpack(files: bytes, state: JobState) -> None:
    """Puts a finished run, or the log of a failed one, where the run would have been trained.

    Raises:
        TakenError: If a process of this machine trains it.
    """
    path = state.path
    with alone(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as aside:
        with tarfile.open(fileobj=io.BytesIO(files)) as tar:
            tar.extractall(aside, filter="data")
        sent = Path(aside) / state.job.folder
        with log_of(path).open("ab") as log:
            log.write(log_of(sent).read_bytes())
        if sent.exists() and not (path / "DONE").exists():
            if path.exists():
                with not_written(path):
                    shutil.rmtree(path)
            sent.replace(path)


def _carry_out(request: Request, progress: Any) -> Result:
    """The task: trains a run on the node that it came to."""
    node = socket.gethostname()
    if request.version != __version__:
        raise SparserlError(f"{node} has sparserl {__version__}, not {request.version}")

    def post(step: int) -> None:
        progress.post.remote(request.job.id, step)

    if request.path is not None:
        if request.is_stopped():
            raise SparserlError(f"{node} does not see {request.path.parent}; --no-shared-files has the runs sent")
        return _train(request, request.path, post)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / request.job.folder
        result = _train(request, path, post)
        return Result(result.failure, files=_packed([log_of(path)] if result.failure else [log_of(path), path]))


def _train(request: Request, path: Path, post: Callable[[int], None]) -> Result:
    def raise_if_stopped() -> None:
        if request.is_stopped():
            raise SparserlError("the sweep was stopped")

    while True:
        raise_if_stopped()
        with contextlib.suppress(TakenError):
            process = JobProcess.start(request.job, path, ends_with_caller=True, cwd=request.folder)
            if process is None:
                return Result(was_done=True)
            _await(process, request, post)
            return Result(process.failure)
        time.sleep(BEAT_S)


def _await(process: JobProcess, request: Request, post: Callable[[int], None]) -> None:
    """Until a run has ended; a sweep that is stopped has it save first.

    Raises:
        TakenError: If another node has taken the run over, which ends it here.
    """
    said, is_asked = -1, False
    try:
        while not process.has_ended():
            process.check_is_writer()
            if (step := step_of(process.path)) != said:
                post(step)
                said = step
            if not is_asked and request.is_stopped():
                process.stop()
                is_asked = True
            time.sleep(BEAT_S)
        if process.failure:  # another one may have been first to make the folder
            process.check_is_writer()
    finally:
        process.kill()
        process.wait()


def _packed(paths: Sequence[Path]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for path in paths:
            tar.add(path, path.name)
    return file.getvalue()
