"""How active hidden neurons are for each class."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sparserl.layers import SparseMLP
from sparserl.layers.activity import hidden_activity
from sparserl.topology.structure import FloatArray


def summed_activity(
    network: SparseMLP, parts: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[dict[int, list[FloatArray]], dict[int, int]]:
    """Summed |activation| of the neurons of each hidden layer over the samples of each class.

    Args:
        network: In use, as it is now.
        parts: (B, n_in) samples and (B,) their classes, some at a time.

    Returns:
        By class that has samples, (n,) float64 of each hidden layer; and how many samples it has.
    """
    sums: dict[int, list[FloatArray]] = {}
    counts: dict[int, int] = {}
    for x, y in parts:
        for label in np.unique(y.numpy()).tolist():
            own = x[y == label]
            added = [len(own) * activity for activity in hidden_activity(network, own)]
            sums[label] = [np.add(*pair) for pair in zip(sums[label], added, strict=True)] if label in sums else added
            counts[label] = counts.get(label, 0) + len(own)
    return sums, counts
