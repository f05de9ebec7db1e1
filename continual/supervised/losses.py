"""Losses of classifiers as NumPy arithmetic that returns its derivative: in small networks autograd takes most time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparserl.continual.supervised.tasks import Integers

Reals = npt.NDArray[np.floating]


def cross_entropy(logits: Reals, labels: Integers, weights: Reals | None = None) -> tuple[float, Reals]:
    """Mean cross-entropy, and its gradient with respect to the logits.

    Args:
        logits: (B, C) finite numbers, B >= 1.
        labels: (B,) right classes.
        weights: (C,) of classes, >= 0, those of the labels not all 0: the mean is that of weighted samples. All 1 if
            None.

    Returns:
        The loss in nats, and (B, C) of the logits' type.

    Example:
        >>> loss, gradient = cross_entropy(np.zeros((1, 2)), np.array([0]))
        >>> round(loss, 4), gradient
        (0.6931, array([[-0.5,  0.5]]))
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    gradient = np.exp(shifted)
    totals = gradient.sum(axis=1, keepdims=True)
    losses = np.log(totals[:, 0]) - shifted[rows, labels]
    gradient /= totals
    gradient[rows, labels] -= 1
    if weights is None:
        gradient /= len(labels)
        return float(losses.mean()), gradient
    shares = weights[labels] / weights[labels].sum()
    gradient *= shares[:, np.newaxis]
    return float((losses * shares).sum()), gradient


def squared_error(outputs: Reals, targets: Reals) -> tuple[float, Reals]:
    """Mean squared error of all entries, and its gradient with respect to the outputs.

    Args:
        outputs: (B, F), B and F >= 1.
        targets: (B, F).

    Example:
        >>> squared_error(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
        (2.0, array([[0., 2.]]))
    """
    gradient = outputs - targets
    error = float(np.vdot(gradient, gradient)) / gradient.size
    gradient *= 2 / gradient.size
    return error, gradient
