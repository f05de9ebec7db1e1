"""Compressed sparse rows of a layer's connections, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from sparserl.kernels import choice
from sparserl.kernels.compiled import compiled
from sparserl.kernels.pattern_index import PatternIndex, pattern_index, shared_columns


@dataclass(frozen=True)
class CsrIndex:
    """Row pointers and columns; the k-th entry of a row-major order is slot k.

    Attributes:
        n_rows: Output neurons.
        n_cols: Input neurons.
        row_ptr: (n_rows + 1,) int64; row i holds entries row_ptr[i] to row_ptr[i + 1].
        col: (nnz,) uint32, increasing within a row.
        used: (k,) uint32 slots that products multiply, increasing; all if None. Gradients are of all slots.

    Raises:
        ValueError: If rows, columns or connections do not fit 32 bits: they would wrap.
    """

    n_rows: int
    n_cols: int
    row_ptr: npt.NDArray[np.int64]
    col: npt.NDArray[np.uint32]
    used: npt.NDArray[np.uint32] | None = None

    def __post_init__(self) -> None:
        _check_fits(self.n_rows, self.n_cols, self.col.size)

    @classmethod
    def full(cls, n_rows: int, n_cols: int) -> CsrIndex:
        """The index of a dense layer; the same object for all layers of that shape, while one of them lives."""
        index = _full.get((n_rows, n_cols))
        if index is None:
            _check_fits(n_rows, n_cols, n_rows * n_cols)
            row_ptr = np.arange(n_rows + 1, dtype=np.int64) * n_cols
            index = cls(n_rows, n_cols, row_ptr, np.tile(np.arange(n_cols, dtype=np.uint32), n_rows))
            _full[n_rows, n_cols] = index
        return index

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return int(self.col.size)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """(nnz,) row of each entry."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.row_ptr))

    @property
    def product(self) -> CsrIndex:
        """The index of the matrix that products multiply: itself, or the slots in use alone."""
        return self if self.used is None else self._in_use  # never kept by itself, or nothing would free it at once

    @cached_property
    def _in_use(self) -> CsrIndex:
        assert self.used is not None
        starts = np.searchsorted(self.used, self.row_ptr).astype(np.int64)
        return CsrIndex(self.n_rows, self.n_cols, starts, self.col[self.used])

    @cached_property
    def transposed(self) -> tuple[CsrIndex, npt.NDArray[np.uint32]]:
        """The index of the transposed matrix of products, and the slot of each of its entries.

        Built at the first backward pass after a topology event; target networks never need it.
        """
        row_ptr, col, entry = transpose(self.product.row_ptr, self.product.col, self.n_cols)
        slot = entry if self.used is None else self.used[entry]
        return CsrIndex(self.n_cols, self.n_rows, row_ptr, col), slot

    @cached_property
    def blocks(self) -> PatternIndex | None:
        """The connections as the pattern kernel takes them; None where the row kernel is faster.

        None also where not all are in use: their values are gathered in the order of rows.
        """
        if self.used is not None:
            return None
        rows = choice.BLOCK_ROWS
        shared = partial(shared_columns, self.row_ptr, self.col, rows)
        if not choice.takes_blocks(self.n_rows, self.n_cols, self.nnz, shared):
            return None
        panel = choice.block_panel(self.n_cols, self.nnz / (self.n_rows * self.n_cols))
        return pattern_index(self.row_ptr, self.col, self.n_cols, rows, panel)

    @cached_property
    def transposed_blocks(self) -> PatternIndex | None:
        """`blocks` of the transposed matrix of products, with slots of this index."""
        transposed, slot = self.transposed
        blocks = CsrIndex(transposed.n_rows, transposed.n_cols, transposed.row_ptr, transposed.col).blocks
        return None if blocks is None else replace(blocks, slot=slot[blocks.slot])

    @cached_property
    def column_starts(self) -> npt.NDArray[np.int64]:
        """(panels + 1, n_rows) first slot of each row in each panel of `choice.PANEL_COLUMNS` columns, then its end."""
        starts: npt.NDArray[np.int64] = starts_in_panels(self.row_ptr, self.col, self.n_cols, choice.PANEL_COLUMNS)
        return starts

    def derived_bytes(self) -> int:
        """Memory of what has been derived from row pointers and columns so far."""
        derived = [vars(self).get(name) for name in ("blocks", "transposed_blocks", "column_starts")]
        if "transposed" in vars(self):
            index, slot = self.transposed
            derived += [index.row_ptr, index.col, slot]
        if self.used is not None:
            derived.append(self.used)
            derived += [self.product.row_ptr, self.product.col] if "_in_use" in vars(self) else []
        return sum(array.nbytes for array in derived if array is not None)


_full: WeakValueDictionary[tuple[int, int], CsrIndex] = WeakValueDictionary()


def _check_fits(n_rows: int, n_cols: int, nnz: int) -> None:
    if max(n_rows, n_cols, nnz) > 2**32:
        raise ValueError(f"an index has at most 2**32 rows, columns and entries, got {n_rows} x {n_cols} with {nnz}")


@compiled()
def transpose(
    row_ptr: npt.NDArray[np.int64], col: npt.NDArray[np.uint32], n_cols: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """A counting sort by column; within a column, rows stay in order."""
    starts = np.zeros(n_cols + 1, np.int64)
    for entry in col:
        starts[np.int64(entry) + 1] += 1
    for index in range(n_cols):
        starts[index + 1] += starts[index]
    following = starts[:-1].copy()
    rows, slots = np.empty(col.size, np.uint32), np.empty(col.size, np.uint32)
    for row in range(row_ptr.size - 1):
        for slot in range(row_ptr[row], row_ptr[row + 1]):
            column = np.int64(col[slot])
            to = following[column]
            following[column] = to + 1
            rows[to], slots[to] = row, slot
    return starts, rows, slots


@compiled()
def starts_in_panels(
    row_ptr: npt.NDArray[np.int64], col: npt.NDArray[np.uint32], n_cols: int, width: int
) -> npt.NDArray[np.int64]:
    """See `CsrIndex.column_starts`."""
    panels = (n_cols + width - 1) // width
    starts = np.empty((panels + 1, row_ptr.size - 1), np.int64)
    for row in range(row_ptr.size - 1):
        slot = row_ptr[row]
        for panel in range(panels):
            starts[panel, row] = slot
            while slot < row_ptr[row + 1] and np.int64(col[slot]) < (panel + 1) * width:
                slot += 1
        starts[panels, row] = slot
    return starts
