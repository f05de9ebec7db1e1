"""Tables of sizes and addresses that kernels read, and how it is known that a kept one still holds.

A kernel reads and writes what a table says, unchecked. So a table is kept only as long as the addresses *and* lengths
of its arrays are the same: the allocator gives the address of an array that is gone to another one of another length.

With the environment variable SPARSERL_CHECK_TABLES=1 every table is compared with its arrays before each call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

CHECKED = os.environ.get("SPARSERL_CHECK_TABLES", "0") not in ("", "0")
"""Whether tables are compared with their arrays before each call; for tests and debugging."""

address: Callable[[torch.Tensor], int] = torch.Tensor.data_ptr
length: Callable[[torch.Tensor], int] = torch.Tensor.numel


def key(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """Addresses and lengths: another list whenever a table of these tensors has to be made anew.

    An element type is that of the whole table; where that can change too, the caller adds it.
    """
    return [*map(address, tensors), *map(length, tensors)]


def check(name: str, kept: Sequence[Any], present: Sequence[Any]) -> None:
    """Compares a kept table with the present arrays; called if `CHECKED`, before each call of a kernel.

    Args:
        name: Of the table, for the message.
        kept: Its arrays of sizes and addresses.
        present: The same, made of the arrays as they are now.

    Raises:
        RuntimeError: If they differ: the kernel would read or write memory that is not, or no longer, an array's.
    """
    if len(kept) != len(present) or not all(map(np.array_equal, kept, present)):
        raise RuntimeError(f"the table of {name} does not describe the present arrays; please report this")
