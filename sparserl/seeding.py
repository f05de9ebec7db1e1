"""Independent random streams from one root seed and a path of names.

A stream depends on its names alone, so adding a layer or changing a rule disturbs no other stream.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(root_seed: int, *names: str) -> np.random.Generator:
    """A generator that belongs to `names` under `root_seed`.

    Args:
        root_seed: Seed of the run, >= 0.
        names: Path of the consumer, e.g. `("topology", "actor.mu.0")`. CRC-32 of each name enters the seed
            sequence, because Python's `hash` of a string differs between processes.

    Example:
        >>> stream(0, "a").integers(10**9) == stream(0, "a").integers(10**9)
        np.True_
        >>> stream(0, "a").integers(10**9) == stream(0, "b").integers(10**9)
        np.False_
    """
    return np.random.default_rng([root_seed, *(zlib.crc32(name.encode()) for name in names)])
