"""How many numbers something is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch


def count_numbers(tree: Any, without: Collection[str] = ()) -> int:
    """Numbers in a tree of mappings and sequences: entries of tensors and arrays, whatever their type, and single ones.

    Text and None are none.

    Args:
        tree: The tree.
        without: Keys of mappings, at any depth, whose values do not count.

    Example:
        >>> count_numbers({"a": torch.zeros(2, 3), "b": [1, 2.0, "text", None], "c": np.zeros(4, bool)})
        12
    """
    if isinstance(tree, torch.Tensor):
        return tree.numel()
    if isinstance(tree, np.ndarray):
        return int(tree.size)
    if isinstance(tree, Mapping):
        return sum(count_numbers(value, without) for key, value in tree.items() if key not in without)
    if isinstance(tree, list | tuple):
        return sum(count_numbers(value, without) for value in tree)
    return int(isinstance(tree, int | float))
