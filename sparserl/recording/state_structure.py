"""Whether the state in a checkpoint is built as this run would write it: keys, types, shapes.

What is expected is the state of the run as it was just made, with `Each`, `Named` and `ANYTHING` where it grows later.
A checkpoint whose files are as its manifest says may still have been edited, and its checksums renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sparserl.errors import CheckpointError, clipped


@dataclass(frozen=True)
class Each:
    """A list of any length, of items like one."""

    item: Any


@dataclass(frozen=True)
class Named:
    """A dict with any keys, of values like one."""

    value: Any


ANYTHING = None
"""Expected where the owner of a part checks it itself, as nothing is known here."""


def check_structure(stored: Any, expected: Any, where: str = "the checkpoint") -> None:
    """Compares a loaded state with what is expected. Values are not compared.

    Arrays must have the same type and shape, but may have another length along the first axis, since the number of
    connections, for example, changes. None, an empty list and an empty dict stand for anything, any list and any dict;
    a float may be found as an integer, and a number as None: a clock that has run out, a draw that is not kept.

    Args:
        found: From `sparserl.recording.checkpoint.load`.
        expected: The same part of a run that was just made.
        where: Where in the state this is, for messages.

    Raises:
        CheckpointError: If they differ; names where.
    """
    if expected is None:
        return
    if isinstance(expected, torch.Tensor | np.ndarray):
        array = expected if isinstance(expected, torch.Tensor) else torch.from_numpy(expected.copy())
        _check_array(stored, array, where)
    elif isinstance(expected, Named):
        for key, value in _of_type(stored, dict, where).items():
            check_structure(value, expected.value, f"{where}/{key}")
    elif isinstance(expected, Mapping):
        _check_keys(_of_type(stored, dict, where), expected, where)
        for key, value in expected.items():
            check_structure(stored[key], value, f"{where}/{key}")
    elif isinstance(expected, Each):
        for index, value in enumerate(_of_type(stored, list, where)):
            check_structure(value, expected.item, f"{where}/{index}")
    elif isinstance(expected, list | tuple):
        items = _of_type(stored, list, where)
        if expected and len(items) != len(expected):
            raise CheckpointError(f"{_at(where)} holds {len(items)} items, not {len(expected)}")
        for index, (one, other) in enumerate(zip(items, expected, strict=False)):
            check_structure(one, other, f"{where}/{index}")
    else:
        _check_plain(stored, expected, where)


def _of_type(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise CheckpointError(f"{_at(where)} is {_kind(value)}, not a {kind.__name__}")
    return value


def _check_keys(stored: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    if expected and set(stored) != set(expected):
        other = sorted(set(stored) ^ set(expected))[0]
        what = "lacks" if other in expected else "has an unknown"
        raise CheckpointError(f"{_at(where)} {what} {clipped(repr(other))}")


def _check_array(stored: Any, expected: torch.Tensor, where: str) -> None:
    if not isinstance(stored, torch.Tensor):
        raise CheckpointError(f"{_at(where)} is {_kind(stored)}, not an array")
    fits = stored.ndim == expected.ndim and stored.shape[1:] == expected.shape[1:]
    if stored.dtype != expected.dtype or not fits:
        raise CheckpointError(
            f"{_at(where)} is an array of {stored.dtype} and shape {tuple(stored.shape)}, "
            f"not of {expected.dtype} and {tuple(expected.shape)}"
        )


def _check_plain(stored: Any, expected: Any, where: str) -> None:
    expected = expected.item() if isinstance(expected, np.generic) else expected
    kinds: tuple[type, ...] = (type(expected),)
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        kinds = (type(None), int, float)[: 2 + isinstance(expected, float)]
    if type(stored) not in kinds:
        raise CheckpointError(f"{_at(where)} is {_kind(stored)}, not {kinds[-1].__name__}")


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _at(where: str) -> str:
    return clipped(where, 120)
