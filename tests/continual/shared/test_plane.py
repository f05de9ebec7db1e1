"""Planes through the samples of a class, of whose components few entries are kept."""

from __future__ import annotations

import numpy as np
import pytest

from sparserl.continual.shared.plane import ClassSums, Plane


def sums_of(x: np.ndarray) -> ClassSums:
    sums = ClassSums.none(x.shape[1])
    sums.add(x)
    return sums


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("connections", [4, 5, 7, 12, 40])
def test_components_that_lost_what_told_them_apart_span_less(connections: int, seed: int) -> None:
    """Few entries of the largest are kept, so rows may come to be combinations of others."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 3)) @ rng.integers(0, 2, size=(3, 8)) * 5.0 + rng.normal(size=(200, 8))
    plane = Plane.of_sums(sums_of(x), components=5, connections=connections)
    loadings = np.zeros((5, 8))
    loadings.ravel()[plane.kept["places"]] = plane.kept["values"]
    assert plane.basis @ plane.basis.T == pytest.approx(np.eye(len(plane.basis)), abs=1e-9)
    assert len(plane.basis) == np.linalg.matrix_rank(loadings, tol=1e-6 * np.linalg.norm(loadings, 2))
    assert loadings @ plane.basis.T @ plane.basis == pytest.approx(loadings, abs=1e-4)


def test_rows_that_depend_on_each_other_are_one() -> None:
    kept = {"mean": np.zeros(3), "values": np.array([1.0, 2.0, 2.0, 4.0]), "places": np.array([0, 1, 3, 4])}
    plane = Plane.of_kept(kept, 2)
    assert np.abs(plane.basis) == pytest.approx(np.array([[1.0, 2.0, 0.0]]) / 5**0.5)
