"""The products in plain torch: slow, O(nnz * batch) memory, and the definition of what is right."""

from __future__ import annotations

import torch

from sparserl.kernels.index import CsrIndex


def _rows_cols(index: CsrIndex) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(index.rows), torch.from_numpy(index.col.astype("int64"))


def product(index: CsrIndex, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """(n_rows, B): the sparse matrix times `x` (n_cols, B), plus `bias` (n_rows,) in every column."""
    rows, cols = _rows_cols(index)
    out = x.new_zeros(index.n_rows, x.shape[1])
    if bias is not None:
        out += bias[:, None]
    return out.index_add_(0, rows, values[:, None] * x[cols])


def value_gradient(index: CsrIndex, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """(nnz,) inner products over the batch of row `out` of `dy` and row `in` of `x`."""
    rows, cols = _rows_cols(index)
    return (dy[rows] * x[cols]).sum(dim=1)
