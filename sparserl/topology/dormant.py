"""Which neurons of a layer hardly ever answer.

Decides what a score is and when a neuron is dormant. Independent of where activities come from and what is done with
a dormant neuron (`sparserl.layers.recycle`).
"""

from __future__ import annotations

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.structure import Flags, FloatArray


def dormancy_scores(mean_activity: FloatArray) -> FloatArray:
    """How active each neuron of a layer is, in units of the layer's mean; scores average 1.

    Args:
        mean_activity: (n,) mean |activation| of each neuron over a batch, >= 0.

    Returns:
        (n,) float64; all 0 where the whole layer is silent.

    Raises:
        TopologyError: If an activity is NaN or infinite.

    Source:
        Sokar et al. 2023 (ReDo), equation 1. Their code adds 1e-9 to the layer's mean.

    Example:
        >>> dormancy_scores(np.array([0.0, 1.0, 3.0, 4.0])).tolist()
        [0.0, 0.5, 1.5, 2.0]
    """
    activity = np.asarray(mean_activity, np.float64)
    mean = activity.mean()
    if not np.isfinite(mean):
        raise NotFiniteScoreError("an activity is NaN or infinite, so no neuron can be called dormant")
    scores: FloatArray = activity / mean if mean > 0.0 else np.zeros(activity.shape)
    return scores


def dormant(scores: FloatArray, threshold: float) -> Flags:
    """Whether the score of each neuron is at most `threshold`.

    Args:
        scores: (n,) from `dormancy_scores`.
        threshold: tau of the paper, in [0, 1); 0 leaves the neurons that are never active.

    Raises:
        TopologyError: If the threshold is out of range.

    Source:
        Sokar et al. 2023 (ReDo), definition 3.1: tau-dormant.
    """
    check_threshold(threshold)
    return np.asarray(scores <= threshold)


def check_threshold(threshold: float) -> None:
    """Raises TopologyError unless `threshold` is in [0, 1): at 1 a layer of equally active neurons is dormant."""
    if not 0.0 <= threshold < 1.0:
        raise TopologyError(f"the dormancy threshold must be in [0, 1), got {threshold}")
