"""What tests of recycling share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.layers import SparseLinear, SparseMLP
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology

RNG = np.random.default_rng


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def sparse(n_out: int, n_in: int, flat: list[int], bias: bool = True) -> SparseLinear:
    return SparseLinear(SparseTopology(n_out, n_in, np.array(flat, np.int64)), bias)


def networks(dtype: torch.dtype, *layers: nn.Module, activation: str = "relu") -> SparseMLP:
    return SparseMLP(layers, activation).to(dtype)


def chain(dtype: torch.dtype, activation: str = "relu") -> SparseMLP:
    torch.manual_seed(0)
    rng = RNG(0)
    return networks(
        dtype,
        SparseLinear(random_topology(24, 9, 80, rng)),
        nn.Linear(24, 30),
        SparseLinear(random_topology(20, 30, 200, rng)),
        SparseLinear(random_topology(18, 20, 120, rng), bias=False),
        nn.Linear(18, 2),
        activation=activation,
    )
