"""How many numbers something is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def count_numbers(tree: Any) -> int:
    """Numbers in a tree of mappings and sequences: entries of tensors and arrays, whatever their type, and single ones.

    Text and None are none.

    Example:
        >>> count_numbers({"a": torch.zeros(2, 3), "b": [1, 2.0, "text", None], "c": np.zeros(4, bool)})
        12
    """
    if isinstance(tree, torch.Tensor):
        return tree.numel()
    if isinstance(tree, np.ndarray):
        return int(tree.size)
    if isinstance(tree, Mapping):
        return sum(map(count_numbers, tree.values()))
    if isinstance(tree, list | tuple):
        return sum(map(count_numbers, tree))
    return int(isinstance(tree, int | float))
