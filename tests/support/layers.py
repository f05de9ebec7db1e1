"""Small sparse layers, and an evolver of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparserl.layers import SparseLinear
from sparserl.topology.event import Follower
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import FloatArray, SparseTopology, TopologyChange


def ints(*values: int) -> np.ndarray:
    """Slots or positions, int64."""
    return np.array(values, np.int64)


def sparse(n_out: int, n_in: int, flat: list[int], values: list[float] | None = None) -> SparseLinear:
    """A layer of these connections, without bias."""
    layer = SparseLinear(SparseTopology(n_out, n_in, ints(*flat)), bias=False)
    if values is not None:
        layer.values.data = torch.tensor(values)
    return layer


def random_layer(seed: int, n_out: int = 6, n_in: int = 7, nnz: int = 20) -> SparseLinear:
    """A layer of random connections with normal weights, without bias."""
    rng = np.random.default_rng(seed)
    layer = SparseLinear(random_topology(n_out, n_in, nnz, rng), bias=False)
    layer.values.data = torch.from_numpy(rng.standard_normal(nnz).astype(np.float32))
    return layer


def one_layer(layer: SparseLinear, rule: RewireRule | None = None, **kwargs: Any) -> TopologyEvolver:
    """An evolver of `net.0` alone."""
    return TopologyEvolver({"net": {"net.0": layer}}, rule, seed=0, **kwargs)


def weights(layer: SparseLinear) -> dict[int, float]:
    """Position -> weight."""
    return dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True))


def recorder(changes: list[TopologyChange]) -> Follower:
    """A follower that keeps the changes."""

    def follow(change: TopologyChange, grown_values: float | FloatArray) -> None:
        del grown_values
        changes.append(change)

    return follow
