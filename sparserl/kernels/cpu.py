"""The products in Numba, for the CPU.

Layout: activations (features, batch), C-contiguous, so that one connection is one axpy (or one inner product) over a
contiguous batch. Rows are computed by one thread each and in one order, so results do not depend on the number of
threads. The first call for a dtype compiles (seconds) and stores the machine code beside this file or in Numba's cache
folder.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numba import int64

from sparserl.kernels.index import CsrIndex
from sparserl.kernels.vector import LANES, inner_products, row_tile

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking threads costs more than it gains."""

_tile_1, _tile_2, _tile_3, _tile_4 = (row_tile(vectors) for vectors in (1, 2, 3, 4))
_narrow_tile = row_tile(1, lanes=4)
_products_1, _products_8 = inner_products(1), inner_products(8)


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _product_row(row: int, row_ptr: Any, col: Any, values: Any, bias: Any, x: Any, batch: int, out: Any) -> None:
    """Tiles of the batch; the last one is moved back to end with the batch, and computes some columns again."""
    start, stop = row_ptr[row], row_ptr[row + 1]
    begin = row * batch
    column = 0
    if batch >= LANES:
        while column < batch:
            vectors = min(4, (batch - column + LANES - 1) // LANES, batch // LANES)
            first = min(column, batch - LANES * vectors)
            if vectors == 4:
                _tile_4(values, col, start, stop, bias[row], x, batch, first, out, begin + first)
            elif vectors == 3:
                _tile_3(values, col, start, stop, bias[row], x, batch, first, out, begin + first)
            elif vectors == 2:
                _tile_2(values, col, start, stop, bias[row], x, batch, first, out, begin + first)
            else:
                _tile_1(values, col, start, stop, bias[row], x, batch, first, out, begin + first)
            column = first + LANES * vectors
    elif batch >= 4:
        while column < batch:
            first = min(column, batch - 4)
            _narrow_tile(values, col, start, stop, bias[row], x, batch, first, out, begin + first)
            column = first + 4
    else:
        for column in range(batch):
            total = bias[row]
            for slot in range(start, stop):
                total += values[slot] * x[int64(col[slot]) * batch + column]
            out[begin + column] = total


@numba.njit(cache=True, nogil=True, boundscheck=False)
def _value_gradient_row(row: int, row_ptr: Any, col: Any, x: Any, dy: Any, batch: int, out: Any) -> None:
    slot, stop = row_ptr[row], row_ptr[row + 1]
    begin = row * batch
    while slot + 8 <= stop:
        starts = (
            int64(col[slot]) * batch,
            int64(col[slot + 1]) * batch,
            int64(col[slot + 2]) * batch,
            int64(col[slot + 3]) * batch,
            int64(col[slot + 4]) * batch,
            int64(col[slot + 5]) * batch,
            int64(col[slot + 6]) * batch,
            int64(col[slot + 7]) * batch,
        )
        totals = _products_8(x, starts, dy, begin, batch)
        out[slot], out[slot + 1], out[slot + 2], out[slot + 3] = totals[0], totals[1], totals[2], totals[3]
        out[slot + 4], out[slot + 5], out[slot + 6], out[slot + 7] = totals[4], totals[5], totals[6], totals[7]
        slot += 8
    while slot < stop:
        out[slot] = _products_1(x, (int64(col[slot]) * batch,), dy, begin, batch)[0]
        slot += 1


@numba.njit(cache=True, nogil=True)
def _product(row_ptr: Any, col: Any, values: Any, bias: Any, x: Any, batch: int, out: Any) -> None:
    for row in range(row_ptr.size - 1):
        _product_row(row, row_ptr, col, values, bias, x, batch, out)


@numba.njit(cache=True, nogil=True, parallel=True)
def _product_threads(row_ptr: Any, col: Any, values: Any, bias: Any, x: Any, batch: int, out: Any) -> None:
    for row in numba.prange(row_ptr.size - 1):
        _product_row(row, row_ptr, col, values, bias, x, batch, out)


@numba.njit(cache=True, nogil=True)
def _value_gradient(row_ptr: Any, col: Any, x: Any, dy: Any, batch: int, out: Any) -> None:
    for row in range(row_ptr.size - 1):
        _value_gradient_row(row, row_ptr, col, x, dy, batch, out)


@numba.njit(cache=True, nogil=True, parallel=True)
def _value_gradient_threads(row_ptr: Any, col: Any, x: Any, dy: Any, batch: int, out: Any) -> None:
    for row in numba.prange(row_ptr.size - 1):
        _value_gradient_row(row, row_ptr, col, x, dy, batch, out)


def _use_threads(index: CsrIndex, batch: int) -> bool:
    threads = torch.get_num_threads()
    if threads == 1 or index.col.size * batch < PARALLEL_FROM:
        return False
    numba.set_num_threads(min(threads, int(numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]  # set at run time
    return True


def product(index: CsrIndex, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """(n_rows, B): the sparse matrix times `x` (n_cols, B, contiguous), plus `bias` (n_rows,) in every column.

    Uses as many threads as `torch.get_num_threads()` says.
    """
    batch = x.shape[1]
    kernel = _product_threads if _use_threads(index, batch) else _product
    flat = x.numpy().reshape(-1)
    out = np.empty((index.n_rows, batch), flat.dtype)
    start = np.zeros(index.n_rows, flat.dtype) if bias is None else bias.numpy()
    kernel(index.row_ptr, index.col, values.numpy(), start, flat, batch, out.reshape(-1))
    return torch.from_numpy(out)


def value_gradient(index: CsrIndex, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """(nnz,) inner products over the batch of row `out` of `dy` and row `in` of `x`; both contiguous."""
    batch = x.shape[1]
    kernel = _value_gradient_threads if _use_threads(index, batch) else _value_gradient
    out = np.empty(index.col.size, dy.numpy().dtype)
    kernel(index.row_ptr, index.col, x.numpy().reshape(-1), dy.numpy().reshape(-1), batch, out)
    return torch.from_numpy(out)
