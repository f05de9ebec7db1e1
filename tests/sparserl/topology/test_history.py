"""What a layer has been: by hand, then against sets of positions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparserl.metrics.connectivity import overlap
from sparserl.topology.history import History
from sparserl.topology.structure import SparseTopology


def layer(*flat: int) -> SparseTopology:
    return SparseTopology(3, 4, np.array(flat, np.int64))


def test_a_history_worked_by_hand() -> None:
    first = layer(0, 3, 5, 7)
    begun = History.beginning(first)
    assert (begun.n_explored, begun.first.tolist(), begun.explored.tolist()) == (4, [0, 3, 5, 7], [0, 3, 5, 7])
    assert begun.moved_to(first) is begun
    second = begun.moved_to(layer(1, 3, 7, 8))
    assert second.first.tolist() == [0, 3, 5, 7]
    assert second.explored.tolist() == [0, 1, 3, 5, 7, 8]
    assert second.overlap(second.topology) == 0.5
    assert second.overlap(layer(0, 1, 3, 7)) == 0.75
    assert type(second.overlap(second.topology)) is float
    third = second.moved_to(layer(0, 2, 5, 8))  # two of the first grow again
    assert (third.n_explored, third.overlap(third.topology)) == (7, 0.5)
    assert third.explored.tolist() == [0, 1, 2, 3, 5, 7, 8]
    assert third.first.tolist() == [0, 3, 5, 7]


def test_a_layer_that_began_with_nothing_overlaps_with_all_of_it() -> None:
    assert History.beginning(layer()).overlap(layer(1, 2)) == 1.0


def test_only_what_is_gone_is_listed() -> None:
    history = History.beginning(layer(0, 3, 5, 7)).moved_to(layer(0, 3, 5, 9))
    assert (history.gone.tolist(), history.was_first.dtype, history.was_first.nbytes) == ([7], np.bool_, 4)


SETS = st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(moves=SETS, told=st.booleans(), loaded_later=st.booleans())
def test_a_history_is_that_of_sets(moves: list[set[int]], told: bool, loaded_later: bool) -> None:
    history = History.beginning(layer(*sorted(moves[0])))
    explored = set(moves[0])
    for present in moves[1:]:
        now = layer(*sorted(present))
        explored |= present
        history = history.moved_to(now)
        if told:  # a stored state, loaded before or after the layer
            history = History.told(layer(11) if loaded_later else now, history.first, history.stored)
        assert history.n_explored == len(explored)
        assert history.explored.tolist() == sorted(explored)
        assert history.first.tolist() == sorted(moves[0])
        assert history.overlap(now) == overlap(now, history.first)
        assert pickle.loads(pickle.dumps(history)).explored.tolist() == sorted(explored)


@pytest.mark.parametrize("first", [[], [1, 2]])
def test_a_told_history_goes_on_as_the_one_that_was_stored(first: list[int]) -> None:
    begun = History.beginning(layer(*first)).moved_to(layer(2, 3, 4))
    told = History.told(layer(), begun.first, begun.explored)
    assert told.n_explored == begun.n_explored
    for history in (begun, told):
        moved = history.moved_to(layer(1, 6, 7))
        assert (moved.n_explored, moved.overlap(moved.topology)) == (
            len({*first, 1, 2, 3, 4, 6, 7}),
            0.5 if first else 1.0,
        )


def wide(flat: np.ndarray) -> SparseTopology:
    return SparseTopology(1000, 1000, np.sort(flat))


def moves(count: int, keeps_all: bool = False) -> tuple[History, set[int], set[int]]:
    """A layer of 100 connections that has others `count` times, and what it began with and has ever had."""
    rng = np.random.default_rng(0)
    topology = wide(rng.choice(10**6, 100, replace=False))
    history = History.beginning(topology, keeps_all=keeps_all)
    first, explored = set(topology.flat.tolist()), set(topology.flat.tolist())
    for _ in range(count):
        topology = wide(rng.choice(10**6, 100, replace=False))
        history = history.moved_to(topology)
        explored |= set(topology.flat.tolist())
    return history, first, explored


def test_of_very_many_that_are_gone_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparserl.topology.history.FEWEST_KEPT", 4000)
    few, _, explored = moves(30)
    assert (few.halvings, few.n_explored) == (0, len(explored))
    many, first, explored = moves(300)
    assert many.halvings == 3
    assert 2000 < many.gone.size <= 4000 + len(first)
    assert abs(many.n_explored / len(explored) - 1) < 3 / np.sqrt(2000)
    assert set(many.first.tolist()) == first  # what was there first is never forgotten
    assert set(many.explored.tolist()) <= explored
    restored = History.told(many.topology, many.first, many.stored).moved_to(many.topology)
    assert (restored.n_explored, restored.gone.tolist()) == (many.n_explored, many.gone.tolist())
    everything, _, _ = moves(300, keeps_all=True)
    assert (everything.halvings, everything.n_explored) == (0, len(explored))
