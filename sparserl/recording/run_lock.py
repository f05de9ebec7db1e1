"""One process at a time writes a run: a locked file in its folder, which says who does.

The operating system frees the lock when its holder ends, however it ends, so within one machine it is certain who
lives. Between machines it is not: some file systems keep locks to each machine. A holder therefore also touches the
file as long as it lives, and a process that finds the file of another machine (or this one, before it was started
anew) waits `LEASE_S` to see whether that goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparserl.errors import ConfigError

LOCK = "lock.json"
"""In the folder of a run, as long as a process writes it."""
BEAT_S = 2.0
"""Time between touches."""
LEASE_S = 10.0
"""A holder on another machine that has not touched the file for so long is gone."""
_LONGEST = 4096
"""Bytes of the file that are read; what we write is shorter."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""


class LockedError(ConfigError):
    """Another process writes the run."""


@dataclass(frozen=True)
class Holder:
    """Who writes a run.

    Attributes:
        pid: Its process.
        host: Name of its machine.
        boot: Tells starts of machines apart; empty where that is not known.
        command: What it was called with.
        since: When it began, in words.
    """

    pid: int
    host: str
    boot: str
    command: str
    since: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        name, *words = sys.argv or [""]
        is_own = Path(name).name in ("sparserl", "__main__.py")
        command = shlex.join(["sparserl", *words] if is_own else [name, *words])
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(os.getpid(), socket.gethostname(), _boot(), command[: _LONGEST // 8], since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """While no other process writes a run. Says on standard output if an earlier one left it without an orderly end.

    Args:
        path: Folder of the run, which exists.

    Raises:
        LockedError: If another process does; it is named.
        ConfigError: If the folder cannot be written.
    """
    file, is_certain = _locked(path)
    try:
        left = _read(file)
        if left is not None:
            _wait_for_its_end(path, left, is_certain and left.boot == _boot() != "")
        _write(file, Holder.here())
        try:
            with _touching(file):
                yield
        finally:
            _remove(path / LOCK, file)
    finally:
        _close(file)


def writer_of(path: Path) -> Holder | None:
    """The writer that a run names; None if it names none. Opened each time, since network file systems ask then."""
    try:
        file = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _read(file)
    finally:
        os.close(file)


_open_here: set[int] = set()
"""Files of this process that are locked."""


def _close_in_child() -> None:
    """A process that was split off does not keep the lock when its parent is gone. Programs that are started do not
    inherit the file in the first place."""
    for file in _open_here:
        os.close(file)
    _open_here.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _locked(path: Path) -> tuple[int, bool]:
    """The open file, locked; and whether the file system has locks at all."""
    while True:
        file = _opened(path / LOCK)
        is_certain = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                holder = _read(file)
                os.close(file)
                raise _taken(path, holder) from None
            is_certain = False
        if _is_at(path / LOCK, file):
            _open_here.add(file)
            return file, is_certain
        os.close(file)  # its last holder removed it meanwhile


def _opened(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ConfigError(f"{path} is not a plain file")
    return file


def _is_at(path: Path, file: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(file))


def _wait_for_its_end(path: Path, left: Holder, is_gone: bool) -> None:
    """Makes sure that who left the file does not write any more.

    Raises:
        LockedError: If it does.
    """
    if not is_gone:
        print(f"{path} was last written by {left}; waiting {LEASE_S:g} s to see whether it still is", flush=True)
        before, until = _touched(path / LOCK), time.monotonic() + LEASE_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 4)
            if _touched(path / LOCK) != before:
                raise _taken(path, left)
    print(f"{path} was left by {left}, which is gone without an orderly end", flush=True)


def _touched(path: Path) -> int:
    """When a file was last touched, 0 if it is gone. Opened each time, since network file systems ask then."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _taken(path: Path, holder: Holder | None) -> LockedError:
    who = "a process that has only begun" if holder is None else str(holder)
    return LockedError(f"{path} is being written by {who}; wait for its end, or stop it first")


def _read(file: int) -> Holder | None:
    """Who a file names; None if it is empty or no such file."""
    try:
        data = json.loads(os.pread(file, _LONGEST, 0))
        plain: dict[str, Any] = {
            key: " ".join(value.split()) if isinstance(value, str) else value for key, value in data.items()
        }
        holder = Holder(**plain)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    is_whole = type(holder.pid) is int and all(isinstance(value, str) for key, value in plain.items() if key != "pid")
    return holder if is_whole else None


def _write(file: int, holder: Holder) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(asdict(holder)).encode(), 0)


@contextlib.contextmanager
def _touching(file: int) -> Iterator[None]:
    """While a thread says that this process lives."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(file)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _remove(path: Path, file: int) -> None:
    if file in _open_here and _is_at(path, file):  # it is not in a process that was split off
        with contextlib.suppress(OSError):
            path.unlink()


def _close(file: int) -> None:
    if file in _open_here:
        _open_here.discard(file)
        os.close(file)


def _boot() -> str:
    """Of the running system, the same in all its containers; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
