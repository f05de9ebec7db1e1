"""What is done and said when something goes wrong in a run that has a folder: no bare traceback is shown.

A refusal while it gets ready takes the folder of a new run with it, so that the command can be given again. After that
the folder stays, with the traceback in a file, and the last line says how to go on.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import traceback
from collections.abc import Iterator

from sparserl.errors import LONGEST_MESSAGE, RunFailed, SparserlError, one_line
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.recording.trackers import JobType

TRACEBACK_FILE = "error.txt"
"""In the folder of a run that failed: the traceback of its last failure."""


@contextlib.contextmanager
def getting_ready(folder: RunFolder, command: JobType, *, is_new: bool) -> Iterator[None]:
    """While a run that has a folder gets ready to learn.

    Args:
        folder: Of the run.
        command: Sub-command that resumes it.
        is_new: Whether it begins; then its folder goes when it is refused or interrupted.

    Raises:
        RunFailed: Instead of an error that is no refusal.
    """
    try:
        yield
    except (SparserlError, KeyboardInterrupt, BrokenPipeError):
        if is_new:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except Exception as error:
        raise run_failed(error, folder, command) from error


@contextlib.contextmanager
def finishing(folder: RunFolder, command: JobType) -> Iterator[None]:
    """While a run that has learned to the end writes its result; arguments as in `getting_ready`.

    Raises:
        RunFailed: Instead of any error.
        KeyboardInterrupt: With how to go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped at once; {how_to_resume(folder, command)}") from None
    except BrokenPipeError:  # the reader of what is printed has gone
        raise
    except Exception as error:
        raise run_failed(error, folder, command) from error


def run_failed(error: Exception, folder: RunFolder, command: JobType) -> RunFailed:
    """What to say of a run that failed; writes the traceback into its folder, where there is room for it."""
    where = ""
    with contextlib.suppress(OSError):
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace")
        (folder.path / TRACEBACK_FILE).write_bytes(text)
        where = f", see {TRACEBACK_FILE} in its folder"
    what = one_line(f"{type(error).__name__}: {error}", LONGEST_MESSAGE // 3)
    return RunFailed(f"the run failed ({what}){where}; {how_to_resume(folder, command)}")


def how_to_resume(folder: RunFolder, command: JobType) -> str:
    """The command line that goes on with a run."""
    if folder.is_done:
        return f"{folder.path} is finished"
    if not full_checkpoints(folder):
        return f"{folder.path} has no checkpoint yet, so it cannot be resumed"
    return f"continue with: sparserl {command} --resume {shlex.quote(str(folder.path))}"
