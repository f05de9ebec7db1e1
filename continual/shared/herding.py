"""Herding: which few of many vectors have nearly the same mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def herd(vectors: Floats, count: int) -> Integers:
    """Chooses vectors one after another so that the mean of those chosen is each time as near as can be to that of all.

    Args:
        vectors: (n, F), n >= 1.
        count: How many; all if there are no more.

    Returns:
        (min(n, count),) indices in the order of choice; of equally good ones the first.

    Source:
        Rebuffi et al. 2017 (iCaRL), algorithm 4.

    Example:
        >>> herd(np.array([[0.0], [1.0], [5.0]]), 2).tolist()  # the mean is 2; 1 is nearest, then (1 + 5) / 2
        [1, 2]
    """
    mean, squares = vectors.mean(axis=0), np.square(vectors).sum(axis=1)
    total, left = np.zeros_like(mean), np.ones(len(vectors), bool)
    chosen: list[int] = []
    for size in range(1, min(len(vectors), count) + 1):
        # |size mean - total - v|^2 but for what is the same for all v.
        distances = squares - 2.0 * (vectors @ (size * mean - total))
        chosen.append(int(np.where(left, distances, np.inf).argmin()))
        left[chosen[-1]] = False
        total += vectors[chosen[-1]]
    return np.array(chosen, np.int64)
