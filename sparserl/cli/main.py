"""One level of sub-commands; every error of a user is one line and exit status 2."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from sparserl.cli.loading import load
from sparserl.errors import ConfigError, RunStopped, SparserlError, one_line, shown, unknown_name
from sparserl.experiment.signals import INTERRUPTED, interrupting

UNREAD = 141
"""Exit status if a pipe is closed, as of other programs; 128 and SIGPIPE."""
TRACEBACK = "SPARSERL_TRACEBACK"
"""Environment variable that shows where an unexpected error came from."""

COMMANDS = {
    "train": ("sparserl.cli.train", "train an agent, or resume a run"),
    "continual": ("sparserl.cli.continual", "learn a sequence of tasks, or resume a run"),
    "sweep": ("sparserl.cli.sweep", "train a grid of configs times seeds, several runs at a time"),
    "tune": ("sparserl.cli.tune", "search the values of a config that learn best"),
    "eval": ("sparserl.cli.evaluate", "evaluate the policy of a run"),
    "enjoy": ("sparserl.cli.enjoy", "watch the policy of a run, or write a video"),
    "export": ("sparserl.cli.export", "write the policy of a run as arrays, ONNX or C"),
    "plot": ("sparserl.cli.plot", "draw learning curves, topology and accuracies of runs"),
    "report": ("sparserl.cli.report", "compare runs with intervals over seeds: return, continual metrics, cost"),
    "dashboard": ("sparserl.cli.dashboard", "make the W&B workspace that shows runs"),
    "bench": ("sparserl.cli.bench", "time updates, kernels, scale and returns, sparse beside dense"),
    "list": ("sparserl.cli.listing", "list algos, envs, sequences, methods or presets"),
}
"""Sub-command -> (module with `run(arguments) -> exit status`, summary). Modules load when they are needed."""


def usage() -> str:
    """The help text of `sparserl`."""
    lines = [f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items()]
    return (
        "usage: sparserl COMMAND [options]\n\ncommands:\n"
        + "\n".join(lines)
        + ("\n\n`sparserl COMMAND --help` lists the options of a command.")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: Words after `sparserl`; those of the process if None.

    Returns:
        Exit status: 0 done, 1 a run failed while running or there is a fault in sparserl, 2 wrong input, 130
        interrupted, 141 nobody reads what is printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with interrupting() as was_interrupted:
        try:
            status = _run(words)
            sys.stdout.flush()  # here, where a pipe that nobody reads is seen
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


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from sparserl import __version__

        print(__version__)
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise ConfigError(unknown_name("command", name, COMMANDS))
    for word in rest:
        if not word.isascii() and "\\udc" in ascii(word):  # bytes of no text, as Python passes them on
            raise ConfigError(f"{shown(word)} is not text in UTF-8")
    status: int = load(COMMANDS[name][0]).run(rest)
    return status


def _say(line: str, status: int, before: str = "sparserl: ") -> int:
    """Prints the last line of a command, with something before it; gives its exit status."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        print(f"{before}{line}", file=sys.stderr, flush=True)
    return status


def _print_nowhere() -> None:
    """Keeps Python, which flushes at its end, from complaining about a pipe that nobody reads."""
    with contextlib.suppress(OSError, ValueError):  # no real file, as in a notebook
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
