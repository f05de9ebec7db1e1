"""A linear layer as plain arrays: its connections alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from sparserl.kernels.networks import NORMS, After
from sparserl.layers.linear import linear
from sparserl.layers.norms import BeforeLayer, described, tensors_of

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class PolicyNorm:
    """What stands before a linear layer: `scale * x + shift`, of the features as they are or normalised.

    Attributes:
        scale: (n_in,)
        shift: (n_in,)
        epsilon: Added to the variance of the features, by whose mean and variance they are normalised first; None if
            they are not.
    """

    scale: Floats
    shift: Floats
    epsilon: float | None

    @classmethod
    def of(cls, norm: BeforeLayer, width: int) -> PolicyNorm:
        """From what stands before a layer of so many inputs."""
        found = described(norm, tensors_of(norm, width))
        scale, shift = (tensor.numpy().copy() for tensor in (found.scale, found.shift))
        return cls(scale, shift, found.epsilon if NORMS[found.kind].by_sample else None)

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to the same."""
        if self.epsilon is not None:
            x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(self.epsilon))
        return np.asarray(x * self.scale + self.shift, np.float32)


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
        norm: What stands before it, or None.
        added: Level that is added to its outputs before the activation, 0 for the observation, k for what layer k - 1
            gives; None if there is none.
        is_activated: Whether the hidden activation follows; of no meaning for the last layer.
    """

    n_in: int
    n_out: int
    values: Floats
    bias: Floats
    row_ptr: Indices | None
    col: Indices | None
    norm: PolicyNorm | None = None
    added: int | None = None
    is_activated: bool = True

    @classmethod
    def of(cls, layer: nn.Module, outputs: int | None = None) -> PolicyLayer:
        """From a trained layer, whatever stands around it.

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

    def within(self, norm: BeforeLayer | None, after: After | None) -> PolicyLayer:
        """The same with what stands around it in a network; an activation alone if `after` is None."""
        given = None if norm is None else PolicyNorm.of(norm, self.n_in)
        if after is None:
            return replace(self, norm=given)
        return replace(self, norm=given, added=after.added, is_activated=after.activation == "relu")

    def __call__(self, x: Floats) -> Floats:
        """(..., n_in) to (..., n_out) outputs, connection by connection; without what is added to them."""
        x = x if self.norm is None else self.norm(x)
        if self.row_ptr is None or self.col is None:
            return np.asarray(x @ self.values.reshape(self.n_out, self.n_in).T + self.bias, np.float32)
        products = np.concatenate([self.values * x[..., self.col], np.zeros((*x.shape[:-1], 1), np.float32)], axis=-1)
        starts, counts = self.row_ptr[:-1].astype(np.int64), np.diff(self.row_ptr.astype(np.int64))
        sums = np.where(counts > 0, np.add.reduceat(products, starts, axis=-1), np.float32(0))
        return np.asarray(sums + self.bias, np.float32)
