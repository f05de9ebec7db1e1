"""`FeatureHistograms`: made from observations, drawn from, saved; `collect_histograms` on an environment."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.envs import FunctionEnv

from sparserl.envs.wrappers.feature_histograms import FeatureHistograms, collect_histograms
from sparserl.errors import ConfigError


class Given(np.random.Generator):
    """A generator whose `random` gives the numbers that it was handed."""

    def __init__(self, numbers: Any) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = np.array(numbers)

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        assert self.numbers.shape == size
        return self.numbers


ALMOST_ONE = 1.0 - 2.0**-53  # the largest number that a generator draws


def test_draw_worked_by_hand() -> None:
    histograms = FeatureHistograms(
        np.array([[0.0, 1.0, 3.0, 4.0], [-2.0, -1.0, 0.0, 8.0], [5.0, 5.0, 5.0, 5.0]]),
        np.array([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]),
    )
    drawn = histograms.draw(
        Given(
            [
                [0.0, 0.0, 0.0, 0.125],
                [0.25, 0.25, 0.5, 0.5],
                [0.625, 0.5, 0.75, 1.0 - 2.0**-20],
                [ALMOST_ONE, ALMOST_ONE, ALMOST_ONE, ALMOST_ONE],
            ]
        ),
        count=4,
        features=4,  # the last one follows the first histogram
    )
    by_hand = [
        [0.0, -2.0, 5.0, 0.5],
        [1.0, -1.5, 5.0, 1.0 + 2.0 / 3.0],  # a third of the way through the bin from 1 to 3
        [2.0, 0.0, 5.0, 3.0 - 2.0**-20 * 2.0 / 0.75],  # 0.5 is where the second bin, which is empty, would be
    ]
    np.testing.assert_allclose(drawn[:3], by_hand, rtol=1e-15)
    # Rounding may reach the end of a bin, but never the next histogram.
    np.testing.assert_allclose(drawn[3], [3.0, 8.0, 5.0, 3.0], rtol=1e-14)


def test_a_row_that_rounding_kept_from_summing_to_1() -> None:
    histograms = FeatureHistograms(np.array([[0.0, 1.0], [100.0, 101.0]]), np.array([[1.0 - 5e-10], [1.0]]))
    drawn = histograms.draw(Given([[ALMOST_ONE, ALMOST_ONE]]), 1, 2)
    np.testing.assert_allclose(drawn, [[1.0, 101.0]])


def test_of_worked_by_hand() -> None:
    observations = np.array([[0.0, 7.0], [1.0, 7.0], [1.5, 7.0], [4.0, 7.0]], np.float32)
    histograms = FeatureHistograms.of(observations, bins=4)
    assert histograms.edges.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0], [7.0] * 5]
    assert histograms.probabilities.tolist() == [[0.25, 0.5, 0.0, 0.25], [0.0, 0.0, 0.0, 1.0]]
    assert (histograms.draw(np.random.default_rng(0), 50, 2)[:, 1] == 7.0).all()


values = st.floats(-1e6, 1e6, allow_nan=False)


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=values), st.integers(1, 9))
def test_evenly_spread_draws_give_the_histogram_back(observations: Any, bins: int) -> None:
    histograms = FeatureHistograms.of(observations, bins)
    features, count = observations.shape[1], 900
    even = (np.arange(count) + 0.5) / count
    drawn = histograms.draw(Given(np.tile(even[:, None], features)), count, features)
    for feature in range(features):
        column, edges = drawn[:, feature], histograms.edges[feature]
        assert observations[:, feature].min() <= column.min() <= column.max() <= observations[:, feature].max()
        if np.diff(edges).min() > 1e-3:  # borders that rounding cannot mix up
            shares = np.histogram(column, edges)[0] / count
            np.testing.assert_allclose(shares, histograms.probabilities[feature], atol=3.0 / count)


def test_file_gives_the_same_back_bit_for_bit(tmp_path: Path) -> None:
    histograms = FeatureHistograms.of(np.random.default_rng(0).normal(size=(30, 3)), bins=7)
    histograms.save(tmp_path / "histograms.json")
    loaded = FeatureHistograms.load(tmp_path / "histograms.json")
    assert loaded.edges.tobytes() == histograms.edges.tobytes()
    assert loaded.probabilities.tobytes() == histograms.probabilities.tobytes()


def test_collecting_sees_resets_and_steps_and_repeats() -> None:
    class Watched(FunctionEnv):
        shown: list[Any]

        def reset(self, **arguments: Any) -> Any:
            observation, info = super().reset(**arguments)
            self.shown.append(observation)
            return observation, info

        def step(self, action: Any) -> Any:
            answer = super().step(action)
            self.shown.append(answer[0])
            return answer

    def collected(seed: int) -> tuple[FeatureHistograms, Any]:
        env = Watched(horizon=4)
        env.shown = []
        return collect_histograms(env, 10, seed=seed, bins=5), np.array(env.shown)

    histograms, shown = collected(0)
    assert len(shown) == 10 + 3  # resets: the first one and two ends of episodes
    assert histograms.edges[:, 0].tolist() == shown.min(axis=0).tolist()
    assert histograms.edges[:, -1].tolist() == shown.max(axis=0).tolist()
    assert (histograms.probabilities * 13).sum() == pytest.approx(39)
    assert collected(0)[0].edges.tolist() == histograms.edges.tolist()
    assert collected(1)[0].edges.tolist() != histograms.edges.tolist()


@pytest.mark.parametrize(
    ("edges", "probabilities", "message"),
    [
        ([[0.0, 1.0]], [1.0], "histograms need edges of shape (features, bins + 1)"),
        (np.zeros((0, 2)), np.zeros((0, 1)), "histograms need edges"),
        ([[0.0, 1.0]], [[0.5, 0.5]], "histograms with probabilities (1, 2) cannot have edges (1, 2)"),
        ([[1.0, 0.0]], [[1.0]], "edges of histograms must be finite and must not decrease"),
        ([[0.0, math.inf]], [[1.0]], "edges of histograms must be finite"),
        ([[0.0, math.nan]], [[1.0]], "edges of histograms must be finite"),
        ([[0.0, 1.0, 2.0]], [[0.5, 0.6]], "each row must sum to 1"),
        ([[0.0, 1.0, 2.0]], [[1.5, -0.5]], "must not be negative"),
        ([[0.0, 1.0]], [[math.nan]], "must not be negative"),
    ],
)
def test_what_is_no_histogram(edges: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureHistograms(np.array(edges), np.array(probabilities))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("observations", "bins", "message"),
    [
        (np.zeros((3, 2)), 0, r"cannot make histograms of 0 bins from observations \(3, 2\)"),
        (np.zeros((0, 2)), 5, r"cannot make histograms of 5 bins from observations \(0, 2\)"),
        (np.zeros(3), 5, r"cannot make histograms of 5 bins from observations \(3,\)"),
        (np.array([[math.nan]]), 1, "observations must be finite to make histograms of them"),
    ],
)
def test_observations_without_histograms(observations: Any, bins: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeatureHistograms.of(observations, bins)


def test_collecting_nothing() -> None:
    with pytest.raises(ConfigError, match="histograms need at least 1 step, got 0"):
        collect_histograms(FunctionEnv(), 0, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: No such file or directory"),
        ("{", "is not valid JSON"),
        ("[]", "must be JSON with arrays"),
        ('{"edges": [[0, 1]]}', "must be JSON with arrays"),
        ('{"edges": [[0, 1]], "probabilities": [[1]], "more": 1}', "must be JSON with arrays"),
        ('{"edges": [[0, 1], [1]], "probabilities": [[1]]}', "must be JSON with arrays"),
        ('{"edges": [["a", "b"]], "probabilities": [[1]]}', "must be JSON with arrays"),
        ('{"edges": {"a": 1}, "probabilities": [[1]]}', "must be JSON with arrays"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "histograms.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        FeatureHistograms.load(path)
