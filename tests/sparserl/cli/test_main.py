"""How the program ends, whatever happens: one line, and the right exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

from sparserl.cli import main
from sparserl.cli.main import COMMANDS
from sparserl.errors import CheckpointError, RunFailed
from sparserl.experiment.program import TRACEBACK


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Makes `sparserl stand_in` do something."""
    monkeypatch.delenv(TRACEBACK, raising=False)

    def make(does: Callable[[], object]) -> None:
        module = ModuleType("stand_in")

        def run(words: Sequence[str]) -> int:
            does()
            return 0

        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "stand_in", module)
        monkeypatch.setitem(COMMANDS, "stand_in", ("stand_in", ""))

    return make


def raising(error: BaseException) -> Callable[[], None]:
    def does() -> None:
        raise error

    return does


def signalled(number: int, then: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """Gets a signal; whatever that raises is dealt with by `then`."""

    def does() -> None:
        try:
            os.kill(os.getpid(), number)
            threading.Event().wait(60)  # the signal comes before
        except KeyboardInterrupt:
            then()
            raise

    return does


ENDS = {
    "refused": (raising(CheckpointError("it is\nbroken")), 2, "sparserl: it is broken\n"),
    "failed": (raising(RunFailed("the run failed")), 1, "sparserl: the run failed\n"),
    "Ctrl-C": (signalled(signal.SIGINT), 130, "sparserl: interrupted\n"),
    "SIGTERM": (signalled(signal.SIGTERM), 130, "sparserl: interrupted\n"),
    "Ctrl-C that a library makes something else of": (
        signalled(signal.SIGINT, raising(ImportError("initialization failed"))),
        130,
        "sparserl: interrupted\n",
    ),
    "a fault": (
        raising(KeyError("a\nb")),
        1,
        f"sparserl: failed unexpectedly (KeyError: 'a\\nb'); {TRACEBACK}=1 before the command shows where\n",
    ),
    "no memory": (
        raising(MemoryError()),
        1,
        "sparserl: out of memory\n",
    ),
    "unread": (raising(BrokenPipeError()), 141, ""),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_one_line_and_a_status(
    end: str, command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    does, status, line = ENDS[end]
    command(does)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(["stand_in"]) == status
    assert capsys.readouterr().err == line
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_fault_shows_where_it_came_from_if_asked(
    command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    command(raising(KeyError("a")))
    assert main(["stand_in"]) == 1
    assert "raise error\nKeyError: 'a'\nsparserl: failed unexpectedly" in capsys.readouterr().err


def test_in_another_thread(command: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Which gets no signals, and may not ask for them."""
    command(lambda: print("done"))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(main(["stand_in"])))
    thread.start()
    thread.join()
    assert found == [0]
    assert capsys.readouterr().out == "done\n"


def test_words_that_are_no_text_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--env", os.fsdecode(b"\xff")]) == 2
    assert capsys.readouterr().err == "sparserl: '\\udcff' is not text in UTF-8\n"


def program(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "sparserl", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_pipe_that_nobody_reads_is_quiet() -> None:
    process = program("list", "presets")
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert (process.returncode, said) == (141, b"")
