"""What counts as a valid topology and a valid change."""

from __future__ import annotations

import copy
import pickle
from weakref import ref

import numpy as np
import pytest

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.structure import EvolvingLayer, SparseTopology, TopologyChange


def topology(n_out: int, n_in: int, flat: list[int]) -> SparseTopology:
    return SparseTopology(n_out, n_in, np.array(flat, np.int64))


def change(old: list[int], new: list[int], source: list[int]) -> TopologyChange:
    return TopologyChange(topology(2, 4, old), topology(2, 4, new), np.array(source, np.int64))


def test_counts_and_coordinates_of_an_8_slot_layer() -> None:
    # . x . x
    # x . . x
    layer = topology(2, 4, [1, 3, 4, 7])
    assert (layer.nnz, layer.size, layer.density) == (4, 8, 0.5)
    assert layer.outputs.tolist() == [0, 0, 1, 1]
    assert layer.inputs.tolist() == [1, 3, 0, 3]


def test_positions_beyond_32_bits_keep_their_coordinates() -> None:
    layer = topology(2**31, 2**20, [0, 2**51 - 1])
    layer.check_valid()
    assert layer.outputs.tolist() == [0, 2**31 - 1]
    assert layer.inputs.tolist() == [0, 2**20 - 1]


@pytest.mark.parametrize("flat", [[], [0], [7], [0, 7], [1, 3, 4, 7], list(range(8))])
def test_positions_are_not_kept_beside_rows(flat: list[int]) -> None:
    layer = topology(2, 4, flat)
    before = layer.flat
    assert layer.flat is before
    row_ptr, col = layer.rows
    assert layer.rows[0] is row_ptr
    assert layer.rows[1] is col
    assert layer.flat is before  # as long as somebody has them
    gone = ref(before)
    del before
    assert gone() is None
    assert layer.flat.tolist() == flat
    assert (layer.nnz, layer.outputs.tolist(), layer.inputs.tolist()) == (
        len(flat),
        [position // 4 for position in flat],
        [position % 4 for position in flat],
    )
    layer.check_valid()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (copied.n_out, copied.n_in, copied.flat.tolist()) == (2, 4, flat)
    assert repr(flat) in repr(layer)


def test_outputs_that_share_inputs_stay_such() -> None:
    layer = SparseTopology(4, 3, np.array([1, 4, 6, 8, 9, 11]), pairs=2)
    for same in (layer.with_positions(np.array([0, 3])), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (same.n_out, same.n_in, same.pairs) == (4, 3, 2)
        _ = same.rows
        same.check_valid()
    assert "pairs=2" in repr(layer)


@pytest.mark.parametrize("flat", [[-1, 2], [2, 8], [2, 2], [3, 2]])
def test_what_is_not_valid_has_no_rows(flat: list[int]) -> None:
    with pytest.raises(TopologyError, match=r"outside|strictly increasing"):
        _ = topology(2, 4, flat).rows


@pytest.mark.parametrize("flat", [[], [0], [7], [0, 7], list(range(8))])
def test_valid_topologies(flat: list[int]) -> None:
    topology(2, 4, flat).check_valid()


def test_one_neuron_a_side_is_valid() -> None:
    topology(1, 1, [0]).check_valid()
    topology(1, 1, []).check_valid()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (topology(0, 4, []), "at least one neuron"),
        (topology(2, 0, []), "at least one neuron"),
        (SparseTopology(2, 4, np.array([1, 2], np.int32)), "int32"),
        (SparseTopology(2, 4, np.array([1.0, 2.0])), "float64"),
        (SparseTopology(2, 4, np.array([[1, 2]], np.int64)), "2-D"),
        (topology(2, 4, [-1, 2]), "outside"),
        (topology(2, 4, [2, 8]), "outside"),
        (topology(2, 4, [2, 2]), "strictly increasing"),
        (topology(2, 4, [3, 2]), "strictly increasing"),
        (topology(2, 4, [1, 5, 4, 7]), "strictly increasing"),
    ],
)
def test_invalid_topologies_are_refused(layer: SparseTopology, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        layer.check_valid()


@pytest.mark.parametrize(
    ("event", "grown", "dropped"),
    [
        (change([1, 3], [1, 3], [0, 1]), 0, 0),
        (change([1, 3], [0, 3], [-1, 1]), 1, 1),
        (change([1, 3], [1, 3], [-1, 1]), 1, 1),  # dropped and grown again
        (change([1, 3], [3], [1]), 0, 1),
        (change([1, 3], [], []), 0, 2),
        (change([], [2, 5], [-1, -1]), 2, 0),
        (change([1, 3], [0, 1, 2, 3], [-1, 0, -1, 1]), 2, 0),
        (change([1, 3], [5, 6], [-1, -1]), 2, 2),
    ],
)
def test_a_change_counts_what_is_grown_and_dropped(event: TopologyChange, grown: int, dropped: int) -> None:
    event.check_valid()
    assert (event.grown, event.dropped) == (grown, dropped)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (change([1, 3], [1, 3], [0]), "one entry for each new slot"),
        (change([1, 3], [1, 3], [0, 0]), "one old slot"),
        (change([1, 3], [1, 3], [1, 0]), "one old slot"),
        (change([1, 3], [1, 4], [0, 1]), "changed its position"),
        (change([3, 1], [1, 3], [-1, -1]), "strictly increasing"),
        (change([1, 3], [1, 9], [0, -1]), "outside"),
    ],
)
def test_invalid_changes_are_refused(event: TopologyChange, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        event.check_valid()


def test_a_sparse_layer_is_an_evolving_layer() -> None:
    assert isinstance(SparseLinear(topology(2, 4, [1, 6])), EvolvingLayer)
    assert not isinstance(object(), EvolvingLayer)


@pytest.mark.parametrize(
    ("n_out", "n_in", "flat"),
    [
        (1, 2**31 + 1, np.array([2**31], np.int64)),
        (1, 2**32 + 1, np.array([2**32], np.int64)),
        (2**31 + 1, 1, np.array([0], np.int64)),
        (2**20, 2**20, np.broadcast_to(np.int64(0), 2**31)),  # takes no memory
    ],
    ids=["inputs", "inputs that wrap", "outputs", "connections"],
)
def test_layers_that_do_not_fit_32_bits_are_refused(n_out: int, n_in: int, flat: np.ndarray) -> None:
    with pytest.raises(TopologyError, match="at most 2147483648 neurons a side and 2147483647 connections, got"):
        SparseLinear(SparseTopology(n_out, n_in, flat))


def test_the_last_column_of_the_widest_layer_is_kept() -> None:
    layer = SparseLinear(topology(1, 2**31, [0, 2**31 - 1]))
    assert layer.index.col.tolist() == [0, 2**31 - 1]
    assert SparseLinear.of(layer.topology, layer.values, None).topology.inputs.tolist() == [0, 2**31 - 1]
