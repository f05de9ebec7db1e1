"""Where the pattern kernels find a layer's connections: built from its index in one walk over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl.kernels.compiled import compiled
from sparserl.kernels.patterns import groups_of, rows_of

SAMPLED = 64
"""Blocks that `shared_columns` looks at, at most."""


@dataclass(frozen=True)
class PatternIndex:
    """A layer's connections by panel of columns, block of rows, group of patterns, column and row, in this order.

    Rows that fill no block come last, in the order of the index.

    Attributes:
        blocks: Blocks of rows.
        panels: Panels of columns.
        counts: (panels, blocks, groups) turns of the loop of each group.
        columns: uint32, of each turn, one for each pattern of the group.
        slot: (nnz,) uint32 slot of each connection.
    """

    blocks: int
    panels: int
    counts: npt.NDArray[np.uint32]
    columns: npt.NDArray[np.uint32]
    slot: npt.NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        """Memory of its arrays."""
        return self.counts.nbytes + self.columns.nbytes + self.slot.nbytes


def pattern_index(
    row_ptr: npt.NDArray[np.int64], col: npt.NDArray[np.uint32], n_cols: int, rows: int, panel: int
) -> PatternIndex:
    """The connections of an index as blocks of rows.

    Args:
        row_ptr: (n_rows + 1,) of the index.
        col: (nnz,) of the index.
        n_cols: Its columns.
        rows: Rows of a block.
        panel: Columns of a panel, >= 1.
    """
    members = np.zeros((len(groups_of(rows)), 2), np.int64)
    for group, patterns in enumerate(groups_of(rows)):
        members[group, : len(patterns)] = patterns
    used = np.full((2**rows, rows), -1, np.int64)
    for pattern in range(1, 2**rows):
        used[pattern, : pattern.bit_count()] = rows_of(pattern)
    blocks, panels = (row_ptr.size - 1) // rows, max(1, -(-n_cols // panel))
    counts, columns, slot = _by_pattern(row_ptr, col, rows, blocks, panels, panel, members, used)
    return PatternIndex(blocks, panels, counts, columns, slot)


@compiled()
def _by_pattern(
    row_ptr: Any, col: Any, rows: int, blocks: int, panels: int, panel: int, members: Any, used: Any
) -> tuple[Any, Any, Any]:
    inside = row_ptr[blocks * rows]
    counts = np.zeros((panels, blocks, members.shape[0]), np.uint32)
    columns, slot = np.empty(inside, np.uint32), np.empty(col.size, np.uint32)
    cursor = row_ptr[:-1].copy()
    patterns = used.shape[0]
    # The columns of one block and panel, by pattern: a list for each, linked from the first to the last.
    widest = max(1, min(panel, inside))
    column_of, following = np.empty(widest, np.uint32), np.empty(widest, np.int64)
    slot_of = np.empty((widest, rows), np.uint32)
    first, last, waiting = np.empty(patterns, np.int64), np.empty(patterns, np.int64), np.zeros(patterns, np.int64)
    to_column, to_slot = 0, 0
    for at in range(panels):
        end = (at + 1) * panel
        for block in range(blocks):
            count = 0
            while True:
                column = end
                for row in range(block * rows, (block + 1) * rows):
                    if cursor[row] < row_ptr[row + 1]:
                        column = min(column, int(col[cursor[row]]))
                if column == end:
                    break
                pattern = 0
                for number in range(rows):
                    row = block * rows + number
                    if cursor[row] < row_ptr[row + 1] and np.int64(col[cursor[row]]) == column:
                        pattern |= 1 << number
                        slot_of[count, number] = cursor[row]
                        cursor[row] += 1
                column_of[count] = column
                if waiting[pattern] == 0:
                    first[pattern] = count
                else:
                    following[last[pattern]] = count
                last[pattern] = count
                waiting[pattern] += 1
                count += 1
            for group in range(members.shape[0]):
                turns = waiting[members[group, 0]]
                if members[group, 1] != 0:
                    turns = min(turns, waiting[members[group, 1]])
                counts[at, block, group] = turns
                for _ in range(turns):
                    for pattern in members[group]:
                        if pattern == 0:
                            continue
                        entry = first[pattern]
                        waiting[pattern] -= 1
                        if waiting[pattern] > 0:
                            first[pattern] = following[entry]
                        columns[to_column] = column_of[entry]
                        to_column += 1
                        for number in used[pattern]:
                            if number >= 0:
                                slot[to_slot] = slot_of[entry, number]
                                to_slot += 1
    for entry in range(inside, col.size):
        slot[entry] = entry
    return counts, columns[:to_column].copy(), slot


@compiled()
def shared_columns(row_ptr: npt.NDArray[np.int64], col: npt.NDArray[np.uint32], rows: int) -> float:
    """Share of the connections that lie in columns which all rows of their block use; of up to `SAMPLED` blocks."""
    blocks = (row_ptr.size - 1) // rows
    shared, connections = 0, 0
    for sample in range(min(blocks, SAMPLED)):
        start = sample * blocks // min(blocks, SAMPLED) * rows
        connections += row_ptr[start + rows] - row_ptr[start]
        cursor = row_ptr[start : start + rows].copy()
        for slot in range(row_ptr[start], row_ptr[start + 1]):
            in_all = True
            for number in range(1, rows):
                stop = row_ptr[start + number + 1]
                while cursor[number] < stop and col[cursor[number]] < col[slot]:
                    cursor[number] += 1
                in_all &= cursor[number] < stop and col[cursor[number]] == col[slot]
            shared += rows * in_all
    return shared / max(connections, 1)
