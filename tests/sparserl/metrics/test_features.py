"""Stable rank and condition of features: cases worked by hand, a decomposition of numpy's, what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparserl.metrics.features import NEGLIGIBLE, condition, squared_singular_values, stable_rank


def rotation(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def with_singular_values(values: list[float], samples: int, seed: int = 0) -> np.ndarray:
    """(samples, len(values)) whose columns are centred and which has these singular values."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(samples, len(values)))
    left = np.linalg.qr(drawn - drawn.mean(axis=0))[0]
    return np.asarray((left * values) @ rotation(len(values), seed).T)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[2.0, 0.0], [0.0, 1.0]], 1.25),  # (4 + 1) / 4
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], 3.0),
        ([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], 1.0),  # one direction
        ([[3.0, 4.0]], 1.0),  # one sample
        ([[5.0, 5.0], [5.0, 5.0]], 1.0),  # what is constant counts: features are not centred
        ([[0.0, 0.0], [0.0, 0.0]], math.nan),
    ],
)
def test_stable_ranks_by_hand(matrix: list[list[float]], expected: float) -> None:
    assert stable_rank(np.array(matrix, np.float32)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0, 2.0, 1.0], 4.0),
        ([4.0, 2.0, 0.0], 2.0),  # a direction that is not there
        ([1.0, 0.5, 1e-9], 2.0),  # or is of rounding alone
        ([1.0, 1e-3], 1e3),
        ([7.0], 1.0),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_conditions_of_known_singular_values(values: list[float], expected: float, shift: float) -> None:
    assert condition(with_singular_values(values, 20) + shift) == pytest.approx(expected, rel=1e-6)


def test_what_is_negligible_stands_at_the_documented_share() -> None:
    threshold = 20 * NEGLIGIBLE  # of 20 samples
    assert condition(with_singular_values([1.0, 1.1 * threshold], 20)) == pytest.approx(1 / (1.1 * threshold), rel=1e-3)
    assert condition(with_singular_values([1.0, 0.9 * threshold], 20)) == pytest.approx(1.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1000.0])
def test_features_that_never_change_have_no_condition(constant: float) -> None:
    assert math.isnan(condition(np.full((7, 3), constant, np.float32)))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_as_numpy_decomposes_it(samples: int, neurons: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(samples, neurons)).astype(np.float32)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert squared_singular_values(matrix) == pytest.approx(values**2, rel=1e-9, abs=1e-12)
    assert stable_rank(matrix) == pytest.approx((values**2).sum() / values[0] ** 2)
    assert 1.0 <= stable_rank(matrix) <= min(matrix.shape) + 1e-9
    # Neither the unit of features nor the order of neurons matters.
    assert stable_rank(1e-3 * matrix[:, ::-1]) == pytest.approx(stable_rank(matrix))


def test_single_precision_does_not_hide_a_direction() -> None:
    matrix = with_singular_values([1.0, 0.1, 2e-4], 256).astype(np.float32)
    assert condition(matrix + np.float32(1.0)) == pytest.approx(5e3, rel=1e-2)
