"""Distances between topologies, against numbers worked out by hand and properties of a distance."""

from __future__ import annotations

from itertools import pairwise, permutations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sparserl.errors import TopologyError
from sparserl.metrics import topology_distance as module
from sparserl.metrics.topology_distance import jaccard_distance, topology_distance
from sparserl.topology.structure import SparseTopology


def of_columns(*rows: tuple[int, ...]) -> SparseTopology:
    """A layer given as (inputs, outputs), a column for each output."""
    mask = np.array(rows, bool).T
    return SparseTopology(*mask.shape, np.flatnonzero(mask))


FIRST = [of_columns((1, 0, 1), (1, 1, 0), (0, 1, 0), (0, 0, 1)), of_columns((1, 0), (0, 1), (1, 1))]
SECOND = [of_columns((1, 0, 0), (0, 1, 1), (0, 0, 1), (1, 1, 0)), of_columns((0, 1), (1, 1), (1, 0))]


def test_small_networks_worked_by_hand() -> None:
    """Costs [2/3 2/3 2/3; 1 2/3 0; 0 2/3 1]: neurons 0, 1, 2 are 1, 2, 0; the next layer is then 1/3 apart."""
    found = topology_distance(FIRST, SECOND)
    np.testing.assert_allclose(found.layers, [2 / 9, 1 / 3])
    assert found.mean == pytest.approx(0.2778, abs=5e-5)


def test_without_alignment_worked_by_hand() -> None:
    """Layer 1 shares 2 of 10 connections, layer 2 2 of 6."""
    found = topology_distance(FIRST, SECOND)
    np.testing.assert_allclose(found.unaligned, [8 / 10, 4 / 6])
    assert found.mean_unaligned == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_layer_that_reads_each_neuron_at_several_places() -> None:
    """Neurons change places, and so do they in both halves of what the next layer reads."""
    first = [of_columns((1, 0), (0, 1)), of_columns((1,), (0,), (0,), (1,))]
    second = [of_columns((0, 1), (1, 0)), of_columns((0,), (1,), (1,), (0,))]
    assert topology_distance(first, second).layers == (0.0, 0.0)
    other = [second[0], of_columns((0,), (1,), (0,), (1,))]
    np.testing.assert_allclose(topology_distance(first, other).layers, [0.0, 2 / 3])
    with pytest.raises(TopologyError, match="networks of equal widths"):
        topology_distance(first, [*FIRST[:1], first[1]])


def masks(widths: tuple[int, ...], seed: int, share: float = 0.4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((n_out, n_in)) < share for n_in, n_out in pairwise(widths)]


def topologies(of: list[np.ndarray]) -> list[SparseTopology]:
    return [SparseTopology(*mask.shape, np.flatnonzero(mask)) for mask in of]


@given(seed=st.integers(0, 10_000))
def test_the_order_of_hidden_neurons_makes_no_difference(seed: int) -> None:
    first, second, last = masks((12, 6, 5, 4), seed)
    first[:, :3] = np.array([[digit == "1" for digit in f"{neuron:03b}"] for neuron in range(6)])  # no two alike
    second[:, :3] = first[:5, :3]
    rng = np.random.default_rng(seed)
    order, later = rng.permutation(6), rng.permutation(5)
    permuted = [first[order], second[:, order][later], last[:, later]]
    assert topology_distance(topologies([first, second, last]), topologies(permuted)).mean == 0.0


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_it_is_symmetric_in_its_first_layer_and_between_0_and_1(seed: int, share: float) -> None:
    one, other = topologies(masks((7, 5, 3), seed)), topologies(masks((7, 5, 3), seed + 1, share))
    there, back = topology_distance(one, other), topology_distance(other, one)
    assert there.layers[0] == pytest.approx(back.layers[0])
    assert there.unaligned == back.unaligned
    assert all(0.0 <= value <= 1.0 for value in (*there.layers, *there.unaligned))


def test_the_assignment_is_the_cheapest_of_all() -> None:
    one, other = masks((7, 4), 0)[0], masks((7, 4), 1)[0]
    apart = [[(left ^ right).sum() / (left | right).sum() for right in other] for left in one]
    cheapest = min(np.mean([apart[at][to] for at, to in enumerate(order)]) for order in permutations(range(4)))
    [found] = topology_distance(topologies([one]), topologies([other])).layers
    assert found == pytest.approx(cheapest)


def test_layers_without_connections_and_dense_ones() -> None:
    empty, full = SparseTopology(2, 3, np.array([], np.int64)), SparseTopology(2, 3, np.arange(6))
    assert topology_distance([empty], [empty]).layers == (0.0,)
    assert topology_distance([full], [full]).layers == (0.0,)
    assert topology_distance([empty], [full]).layers == (1.0,)
    assert (jaccard_distance(empty, empty), jaccard_distance(empty, full)) == (0.0, 1.0)


def test_other_widths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopologyError, match=r"equal widths have a distance, got 4 - 3 - 2 and 4 - 3$"):
        topology_distance(FIRST, SECOND[:1])
    with pytest.raises(TopologyError, match="got none and none"):
        topology_distance([], [])
    monkeypatch.setattr(module, "MOST_OUTPUTS", 2)
    with pytest.raises(TopologyError, match=r"at most 2 outputs .* got 3"):
        topology_distance(FIRST, SECOND)
