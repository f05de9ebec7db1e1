"""Layers of a model of the user's before it becomes sparse: their matrices, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Weight:
    """A matrix among the parameters of a module.

    Attributes:
        parameter: That holds it.
        bias: The very parameter that the layer made of it has, or None.
        rows: Its share of the parameter's rows: (which, of how many equal ones).
    """

    parameter: nn.Parameter
    bias: nn.Parameter | None = None
    rows: tuple[int, int] = (0, 1)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """(n_out, n_in) its part of a tensor of the parameter's shape."""
        return tensor.flatten(1).chunk(self.rows[1])[self.rows[0]]

    @property
    def shape(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        n_out, n_in = self.of(self.parameter).shape
        return n_out, n_in


@dataclass(frozen=True)
class Origin:
    """What a layer was before its model became sparse.

    Attributes:
        kind: Class of the module that had its weight.
        shape: Of the weight: (n_out, n_in) where it can be sparse.
        dense: Why it stays as it is; None where it does not.
    """

    kind: str
    shape: tuple[int, ...]
    dense: str | None = None
