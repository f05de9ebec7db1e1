"""Weights of grown connections: bounds worked by hand, one draw per connection, and their distribution."""

from __future__ import annotations

import numpy as np
import pytest
from support.layers import ints

from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology
from sparserl.topology.values import NEW_VALUE, NORMAL, SIGNED

RNG = np.random.default_rng


# x . x . -> . x x x   position 0 goes, 1, 3, 5, 6 and 7 are new: 3 connections enter the first output, 4 the second.
# x . . .    x x x x
SOME = exchange(SparseTopology(2, 4, ints(0, 2, 4)), ints(0), ints(1, 3, 5, 6, 7))
BOUNDS = {
    "zero": [0.0] * 5,
    "uniform": [0.5] * 5,  # 1 / sqrt(4)
    "xavier": [1.0] * 5,  # sqrt(6 / (4 + 2))
    "sparse_fan_in": [2**0.5] * 2 + [1.5**0.5] * 3,  # sqrt(6 / 3), sqrt(6 / 4)
    "sparse_xavier": [1.2**0.5] * 2 + [1.0] * 3,  # 2 connections leave each input: sqrt(3 / 2.5), sqrt(3 / 3)
}


@pytest.mark.parametrize("name", NEW_VALUE)
def test_each_grown_connection_gets_one_draw_within_its_bound(name: str) -> None:
    values = NEW_VALUE[name](SOME, RNG(5))
    assert values.dtype == np.float32
    if name in NORMAL:
        std = {"normal": 0.05, "wide_normal": 0.1}[name]
        np.testing.assert_allclose(values, std * RNG(5).standard_normal(5), rtol=1e-5)
        return
    drawn = RNG(5).uniform(-1.0, 1.0, 5)
    if name in SIGNED:
        size = {"tiny": 1e-12, "adam_step": 1e-3}[name]
        np.testing.assert_allclose(values, size * np.sign(drawn), rtol=1e-5)
        return
    np.testing.assert_allclose(values, drawn * BOUNDS[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NEW_VALUE)
def test_no_growth_needs_no_weights(name: str) -> None:
    for change in (
        exchange(SparseTopology(2, 4, ints(0, 2, 4)), ints(0), ints()),
        exchange(SparseTopology(2, 4, ints()), ints(), ints()),
    ):
        rng = RNG(0)
        values = NEW_VALUE[name](change, rng)
        assert (values.shape, values.dtype) == ((0,), np.float32)
        assert rng.bit_generator.state == RNG(0).bit_generator.state


def test_zero_draws_nothing() -> None:
    rng = RNG(0)
    assert NEW_VALUE["zero"](SOME, rng).tolist() == [0.0] * 5
    assert rng.bit_generator.state == RNG(0).bit_generator.state


@pytest.mark.parametrize(
    ("name", "bound"), [("uniform", 50**-0.5), ("xavier", (6 / 64) ** 0.5), ("sparse_fan_in", 0.5)]
)
def test_distribution_of_new_weights(name: str, bound: float) -> None:
    # 24 connections into each of 14 outputs, of 50 inputs.
    flat = (50 * np.arange(14)[:, None] + np.arange(0, 48, 2)).ravel()
    values = NEW_VALUE[name](exchange(SparseTopology(14, 50, ints()), ints(), flat), RNG(0))
    assert 0.97 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.mean()) < 0.1 * bound
    assert abs(values.std() - bound / np.sqrt(3)) < 0.05 * bound


def test_sparse_fan_in_follows_the_connections_that_exist() -> None:
    # In-degrees 6, 0, 54 and 216 of 300 inputs, taken up alternately: bounds 1, -, 1/3 and 1/6.
    degrees = [6, 0, 54, 216]
    flat = np.concatenate([300 * out + np.arange(0, n) for out, n in enumerate(degrees)]).astype(np.int64)
    half = SparseTopology(4, 300, flat[1::2])
    change = exchange(half, ints(), flat[::2])
    values = NEW_VALUE["sparse_fan_in"](change, RNG(2))
    outputs = flat[::2] // 300
    for out, bound in ((0, 1.0), (2, 1 / 3), (3, 1 / 6)):
        largest = np.abs(values[outputs == out]).max()
        assert 0.5 * bound < largest <= bound * (1 + 1e-6)
        assert (outputs == out).sum() == degrees[out] // 2
