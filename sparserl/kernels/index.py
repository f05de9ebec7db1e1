"""Compressed sparse rows of a layer's connections, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CsrIndex:
    """Row pointers and columns; the k-th entry of a row-major order is slot k.

    Attributes:
        n_rows: Output neurons.
        n_cols: Input neurons.
        row_ptr: (n_rows + 1,) int64; row i holds entries row_ptr[i] to row_ptr[i + 1].
        col: (nnz,) uint32, increasing within a row.
    """

    n_rows: int
    n_cols: int
    row_ptr: npt.NDArray[np.int64]
    col: npt.NDArray[np.uint32]

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """(nnz,) row of each entry."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.row_ptr))

    @cached_property
    def transposed(self) -> tuple[CsrIndex, npt.NDArray[np.int64]]:
        """The index of the transposed matrix, and the slot of each of its entries.

        Built at the first backward pass after a topology event; target networks never need it.
        """
        slot = np.argsort(self.col, kind="stable")
        row_ptr = np.zeros(self.n_cols + 1, np.int64)
        np.cumsum(np.bincount(self.col, minlength=self.n_cols), out=row_ptr[1:])
        return CsrIndex(self.n_cols, self.n_rows, row_ptr, self.rows[slot].astype(np.uint32)), slot

    def derived_bytes(self) -> int:
        """Memory of what has been derived from row pointers and columns so far."""
        derived = vars(self)
        size = self.rows.nbytes if "rows" in derived else 0
        if "transposed" in derived:
            index, slot = self.transposed
            size += index.row_ptr.nbytes + index.col.nbytes + slot.nbytes
        return size
