"""Where sparse stops being faster than dense."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from sparserl.bench.options import Record


def crossover(densities: Sequence[float], speed_ups: Sequence[float]) -> Record:
    """The lowest density at which sparse is no faster than dense, interpolated on logarithmic axes.

    Args:
        densities: Measured densities.
        speed_ups: Dense time over sparse time at each.

    Returns:
        `crossover`, a density, None where it lies outside of those measured, and `text`, which then says on which side.

    Example:
        >>> crossover([0.01, 0.1, 1.0], [20.0, 2.0, 0.5])["text"]
        '0.316'
        >>> crossover([0.1, 0.2], [20.0, 8.0])
        {'crossover': None, 'text': 'above 0.2'}
    """
    points = sorted(zip(densities, speed_ups, strict=True))
    if points[0][1] <= 1.0:
        return {"crossover": None, "text": f"below {points[0][0]:g}"}
    for (low, faster), (high, slower) in itertools.pairwise(points):
        if slower <= 1.0:
            share = math.log(faster) / (math.log(faster) - math.log(slower))
            density = low * (high / low) ** share
            return {"crossover": density, "text": f"{density:.3g}"}
    return {"crossover": None, "text": f"above {points[-1][0]:g}"}
