"""What Ctrl-C and SIGTERM do: one place that takes the signals, wherever `main` runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""Exit status of whatever was stopped."""


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While `handler` is called for Ctrl-C and SIGTERM; in another thread than the main one, which gets no signals,
    nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)  # None: set by no Python code


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While a signal ends the process with one line: as long as it only imports, where an exception that comes from
    nowhere makes compiled libraries abort."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, b"sparserl: interrupted\n")
        os._exit(INTERRUPTED)

    with handled(leave):
        yield


@contextmanager
def interrupting() -> Iterator[Callable[[], bool]]:
    """While the first signal raises KeyboardInterrupt and the next one ends the process; gives whether one came.

    A library may turn the exception into another one, or lose it in a destructor; then the next signal helps.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    with handled(stop):
        yield lambda: bool(came)
