"""A linear layer as plain arrays: its connections alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from sparserl.layers.linear import linear

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class PolicyLayer:
    """One linear layer.

    Attributes:
        n_in: Inputs.
        n_out: Outputs.
        values: (nnz,) weights, row after row.
        bias: (n_out,)
        row_ptr: (n_out + 1,) first weight of each output; None where every connection exists.
        col: (nnz,) input of each weight; likewise.
    """

    n_in: int
    n_out: int
    values: Floats
    bias: Floats
    row_ptr: Indices | None
    col: Indices | None

    @classmethod
    def of(cls, layer: nn.Module, outputs: int | None = None) -> PolicyLayer:
        """From a trained layer.

        Args:
            layer: A linear layer, with biases.
            outputs: Only the first so many; all of them if None.

        Raises:
            ConfigError: If it is another module.
        """
        view = linear(layer).in_use
        assert view.bias is not None
        n_out, n_in = view.shape
        outputs = n_out if outputs is None else outputs
        bias = view.bias.detach().numpy()[:outputs].copy()
        weights = view.weights.detach().numpy().ravel()
        if view.index is None:
            return cls(n_in, outputs, weights[: outputs * n_in].copy(), bias, None, None)
        row_ptr = view.index.row_ptr[: outputs + 1].astype(np.uint32)
        end = int(row_ptr[-1])
        return cls(n_in, outputs, weights[:end].copy(), bias, row_ptr, view.index.col[:end].copy())

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out), connection by connection."""
        if self.row_ptr is None or self.col is None:
            return np.asarray(x @ self.values.reshape(self.n_out, self.n_in).T + self.bias, np.float32)
        products = np.concatenate([self.values * x[..., self.col], np.zeros((*x.shape[:-1], 1), np.float32)], axis=-1)
        starts, counts = self.row_ptr[:-1].astype(np.int64), np.diff(self.row_ptr.astype(np.int64))
        sums = np.where(counts > 0, np.add.reduceat(products, starts, axis=-1), np.float32(0))
        return np.asarray(sums + self.bias, np.float32)
