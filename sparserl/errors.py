"""The errors that users can meet, and how what is wrong is said.

Every message is one line of bounded length that names the bad value and, where there is one, the closest good one.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

LONGEST_MESSAGE, LONGEST_VALUE = 300, 80
"""Characters of a message, and of a value in it; what is longer loses its middle."""


class SparserlError(Exception):
    """Base of the errors below; the command line turns each into one line, which `str` gives.

    Attributes:
        exit_status: With which the command line ends.
        longest: Characters of the line.
    """

    exit_status: ClassVar[int] = 2
    longest: ClassVar[int] = LONGEST_MESSAGE

    def __str__(self) -> str:
        return one_line(super().__str__(), self.longest)


class TopologyError(SparserlError, ValueError):
    """A topology or a change of it is not valid."""


class KernelUnavailable(SparserlError, RuntimeError):
    """A device or kernel backend was asked for that cannot be had."""


class ConfigError(SparserlError, ValueError):
    """A name, key or value given by the user is not valid."""


class CheckpointError(SparserlError, RuntimeError):
    """A checkpoint is incomplete, edited, foreign, or of another format version."""


class RunFailed(SparserlError, RuntimeError):
    """A run failed while running; its folder is kept."""

    exit_status: ClassVar[int] = 1
    longest: ClassVar[int] = 1_000  # it names folders, and a command that goes on


class RunStopped(RunFailed):
    """A run was stopped by Ctrl-C or SIGTERM, and can go on."""

    exit_status: ClassVar[int] = 130


class NotFiniteError(RunFailed, ArithmeticError):
    """Something that a run computes became NaN or infinite.

    Args:
        message: What; the step is added.
        step: At which step; None if unknown.
        seen: Values around it, by name, to help find the cause.
    """

    def __init__(self, message: str, step: int | None = None, seen: Mapping[str, Any] | None = None):
        super().__init__(message if step is None else f"{message} at step {step:,}")
        self.step, self.seen = step, dict(seen or {})


class NotFiniteScoreError(TopologyError, NotFiniteError):
    """What connections or neurons are chosen by is NaN or infinite."""


def one_line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Text without line breaks and control characters, and without its middle where it is too long.

    Example:
        >>> one_line("a\\n  b")
        'a b'
    """
    words = " ".join(clipped(text, 4 * longest).split())
    return clipped("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in words), longest)


def clipped(text: str, longest: int = LONGEST_VALUE) -> str:
    """Text without its middle where it is longer than `longest`, at least 10.

    Example:
        >>> clipped("abcdefghijklmnop", 10)
        'abc ... op'
    """
    if len(text) <= longest:
        return text
    tail = (longest - 5) // 2
    return f"{text[: longest - 5 - tail]} ... {text[-tail:]}"


class _Shown(reprlib.Repr):
    """`repr` that does not look at all of a large value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong = 4, LONGEST_VALUE
        self.maxstring = self.maxother = LONGEST_VALUE


def shown(value: Any) -> str:
    """A value as a message shows it: its `repr`, clipped."""
    return clipped(_Shown().repr(value))


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """One line that says which name is unknown and which valid one is closest.

    Args:
        kind: What was named, e.g. `"drop criterion"`.
        name: The name that is not valid.
        valid: All valid names.

    Example:
        >>> unknown_name("method", "ds_td4", ["ds_td3", "set"])
        "unknown method 'ds_td4'; did you mean 'ds_td3'?"
    """
    valid = sorted(valid)
    name = clipped(name)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"unknown {kind} {name!r}; did you mean {close[0]!r}?"
    return f"unknown {kind} {name!r}; valid: {', '.join(valid)}"
