"""Memory for passes of wide networks, lent to one pass at a time.

Actor and critics take turns, and at a million neurons what each keeps for its way back is more than all connections.
Fresh pages cost more than a product, so a block that is given back is kept for the next one of about its size.
"""

from __future__ import annotations

from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt

LINE = 64
"""Bytes of a cache line, with which all memory begins."""
LARGE = 1 << 24
"""Bytes from which memory is lent by the pool: below, there is no shortage."""
FIT = 1.25
"""A block serves a request down to this part of its size."""


class Pool:
    """Blocks of memory for all threads; no more of them than were lent at the same time.

    Attributes:
        lent: Bytes that are in use.
        most: Bytes that have been in use at the same time.
    """

    def __init__(self) -> None:
        self.lent = self.most = 0
        self._idle: list[npt.NDArray[np.uint8]] = []
        self._turn = RLock()  # the end of a block may come while one is taken

    def take(self, size: int) -> Block:
        """At least `size` bytes, of any content, until the block is gone."""
        with self._turn:
            fitting = [block for block in self._idle if size <= block.size <= FIT * size]
            memory = min(fitting, key=len) if fitting else None
            if memory is not None:
                self._idle = [block for block in self._idle if block is not memory]
            self.lent += size if memory is None else memory.size
            self.most = max(self.most, self.lent)
            self._let_go()
        return Block(self, np.empty(size, np.uint8) if memory is None else memory)

    def give(self, memory: npt.NDArray[np.uint8]) -> None:
        """Takes a block's memory back."""
        with self._turn:
            self.lent -= memory.size
            self._idle.append(memory)
            self._let_go()

    def idle(self) -> int:
        """Bytes that are not lent."""
        return sum(map(len, self._idle))

    def _let_go(self) -> None:
        while self._idle and self.lent + self.idle() > self.most:
            self._idle.pop(0)


class Block:
    """Memory on loan; goes back to its pool when nothing refers to the block any more."""

    def __init__(self, pool: Pool, memory: npt.NDArray[np.uint8]):
        self.pool, self.memory = pool, memory

    def __del__(self) -> None:
        self.pool.give(self.memory)


POOL = Pool()


class Memory:
    """An array that begins with a cache line, of any content; large ones are lent by `POOL`.

    Args:
        count: Elements.
        dtype: Their type.

    Attributes:
        array: (count,) to be used as long as this object is there.
        is_lent: Whether another pass gets the memory after that.
    """

    def __init__(self, count: int, dtype: npt.DTypeLike):
        size = count * np.dtype(dtype).itemsize
        self.is_lent = size >= LARGE
        self._block = POOL.take(size + LINE) if self.is_lent else None
        # NumPy's own, which asks for huge pages where it is large.
        memory = np.empty(size + LINE, np.uint8) if self._block is None else self._block.memory
        start = -memory.ctypes.data % LINE
        self.array: npt.NDArray[Any] = memory[start : start + size].view(dtype)
