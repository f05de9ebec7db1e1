"""Which of several machines trains a run: a file beside its folder, touched as long as its owner lives.

The lock of `job_process` holds within one machine, this holds wherever the folder is seen. The price is time: whoever
finds the file of an owner that is gone waits `LEASE_S` before it believes so. An owner that stands still for longer
(its machine sleeps, or loses the disk) may be taken for dead; it finds out at its next beat, for which the other one
waits, and has to stop then.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sparserl.sweep.process import TakenError

BEAT_S = 0.5
"""Time between beats of an owner."""
LEASE_S = 10.0
"""An owner that has not been seen to beat for so long is gone."""


class Lease:
    """Ownership of a run; to be entered, which waits until there is no other owner.

    Args:
        path: Folder of the run.
        watch: Called again and again while it waits; what that raises ends the wait.
    """

    def __init__(self, path: Path, watch: Callable[[], None] = lambda: None):
        self._watch = watch
        self._file = path.with_name(f"{path.name}.owner")
        self._owner = f"{socket.gethostname()} {uuid.uuid4().hex}"

    def __enter__(self) -> Lease:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        while not self._is_made():
            if self._is_left():
                self._take_over()
                if self._is_held():
                    break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_held():
            self._file.unlink()

    def beat(self) -> None:
        """Says that the owner lives; to be called every `BEAT_S`.

        Raises:
            TakenError: If another one has become the owner.
        """
        if not self._is_held():
            raise TakenError
        os.utime(self._file)

    def _is_made(self) -> bool:
        try:
            with self._file.open("x") as file:
                file.write(self._owner)
        except FileExistsError:
            return False
        return True

    def _is_left(self) -> bool:
        """Waits; whether the owner was not seen to beat, to end or to change all that time."""
        seen, since = self._seen(), time.monotonic()
        while time.monotonic() - since < LEASE_S:
            self._watch()
            time.sleep(BEAT_S)
            if self._seen() != seen:
                return False
        return True

    def _take_over(self) -> None:
        """Puts another owner into the file, and leaves the old one, or who does the same now, time to see it."""
        aside = self._file.with_name(f"{self._file.name}.{uuid.uuid4().hex}")
        aside.write_text(self._owner)
        aside.replace(self._file)
        time.sleep(2 * BEAT_S)

    def _is_held(self) -> bool:
        owner, _ = self._seen()
        return owner == self._owner

    def _seen(self) -> tuple[str, int]:
        """The owner and its newest beat. Opened each time, since NFS asks its server then."""
        try:
            with self._file.open() as file:
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return "", 0
