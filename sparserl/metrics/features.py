"""How many directions the features of a network use, and how unequal these are: pure functions of a batch of them.

Who takes features from a network, and when, is decided elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sparserl.topology.structure import FloatArray

NEGLIGIBLE = float(np.finfo(np.float32).eps)
"""Relative rounding of features in single precision; a singular value of B x n of them is negligible at or below
max(B, n) times this share of the largest, as in `numpy.linalg.matrix_rank`."""


def stable_rank(features: npt.NDArray[np.floating]) -> float:
    """||A||_F^2 / ||A||_2^2: how many directions carry the features, each counted by its share of the strongest one.

    From 1 to min(B, n); unlike a rank it does not jump where a direction becomes small.

    Args:
        features: (B, n) activations A, not centred.

    Returns:
        NaN where all of them are 0.

    Source:
        Rudelson and Vershynin 2007, of A as it is.

    Example:
        >>> stable_rank(np.diag([2.0, 1.0, 1.0, 0.0]))
        1.5
    """
    squares = squared_singular_values(features)
    return float(squares.sum() / squares[0]) if squares[0] > 0.0 else math.nan


def condition(features: npt.NDArray[np.floating]) -> float:
    """Largest singular value of the centred features over the smallest that is not negligible (`NEGLIGIBLE`).

    At least 1. What is negligible, as of neurons that never change, does not count, so this is at most
    1 / (max(B, n) eps), 32,768 of 256 samples and at most as many neurons.

    Args:
        features: (B, n) activations; the mean over the batch is taken off each column first.

    Returns:
        NaN where no feature changes over the batch.

    Example:
        >>> round(condition(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 5.0), 6)
        3.0
    """
    centred = np.asarray(features, np.float64)
    squares = squared_singular_values(centred - centred.mean(axis=0))
    # Of columns that do not change at all, rounding of the mean alone is left.
    if squares[0] <= (NEGLIGIBLE * np.abs(features).max(initial=0.0)) ** 2:
        return math.nan
    smallest = max(features.shape) * NEGLIGIBLE
    return float(np.sqrt(squares[0] / squares[squares > smallest**2 * squares[0]][-1]))


def squared_singular_values(matrix: npt.NDArray[np.floating]) -> FloatArray:
    """(min(B, n),) >= 0, the largest first, of a (B, n) matrix.

    Eigenvalues of the smaller of its two Gram matrices, in double precision: of what was computed in single precision
    they are as good as a decomposition of the matrix itself, at a fraction of its time.
    """
    wide = np.asarray(matrix, np.float64)
    gram = wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T
    squares: FloatArray = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return squares
