"""First connections: exact, as wide for every output, and uniform."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracle.dense_topology import mask_of

from sparserl.errors import TopologyError
from sparserl.layers import SparseMLP
from sparserl.topology.config import TopologyConfig
from sparserl.topology.initial_topology import INITIAL, constant_fan_in

RNG = np.random.default_rng


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(["random", "constant_fan_in"]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    st.integers(1, 9),
    st.floats(0.0, 1.0),
    st.integers(0, 999),
)
def test_the_number_is_exact(name: str, pairs: int, groups: int, n_in: int, share: float, seed: int) -> None:
    nnz = round(share * groups * n_in) * pairs
    topology = INITIAL[name](groups * pairs, n_in, nnz, RNG(seed), pairs)
    topology.check_valid()
    assert (topology.n_out, topology.n_in, topology.nnz, topology.pairs) == (groups * pairs, n_in, nnz, pairs)
    if name == "constant_fan_in":
        fan_in = mask_of(topology).sum(axis=1)
        assert fan_in.max() - fan_in.min() <= 1


@pytest.mark.parametrize(("nnz", "fan_in"), [(6, [3, 3]), (7, [3, 4]), (0, [0, 0]), (9, [4, 5]), (10, [5, 5])])
def test_each_output_has_as_many_inputs(nnz: int, fan_in: list[int]) -> None:
    assert sorted(mask_of(constant_fan_in(2, 5, nnz, RNG(3))).sum(axis=1).tolist()) == fan_in


@pytest.mark.parametrize("fan_in", [1, 2])
def test_the_inputs_of_an_output_are_uniform(fan_in: int) -> None:
    # Of 3 inputs 1 or 2 in each of 2 outputs: 9 topologies, 3000 draws, 333 each with a standard deviation of 17.
    seen = Counter(tuple(constant_fan_in(2, 3, 2 * fan_in, RNG(seed)).flat.tolist()) for seed in range(3000))
    assert len(seen) == 9
    assert all(abs(count - 3000 / 9) < 90 for count in seen.values())


def test_the_output_with_one_more_is_any() -> None:
    rows = Counter(int(mask_of(constant_fan_in(3, 4, 4, RNG(seed))).sum(axis=1).argmax()) for seed in range(900))
    assert all(abs(count - 300) < 75 for count in rows.values())


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(TopologyError, match="cannot choose 9 of 8"):
        constant_fan_in(2, 4, 9, RNG(0))


def test_a_wide_layer_costs_its_connections() -> None:
    tracemalloc.start()
    topology = constant_fan_in(1000, 2**31, 3000, RNG(0))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert np.bincount(topology.outputs).tolist() == [3] * 1000


def test_a_network_begins_with_it() -> None:
    topology = TopologyConfig(method="static", density=0.3, initial_topology="constant_fan_in")
    network = SparseMLP.random([10, 20, 20, 4], topology=topology, seed=0, name="net")
    for layer in (network[0], network[1]):
        assert np.ptp(np.diff(layer.row_ptr.numpy())) <= 1
