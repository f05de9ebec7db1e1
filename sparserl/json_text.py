"""JSON as any program can read it: it has no NaN and no infinity.

Every JSON file of a run is written through here. What a file says of a number that is not finite is null; a
checkpoint, which must come back exactly, holds such numbers as `exactly` gives them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

FLOAT = "__float__"
"""Key of a number that JSON does not have, in a checkpoint."""


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Plain data as JSON; NaN and infinities become null.

    Raises:
        TypeError: If something in it is no plain data.
    """
    return json.dumps(_without_non_finite(data), indent=indent, allow_nan=False)


def exactly(value: float) -> float | dict[str, str]:
    """A number as JSON can hold it and `number_of` gives it back: itself, or its name under `FLOAT`."""
    return value if math.isfinite(value) else {FLOAT: repr(value)}


def number_of(held: Mapping[str, str]) -> float:
    """The number that `exactly` has named.

    Raises:
        ValueError: If it is no number.
    """
    return float(held[FLOAT])


def _without_non_finite(node: Any) -> Any:
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if isinstance(node, Mapping):
        return {key: _without_non_finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_non_finite(value) for value in node]
    return node
