"""Herding: cases worked by hand, and against trying all candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparserl.continual.shared.herding import herd


@pytest.mark.parametrize(
    ("vectors", "count", "chosen"),
    [
        ([[0.0], [1.0], [5.0]], 3, [1, 2, 0]),  # the mean is 2: 1, then (1 + 5) / 2 = 3 beats 1 / 2, then what is left
        ([[0.0], [1.0], [5.0]], 1, [1]),
        ([[0.0], [1.0], [5.0]], 9, [1, 2, 0]),
        ([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]], 2, [2, 0]),  # the mean is (1, 1); then both others are as good
        ([[1.0], [1.0]], 2, [0, 1]),
        ([[4.0]], 1, [0]),
    ],
)
def test_by_hand(vectors: list[list[float]], count: int, chosen: list[int]) -> None:
    assert herd(np.array(vectors), count).tolist() == chosen


@given(st.integers(0, 10_000))
def test_each_choice_is_the_best_that_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(9, 3))
    chosen = herd(vectors, 6).tolist()
    assert len(set(chosen)) == 6
    mean = vectors.mean(axis=0)
    for size in range(6):
        before = chosen[:size]
        distance = {
            one: float(np.linalg.norm(mean - vectors[[*before, one]].mean(axis=0)))
            for one in range(9)
            if one not in before
        }
        assert distance[chosen[size]] == pytest.approx(min(distance.values()))
