"""How strong the connections into neurons are together, and which neurons are too weak to keep them."""

from __future__ import annotations

import numpy as np

from sparserl.topology.structure import Flags, FloatArray, LayerView


def incoming_strength(layer: LayerView) -> FloatArray:
    """(n_out,) sum of |weight| of the connections into each output; 0 where there are none."""
    outputs, n_out = layer.topology.outputs, layer.topology.n_out
    return np.bincount(outputs, np.abs(layer.values), n_out).astype(np.float64)


def weak_outputs(strength: FloatArray, connected: Flags, share: float) -> Flags:
    """Outputs whose strength is at or below a quantile of those that have connections; none if that would be all.

    Args:
        strength: (n_out,) of `incoming_strength`.
        connected: (n_out,) whether an output has connections.
        share: The quantile, in [0, 1); between two strengths it lies on the line between them.

    Source:
        Curci et al. 2021, "Truly sparse neural networks at scale", importance pruning.

    Example:
        >>> strength = np.arange(1, 11) / 10
        >>> np.flatnonzero(weak_outputs(strength, strength > 0, 0.2))  # the quantile is .28
        array([0, 1])
        >>> np.flatnonzero(weak_outputs(strength, strength > 0, 0.1))  # .19
        array([0])
    """
    if not connected.any():
        return connected
    weak: Flags = connected & (strength <= np.quantile(strength[connected], share))
    return weak if (connected & ~weak).any() else np.zeros_like(weak)
