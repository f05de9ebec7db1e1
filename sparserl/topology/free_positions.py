"""Where a layer has no connection: how many such positions there are, and uniform draws of them.

Decides nothing about which are better; never lists the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparserl.errors import TopologyError
from sparserl.kernels.positions import at_free_ranks, first_distinct
from sparserl.topology.structure import LayerView, Positions


def distinct_integers(bound: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` different integers of [0, bound), uniform over all such sets, sorted.

    Time and memory O(count log count): `bound` is never enumerated unless `count` is at least half of it.

    Raises:
        TopologyError: If `count` exceeds `bound`.
    """
    if count > bound:
        raise TopologyError(f"cannot choose {count} of {bound} free positions")
    if 2 * count > bound:
        left_out = distinct_integers(bound, bound - count, rng)
        return np.delete(np.arange(bound, dtype=np.int64), left_out)
    drawn = np.empty(0, np.int64)
    while drawn.size < count:
        more = rng.integers(0, bound, size=count - drawn.size + count // 8 + 8)
        # The first `count` different draws in order of drawing are a uniform set.
        drawn = first_distinct(np.concatenate([drawn, more]))
    return np.sort(drawn[:count])


def free_positions(size: int, occupied: Positions, count: int, rng: np.random.Generator) -> Positions:
    """`count` different positions of [0, size) outside `occupied`, uniform, sorted; O(nnz + count log count)."""
    positions: Positions = at_free_ranks(distinct_integers(size - occupied.size, count, rng), occupied)
    return positions


@dataclass(frozen=True)
class Block:
    """The open neurons of a layer as a layer of its own, its positions numbered row by row.

    Attributes:
        outputs: Open outputs, sorted.
        inputs: Open inputs, sorted.
        view: The layer.
    """

    outputs: Positions
    inputs: Positions
    view: LayerView

    @classmethod
    def of(cls, view: LayerView) -> Block:
        if view.constraint is None:
            return cls(np.arange(view.topology.n_out), np.arange(view.topology.n_in), view)
        return cls(np.flatnonzero(view.constraint.open_out), np.flatnonzero(view.constraint.open_in), view)

    def inside(self, positions: Positions) -> Positions:
        """Positions in the block of those positions of the layer that lie in it; sorted as they were."""
        if self.view.constraint is None:
            return positions
        row, column = np.divmod(positions, self.view.topology.n_in)
        within = self.view.constraint.open_out[row] & self.view.constraint.open_in[column]
        row, column = np.searchsorted(self.outputs, row[within]), np.searchsorted(self.inputs, column[within])
        return row * self.inputs.size + column

    def outside(self, positions: Positions) -> Positions:
        """Positions in the layer of positions of the block."""
        if self.view.constraint is None:
            return positions
        row, column = np.divmod(positions, max(1, self.inputs.size))
        return self.outputs[row] * self.view.topology.n_in + self.inputs[column]


def n_open(view: LayerView, kept: Positions) -> int:
    """Number of positions between open neurons that are not among `kept`, sorted."""
    if view.constraint is None:
        return view.topology.size - kept.size
    block = Block.of(view)
    return block.outputs.size * block.inputs.size - block.inside(kept).size


def random_free(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Uniform over the positions between open neurons that are not kept.

    Time and memory O((nnz + count) log nnz + n_in + n_out).

    Raises:
        TopologyError: If there are fewer than `count`.

    Source:
        Mocanu et al. 2018 (SET), Algorithm 1; within a block of neurons as in Sokar et al. 2021 (SpaceNet), allocation.
    """
    if view.constraint is None:  # lists no neurons, of which a layer may have many more than connections
        return free_positions(view.topology.size, kept, count, rng)
    block = Block.of(view)
    return block.outside(free_positions(block.outputs.size * block.inputs.size, block.inside(kept), count, rng))
