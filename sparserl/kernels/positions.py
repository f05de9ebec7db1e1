"""Passes over sorted lists of connections at a topology event: each reads its lists once, where NumPy would sort them.

Lists of positions are int64 and strictly increasing unless something else is said.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.kernels.compiled import compiled

_PAST = np.iinfo(np.int64).max
"""Beyond every position."""


@compiled()
def slots_among(positions: Any, among: Any) -> Any:
    """(k,) int64 index of each position in `among`, -1 where it is not; O(k + n).

    Args:
        positions: (k,).
        among: (n,).
    """
    slots, index = np.empty(positions.size, np.int64), 0
    for entry in range(positions.size):
        position = positions[entry]
        while index < among.size and among[index] < position:
            index += 1
        slots[entry] = index if index < among.size and among[index] == position else -1
    return slots


@compiled()
def exchanged(flat: Any, kept: Any, grown: Any) -> Any:
    """Positions without those that are dropped and with those that grow.

    Args:
        flat: (n,) positions.
        kept: (n,) bool, which of them stay.
        grown: (m,) positions to add.

    Returns:
        (k,) new positions, (k,) the index of each in `flat`, -1 if it was grown, and whether they are strictly
        increasing: where one grows that is there, or `grown` is not in order, they are not.
    """
    count = grown.size
    for entry in range(flat.size):
        count += kept[entry]
    new, source = np.empty(count, np.int64), np.empty(count, np.int64)
    index, following, valid = 0, 0, True
    last: Any = np.int64(-1)
    next_grown = grown[0] if grown.size else _PAST
    for entry in range(flat.size):
        if not kept[entry]:
            continue
        position = flat[entry]
        while next_grown <= position:
            new[index], source[index] = next_grown, -1
            valid &= last < next_grown < position
            last = next_grown
            index, following = index + 1, following + 1
            next_grown = grown[following] if following < grown.size else _PAST
        new[index], source[index] = position, entry
        valid &= last < position
        last = position
        index += 1
    for entry in range(following, grown.size):
        new[index], source[index] = grown[entry], -1
        valid &= last < grown[entry]
        last = grown[entry]
        index += 1
    return new, source, valid


@compiled()
def united(listed: Any, trimmed: Any, wanted: Any) -> Any:
    """Positions that are wanted, and those listed that are not trimmed.

    Args:
        listed: (n,) positions.
        trimmed: (n,) bool, which of them stay only if they are wanted.
        wanted: (m,) positions.

    Returns:
        (k,) positions, and for each its index in `listed`, -1 if it was not there.
    """
    new = np.empty(listed.size + wanted.size, np.int64)
    source = np.empty(new.size, np.int64)
    count, entry = 0, 0
    for position in wanted:
        while entry < listed.size and listed[entry] < position:
            new[count], source[count] = listed[entry], entry
            count += not trimmed[entry]
            entry += 1
        here = entry < listed.size and listed[entry] == position
        new[count], source[count] = position, entry if here else -1
        entry += here
        count += 1
    while entry < listed.size:
        new[count], source[count] = listed[entry], entry
        count += not trimmed[entry]
        entry += 1
    return new[:count].copy(), source[:count].copy()


@compiled()
def merged(one: Any, other: Any) -> Any:
    """(n + m,) the positions of two lists that have none in common."""
    both = np.empty(one.size + other.size, np.int64)
    index, following = 0, 0
    for entry in range(both.size):
        from_one = following == other.size or (index < one.size and one[index] < other[following])
        both[entry] = one[index] if from_one else other[following]
        index += from_one
        following += not from_one
    return both


@compiled()
def rows_of(flat: Any, n_out: int, n_in: int) -> Any:
    """Row pointers (n_out + 1,) int64 and columns (nnz,) int32 of positions `out * n_in + in`.

    No pointers where the positions are not strictly increasing and in [0, n_out * n_in).
    """
    row_ptr, col = np.zeros(n_out + 1, np.int64), np.empty(flat.size, np.int32)
    row, start, last = 0, 0, -1
    for slot in range(flat.size):
        position = flat[slot]
        if position <= last or position >= n_out * n_in:
            return row_ptr[:0], col
        last = position
        if position >= start + n_in:
            following = position // n_in
            while row < following:
                row += 1
                row_ptr[row] = slot
            start = row * n_in
        col[slot] = position - start
    while row < n_out:
        row += 1
        row_ptr[row] = flat.size
    return row_ptr, col


@compiled()
def positions_of(row_ptr: Any, col: Any, n_in: int) -> Any:
    """(nnz,) the inverse of `rows_of`."""
    flat = np.empty(col.size, np.int64)
    for row in range(row_ptr.size - 1):
        for slot in range(row_ptr[row], row_ptr[row + 1]):
            flat[slot] = row * n_in + col[slot]
    return flat


@compiled()
def first_distinct(drawn: Any) -> Any:
    """The different ones among int64 numbers >= 0, each where it comes first; O(n) in a table of hashes."""
    bits = 4
    while 1 << bits < 2 * drawn.size:
        bits += 1
    table, mask = np.full(1 << bits, -1, np.int64), (1 << bits) - 1
    distinct, count = np.empty(drawn.size, np.int64), 0
    for number in drawn:
        # Multiplicative hashing by 2^64 / golden ratio (Knuth, TAOCP 3, 6.4); the highest bits are the mixed ones.
        index = np.int64((np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))
        while table[index] >= 0 and table[index] != number:
            index = (index + 1) & mask
        if table[index] < 0:
            table[index] = number
            distinct[count] = number
            count += 1
    return distinct[:count]


@compiled()
def at_free_ranks(ranks: Any, occupied: Any) -> Any:
    """(k,) the free positions of the given ranks, counted from 0, sorted; O(k + n).

    Args:
        ranks: (k,).
        occupied: (n,) positions that are not free.
    """
    positions, below = np.empty(ranks.size, np.int64), 0
    for entry in range(ranks.size):
        # The i-th occupied position has occupied[i] - i free ones below it.
        while below < occupied.size and occupied[below] - below <= ranks[entry]:
            below += 1
        positions[entry] = ranks[entry] + below
    return positions


@compiled()
def present_and_gone(here: Any, of_here: Any, gone: Any, of_gone: Any, now: Any) -> Any:
    """Parts what was seen before into what is here now and what is gone, with a flag that follows each position.

    Args:
        here: (n,) positions that were here.
        of_here: (n,) bool, their flags.
        gone: (m,) others that were seen before.
        of_gone: (m,) bool, theirs.
        now: (k,) positions that are here now.

    Returns:
        (k,) flags of those, false where nothing was seen before; positions seen before that are not here, their flags.
    """
    flags = np.zeros(now.size, np.bool_)
    left = np.empty(here.size + gone.size, np.int64)
    of_left = np.empty(left.size, np.bool_)
    count, entry, other, index = 0, 0, 0, 0
    while entry < here.size or other < gone.size:
        from_here = other == gone.size or (entry < here.size and here[entry] < gone[other])
        position = here[entry] if from_here else gone[other]
        flag = of_here[entry] if from_here else of_gone[other]
        entry += from_here
        other += not from_here
        while index < now.size and now[index] < position:
            index += 1
        if index < now.size and now[index] == position:
            flags[index] = flag
        else:
            left[count], of_left[count] = position, flag
            count += 1
    return flags, left[:count].copy(), of_left[:count].copy()


def compile_kernels() -> None:
    """Compiles all of these, or loads what was compiled before."""
    one = np.zeros(1, np.int64)
    flags = one == 0
    _ = slots_among(one, one), exchanged(one, flags, one), united(one, flags, one), first_distinct(one)
    _ = merged(one, one + 1)
    _ = positions_of(*rows_of(one, 1, 1), 1), at_free_ranks(one, one), present_and_gone(one, flags, one, flags, one)
