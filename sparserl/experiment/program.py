"""How a program of this suite imports and ends: whatever happens is one line and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

from sparserl.errors import ConfigError, RunStopped, SparserlError, one_line
from sparserl.experiment.signals import INTERRUPTED, interrupting, leaving_at_once
from sparserl.recording.rendering import GL, HOW_TO_DRAW, LONGEST_REASON, is_of_mujoco

UNREAD = 141
"""Exit status if a pipe is closed, as of other programs; 128 and SIGPIPE."""
TRACEBACK = "SPARSERL_TRACEBACK"
"""Environment variable that shows where an unexpected error came from."""


def load(name: str) -> ModuleType:
    """A module, imported now, which takes seconds: Ctrl-C ends the process quietly.

    MuJoCo loads what MUJOCO_GL names as soon as it is imported, and fails in many ways where that is not there.

    Raises:
        ConfigError: If that happens.
    """
    try:
        with leaving_at_once():
            return importlib.import_module(name)
    except Exception as error:
        if GL in os.environ and is_of_mujoco(error):
            why = one_line(str(error), LONGEST_REASON)
            said = f"MuJoCo cannot draw with {GL}={os.environ[GL]} here ({why}); unset it where nothing is drawn, or "
            raise ConfigError(f"{said}{HOW_TO_DRAW}") from error
        raise


def exit_status(work: Callable[[], int]) -> int:
    """Does the work of a process, and prints the last line of one that does not reach its end.

    Args:
        work: Gives the exit status.

    Returns:
        Exit status: that of the work, 1 a run failed while running or there is a fault in sparserl, 2 wrong input, 130
        interrupted, 141 the reader of what is printed has gone.
    """
    with interrupting() as was_interrupted:
        try:
            status = work()
            sys.stdout.flush()  # here, where a closed pipe is seen
            return status
        except RunStopped as stop:
            return _say(str(stop), stop.exit_status, before="\n")  # on a line below the bar
        except SparserlError as error:
            return _say(str(error), error.exit_status)
        except KeyboardInterrupt as stop:
            return _say(str(stop) or "interrupted", INTERRUPTED)
        except BrokenPipeError:
            _print_nowhere()
            return UNREAD
        except MemoryError as error:
            return _say(one_line(f"out of memory{f' ({error})' if str(error) else ''}"), 1)
        except Exception as error:
            if was_interrupted():  # a library made another exception of it
                return _say("interrupted", INTERRUPTED)
            if os.environ.get(TRACEBACK):
                traceback.print_exc()
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return _say(one_line(f"failed unexpectedly ({what}); {TRACEBACK}=1 before the command shows where"), 1)


def _say(line: str, status: int, before: str = "sparserl: ") -> int:
    """Prints the last line of a process, with something before it; gives its exit status."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        print(f"{before}{line}", file=sys.stderr, flush=True)
    return status


def _print_nowhere() -> None:
    """Keeps Python, which flushes at its end, from complaining about a closed pipe."""
    with contextlib.suppress(OSError, ValueError):  # no real file, as in a notebook
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
