"""The errors that users can meet, and how a wrong name is reported.

Every message is one line that names the bad value and, where there is one, the closest good one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SparserlError(Exception):
    """Base of the errors below; the command line turns each into one line."""


class TopologyError(SparserlError, ValueError):
    """A topology or a change of it is not valid."""


class KernelUnavailable(SparserlError, RuntimeError):
    """A device or kernel backend was asked for that cannot be had."""


class ConfigError(SparserlError, ValueError):
    """A name, key or value given by the user is not valid."""


class CheckpointError(SparserlError, RuntimeError):
    """A checkpoint is incomplete, edited, foreign, or of another format version."""


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
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"unknown {kind} {name!r}; did you mean {close[0]!r}?"
    return f"unknown {kind} {name!r}; valid: {', '.join(valid)}"
