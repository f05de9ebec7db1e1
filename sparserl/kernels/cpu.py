"""The products in Numba, for the CPU.

Layout: activations (features, batch), C-contiguous, so that one connection is one axpy (or one inner product) over a
contiguous batch. Rows are computed by one thread each and in one order, so results do not depend on the number of
threads. The batch is walked in tiles whose activations stay in cache; eight connections share one pass over a tile.
The first call for a dtype compiles (seconds) and stores the machine code beside this file or in Numba's cache folder.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from sparserl.kernels.index import CsrIndex

# Sums are contracted into fused multiply-adds; only the inner products over the batch may be reordered, into vector
# lanes. Neither depends on the number of threads.
_CONTRACT = {"contract"}
_REORDER = {"contract", "reassoc", "nsz"}

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking threads costs more than it gains."""


@numba.njit(cache=True, nogil=True, fastmath=_CONTRACT, boundscheck=False)
def _product_row(values: Any, col: Any, start: int, stop: int, x: Any, out: Any) -> None:
    batch = out.shape[0]
    k = start
    while k + 8 <= stop:
        v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        v4, v5, v6, v7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
        x0, x1, x2, x3 = x[col[k]], x[col[k + 1]], x[col[k + 2]], x[col[k + 3]]
        x4, x5, x6, x7 = x[col[k + 4]], x[col[k + 5]], x[col[k + 6]], x[col[k + 7]]
        for b in range(batch):
            out[b] += (
                v0 * x0[b] + v1 * x1[b] + v2 * x2[b] + v3 * x3[b]
                + v4 * x4[b] + v5 * x5[b] + v6 * x6[b] + v7 * x7[b]
            )  # fmt: skip
        k += 8
    while k < stop:
        v = values[k]
        xk = x[col[k]]
        for b in range(batch):
            out[b] += v * xk[b]
        k += 1


@numba.njit(cache=True, nogil=True, fastmath=_REORDER, boundscheck=False)
def _value_gradient_row(col: Any, start: int, stop: int, x: Any, dy: Any, out: Any) -> None:
    batch = dy.shape[0]
    zero = dy.dtype.type(0)
    k = start
    while k + 4 <= stop:
        x0, x1, x2, x3 = x[col[k]], x[col[k + 1]], x[col[k + 2]], x[col[k + 3]]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for b in range(batch):
            d = dy[b]
            s0 += d * x0[b]
            s1 += d * x1[b]
            s2 += d * x2[b]
            s3 += d * x3[b]
        out[k], out[k + 1], out[k + 2], out[k + 3] = s0, s1, s2, s3
        k += 4
    while k < stop:
        xk = x[col[k]]
        s = zero
        for b in range(batch):
            s += dy[b] * xk[b]
        out[k] = s
        k += 1


@numba.njit(cache=True, nogil=True)
def _product(row_ptr: Any, col: Any, values: Any, x: Any, out: Any) -> None:
    for row in range(out.shape[0]):
        _product_row(values, col, row_ptr[row], row_ptr[row + 1], x, out[row])


@numba.njit(cache=True, nogil=True, parallel=True)
def _product_threads(row_ptr: Any, col: Any, values: Any, x: Any, out: Any) -> None:
    for row in numba.prange(out.shape[0]):
        _product_row(values, col, row_ptr[row], row_ptr[row + 1], x, out[row])


@numba.njit(cache=True, nogil=True)
def _value_gradient(row_ptr: Any, col: Any, x: Any, dy: Any, out: Any) -> None:
    for row in range(dy.shape[0]):
        _value_gradient_row(col, row_ptr[row], row_ptr[row + 1], x, dy[row], out)


@numba.njit(cache=True, nogil=True, parallel=True)
def _value_gradient_threads(row_ptr: Any, col: Any, x: Any, dy: Any, out: Any) -> None:
    for row in numba.prange(dy.shape[0]):
        _value_gradient_row(col, row_ptr[row], row_ptr[row + 1], x, dy[row], out)


def _use_threads(index: CsrIndex, batch: int) -> bool:
    threads = torch.get_num_threads()
    if threads == 1 or index.col.size * batch < PARALLEL_FROM:
        return False
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when Numba is imported
    numba.set_num_threads(min(threads, most))
    return True


def product(index: CsrIndex, values: torch.Tensor, x: torch.Tensor, out: torch.Tensor) -> None:
    """Adds the sparse matrix times `x` (n_cols, B) to `out` (n_rows, B), in place; both contiguous.

    Uses as many threads as `torch.get_num_threads()` says.
    """
    kernel = _product_threads if _use_threads(index, x.shape[1]) else _product
    kernel(index.row_ptr, index.col, values.numpy(), x.numpy(), out.numpy())


def value_gradient(index: CsrIndex, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """(nnz,) inner products over the batch of row `out` of `dy` and row `in` of `x`; both contiguous."""
    kernel = _value_gradient_threads if _use_threads(index, x.shape[1]) else _value_gradient
    out = np.empty(index.col.size, dy.numpy().dtype)
    kernel(index.row_ptr, index.col, x.numpy(), dy.numpy(), out)
    return torch.from_numpy(out)
