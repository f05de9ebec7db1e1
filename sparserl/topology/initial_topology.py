"""Which connections a layer begins with, of a number that is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from sparserl.errors import TopologyError
from sparserl.topology.free_positions import distinct_integers
from sparserl.topology.group_sizes import groups_in
from sparserl.topology.pairs import unfold_positions
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology


def constant_fan_in(n_out: int, n_in: int, nnz: int, rng: np.random.Generator, pairs: int = 1) -> SparseTopology:
    """A topology in which every output has as many inputs, or one more where `nnz` is no multiple; O(nnz log nnz).

    The inputs of an output are uniform over all sets of that size, and so are the outputs with one more.

    Args:
        n_out: Outputs, a multiple of `pairs`.
        n_in: Inputs.
        nnz: Connections, a multiple of `pairs`.
        rng: Draws them.
        pairs: Consecutive outputs that share their inputs.

    Raises:
        TopologyError: If `nnz` is more than the dense layer has, or no multiple of `pairs`.

    Source:
        Lasby et al. 2024 (SRigL), code; there the number of each output is the same and the density follows.
    """
    groups, rows = groups_in(nnz, pairs, "the number of connections"), groups_in(n_out, pairs, "the number of outputs")
    if groups > rows * n_in:
        distinct_integers(rows * n_in, groups, rng)  # which says so
    fan_in = np.full(rows, groups // rows)
    fan_in[distinct_integers(rows, groups % rows, rng)] += 1
    mostly = 2 * fan_in > n_in  # of such an output those that are left out are drawn
    wanted = np.where(mostly, n_in - fan_in, fan_in)
    drawn = np.empty(0, np.int64)
    missing = wanted
    while missing.any():
        row = np.repeat(np.arange(rows), missing)
        drawn = np.union1d(drawn, row * n_in + rng.integers(0, n_in, row.size))
        missing = wanted - np.bincount(drawn // n_in, minlength=rows)
    if mostly.any():  # or all inputs would be listed for nobody
        all_of_mostly = (np.flatnonzero(mostly)[:, None] * n_in + np.arange(n_in)).ravel()
        drawn = np.setxor1d(drawn, all_of_mostly, assume_unique=True)
    return SparseTopology(n_out, n_in, unfold_positions(drawn, n_in, pairs), pairs)


def _n_of(m: int, n_out: int, n_in: int, nnz: int, rng: np.random.Generator, pairs: int = 1) -> SparseTopology:
    """A topology in which each `m` consecutive inputs of an output have as many connections, uniform; as above.

    Raises:
        TopologyError: If the inputs do not come in groups of `m`, or connections not in a whole number of each.

    Source:
        N:M sparsity (Mishra et al. 2021): 2 of 4 is what sparse tensor cores multiply.
    """
    groups = n_out * n_in // m
    if n_in % m:
        raise TopologyError(
            f"a layer of {n_out} x {n_in} has no whole groups of {m} inputs: keep it dense by a density for each layer"
        )
    if nnz % groups:
        closest = max(1, round(nnz / groups)) / m
        raise TopologyError(
            f"{nnz} connections of a layer of {n_out} x {n_in} are no whole number of each {m} inputs: use density "
            f"{closest:g}, the same in each layer by topology.allocation uniform"
        )
    flat = constant_fan_in(groups // pairs, m, nnz // pairs, rng).flat
    return SparseTopology(n_out, n_in, unfold_positions(flat, n_in, pairs), pairs)


INITIAL: dict[str, Callable[..., SparseTopology]] = {
    "random": random_topology,
    "constant_fan_in": constant_fan_in,
    "of_four": partial(_n_of, 4),
    "of_eight": partial(_n_of, 8),
}
"""(outputs, inputs, connections, generator, outputs that share inputs) -> topology."""
