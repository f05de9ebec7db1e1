"""Which observations are vectors of floats: what networks of linear layers alone can read as it is."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces


def is_vector(space: spaces.Space[Any]) -> bool:
    """Whether a space is of vectors of floats."""
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"
