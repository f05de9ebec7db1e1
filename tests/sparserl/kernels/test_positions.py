"""Passes over sorted positions: by hand, then against sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.layers import ints

from sparserl.kernels import compile_kernels, positions
from sparserl.kernels.positions import (
    at_free_ranks,
    exchanged,
    first_distinct,
    merged,
    positions_of,
    present_and_gone,
    rows_of,
    slots_among,
    united,
)
from sparserl.layers import SparseLinear
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import random_topology
from sparserl.topology.target import TargetNetwork

PROFILE = settings(max_examples=150, deadline=None)
SOME = st.lists(st.integers(0, 23), unique=True).map(sorted)
HUGE = 2**60
RNG = np.random.default_rng


def flags(*which: int) -> np.ndarray:
    return np.array(which, bool)


def lists(found: Any) -> list[Any]:
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in found]


@pytest.mark.parametrize(
    ("asked", "among", "slots"),
    [
        ([], [1, 2], []),
        ([3], [], [-1]),
        ([0, 1, 4, 9], [1, 3, 4, 8], [-1, 0, 2, -1]),
        ([1, 3], [1, 3], [0, 1]),
        ([HUGE], [0, HUGE], [1]),
    ],
)
def test_places_of_positions_in_another_list(asked: list[int], among: list[int], slots: list[int]) -> None:
    assert slots_among(ints(*asked), ints(*among)).tolist() == slots


@PROFILE
@given(one=SOME, other=SOME)
def test_two_lists_without_common_positions_are_merged_in_order(one: list[int], other: list[int]) -> None:
    rest = [position for position in other if position not in one]
    assert merged(ints(*one), ints(*rest)).tolist() == sorted(one + rest)


@pytest.mark.parametrize(
    ("kept", "grown", "new", "source"),
    [
        ([1, 1, 1], [], [1, 3, 5], [0, 1, 2]),
        ([0, 0, 0], [], [], []),
        ([1, 0, 1], [0], [0, 1, 5], [-1, 0, 2]),
        ([1, 0, 1], [3], [1, 3, 5], [0, -1, 2]),  # dropped and grown again
        ([0, 1, 0], [2, 4, 7], [2, 3, 4, 7], [-1, 1, -1, -1]),
        ([0, 0, 0], [0, 9], [0, 9], [-1, -1]),
    ],
)
def test_positions_are_exchanged(kept: list[int], grown: list[int], new: list[int], source: list[int]) -> None:
    assert lists(exchanged(ints(1, 3, 5), flags(*kept), ints(*grown))) == [new, source, True]


@pytest.mark.parametrize("grown", [[1], [5], [0, 5], [0, 0], [2, 0], [6, 6], [9, 7], [-1]])
def test_positions_that_are_there_or_out_of_order_are_not_valid(grown: list[int]) -> None:
    assert not exchanged(ints(1, 3, 5), flags(1, 0, 1), ints(*grown))[2]


@pytest.mark.parametrize(
    ("listed", "trimmed", "wanted", "new", "source"),
    [
        ([1, 3, 5], [0, 1, 0], [0, 6], [0, 1, 5, 6], [-1, 0, 2, -1]),
        ([1, 3, 5], [1, 1, 1], [3], [3], [1]),  # wanted although it is trimmed
        ([1, 3], [1, 0], [], [3], [1]),
        ([], [], [2, 4], [2, 4], [-1, -1]),
        ([4, 9], [0, 1], [4], [4], [0]),
    ],
)
def test_a_union_lists_what_is_wanted_and_what_is_not_trimmed(
    listed: list[int], trimmed: list[int], wanted: list[int], new: list[int], source: list[int]
) -> None:
    assert lists(united(ints(*listed), flags(*trimmed), ints(*wanted))) == [new, source]


@pytest.mark.parametrize(
    ("flat", "n_out", "n_in", "row_ptr", "col"),
    [
        ([], 2, 3, [0, 0, 0], []),
        ([0, 2, 7], 3, 3, [0, 2, 2, 3], [0, 2, 1]),
        ([8], 3, 3, [0, 0, 0, 1], [2]),
        ([2**31 - 1, 2**32], 3, 2**31, [0, 1, 1, 2], [2**31 - 1, 0]),
    ],
)
def test_rows_and_back(flat: list[int], n_out: int, n_in: int, row_ptr: list[int], col: list[int]) -> None:
    rows = rows_of(ints(*flat), n_out, n_in)
    assert lists(rows) == [row_ptr, col]
    assert [part.dtype for part in rows] == [np.int64, np.int32]
    assert positions_of(*rows, n_in).tolist() == flat


@pytest.mark.parametrize("flat", [[-1], [6], [0, 0], [3, 2], [0, 5, 6], [-3, 4]])
def test_there_are_no_rows_of_what_is_not_a_topology(flat: list[int]) -> None:
    assert rows_of(ints(*flat), 2, 3)[0].size == 0


def test_the_first_of_equal_numbers_stays() -> None:
    assert first_distinct(ints(7, 3, 7, 0, 3, HUGE, 0, HUGE, 5)).tolist() == [7, 3, 0, HUGE, 5]
    assert first_distinct(ints()).tolist() == []


def test_free_positions_by_rank() -> None:
    # Of 0 to 8, 0, 3, 4 and 6 are taken: 1, 2, 5, 7, 8 are free.
    assert at_free_ranks(ints(0, 1, 2, 3, 4), ints(0, 3, 4, 6)).tolist() == [1, 2, 5, 7, 8]
    assert at_free_ranks(ints(2, 5), ints()).tolist() == [2, 5]


def test_what_was_seen_is_parted_by_what_is_here() -> None:
    # 1 and 4 were here, 2 and 7 gone; 2 comes back with its flag, 4 goes with its own, 5 is new.
    found = present_and_gone(ints(1, 4), flags(1, 1), ints(2, 7), flags(1, 0), ints(1, 2, 5))
    assert lists(found) == [[True, True, False], [4, 7], [True, False]]


@PROFILE
@given(flat=SOME, grown=SOME, data=st.data())
def test_an_exchange_is_one_of_sets(flat: list[int], grown: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(flat), max_size=len(flat)))
    stays = {position for position, keeps in zip(flat, kept, strict=True) if keeps}
    new, source, valid = exchanged(ints(*flat), flags(*kept), ints(*grown))
    assert valid == (not stays & set(grown))
    if valid:
        assert new.tolist() == sorted(stays | set(grown))
        assert source.tolist() == [flat.index(one) if one in stays else -1 for one in new.tolist()]


@PROFILE
@given(listed=SOME, wanted=SOME, trimmed=st.sets(st.integers(0, 23)))
def test_a_union_is_one_of_sets(listed: list[int], wanted: list[int], trimmed: set[int]) -> None:
    new, source = lists(united(ints(*listed), flags(*(one in trimmed for one in listed)), ints(*wanted)))
    assert new == sorted(set(wanted) | (set(listed) - trimmed))
    assert source == [listed.index(one) if one in listed else -1 for one in new]
    assert lists([slots_among(ints(*wanted), ints(*listed))])[0] == [
        listed.index(one) if one in listed else -1 for one in wanted
    ]


@PROFILE
@given(numbers=st.lists(st.integers(0, 2**62)), few=st.lists(st.integers(0, 9)))
def test_distinct_numbers_are_those_of_a_dictionary(numbers: list[int], few: list[int]) -> None:
    assert first_distinct(ints(*numbers, *few, *numbers)).tolist() == list(dict.fromkeys([*numbers, *few]))


@PROFILE
@given(taken=SOME)
def test_free_ranks_are_those_of_what_is_left(taken: list[int]) -> None:
    free = [position for position in range(30) if position not in taken]
    assert at_free_ranks(np.arange(len(free)), ints(*taken)).tolist() == free


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(("method", "target"), [("set", "shared"), ("ds_td3", "union_trim"), ("anf", "union_trim")])
def test_nothing_is_left_to_compile_for_an_event(method: str, target: str, pairs: int) -> None:
    compile_kernels(print)
    passes = [kernel for kernel in vars(positions).values() if hasattr(kernel, "signatures")]
    before = [len(kernel.signatures) for kernel in passes]
    assert all(before)
    rule = METHODS[method].rule
    assert rule is not None
    net, copied = (torch.nn.Sequential(SparseLinear(random_topology(10, 8, 40, RNG(0), pairs))) for _ in range(2))
    evolver = TopologyEvolver({"net": {"0": net[0]}}, rule, seed=0)  # type: ignore[dict-item]
    for name, followed in TargetNetwork(net, copied, target).followers():
        evolver.follow(name, followed.follow)
    for _ in range(3):
        evolver.rewire("0")
    assert [len(kernel.signatures) for kernel in passes] == before
