"""What tests of neurons that share inputs have in common."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from oracle.dense_topology import mask_of

from sparserl.topology.structure import SparseTopology

PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)


RNG = np.random.default_rng


def assert_shares_inputs(topology: SparseTopology, pairs: int) -> None:
    rows = mask_of(topology).reshape(-1, pairs, topology.n_in)
    assert np.array_equal(rows, np.repeat(rows[:, :1], pairs, axis=1))
    assert topology.pairs == pairs
