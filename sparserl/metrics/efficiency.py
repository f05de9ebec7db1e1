"""What a sparse network is worth in parameters of dense ones.

Definitions of this suite; that of Hoefler et al. 2021 (parameter efficiency) asks the same question in another way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dense_equivalent(sizes: Sequence[float], qualities: Sequence[float], quality: float) -> float:
    """Parameters of the smallest dense network that reaches a quality, on the way from size to size of a sweep.

    Quality goes along a straight line between neighbouring sizes, over the logarithm of the size.

    Args:
        sizes: Parameters of the dense networks, each once, > 0.
        qualities: What each of them reached; more is better.
        quality: What a sparse one reached.

    Returns:
        NaN where no network of the sweep reaches it, or the smallest one does: then it is beyond what was tried.

    Example:
        >>> round(dense_equivalent([10_000, 30_000, 100_000], [0.90, 0.95, 0.97], 0.96))
        54772
    """
    order = np.argsort(sizes)
    logs, reached = np.log(np.asarray(sizes, np.float64)[order]), np.asarray(qualities, np.float64)[order]
    enough = np.flatnonzero(reached >= quality)
    if enough.size == 0 or enough[0] == 0:
        return float("nan")
    end = int(enough[0])
    share = (quality - reached[end - 1]) / (reached[end] - reached[end - 1])
    return float(np.exp(logs[end - 1] + share * (logs[end] - logs[end - 1])))
