"""How good an ensemble of classifiers is, how unlike its members are, and whether its probabilities can be believed."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.floating]
"""(N, C) of each class, rows that sum to 1; of M members (M, N, C)."""
Labels = npt.NDArray[np.int64]
ECE_BINS = 15


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Share of samples whose most probable class is right."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def disagreement(members: Probabilities) -> float:
    """Share of samples that two members classify otherwise, mean over pairs; NaN of one member.

    Example:
        >>> members = np.eye(2)[[[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]]
        >>> round(disagreement(members), 4)  # 1/4, 2/4 and 1/4
        0.3333
    """
    chosen = members.argmax(axis=2)
    pairs = [(chosen[i] != chosen[j]).mean() for i in range(len(chosen)) for j in range(i)]
    return float(np.mean(pairs)) if pairs else float("nan")


def divergence(members: Probabilities) -> float:
    """Kullback-Leibler divergence of one member's classes from another's in nats, mean over samples and ordered pairs;
    NaN of one member."""
    logs = _logs(members)
    pairs = [(members[i] * (logs[i] - logs[j])).sum(axis=1).mean() for i, j in permutations(range(len(members)), 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Mean -log of the probability of the right class, in nats."""
    return float(-_logs(probabilities)[np.arange(len(labels)), labels].mean())


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = ECE_BINS) -> float:
    """Expected calibration error: |accuracy - mean confidence| in bins of equal width of the confidence, by samples.

    The confidence is the probability of the most probable class; a bin holds its upper end.

    Source:
        Guo et al. 2017, "On calibration of modern neural networks", equation 3.

    Example:
        >>> of_four = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
        >>> round(calibration_error(of_four, np.array([0, 1, 0, 0]), bins=2), 4)  # all in (.5, 1]: |.5 - .75|
        0.25
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(labels))


def _logs(probabilities: Probabilities) -> Probabilities:
    logs: Probabilities = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    return logs
