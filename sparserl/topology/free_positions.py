"""Where a layer has no connection: how many such positions there are, and uniform draws of them.

Decides nothing about which are better; never lists the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

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
class OpenPositions:
    """The positions of a layer where connections may grow, taken or not, numbered row by row.

    Memory O(n_out + inputs of all blocks): an output has its inputs from its block.

    Attributes:
        view: The layer.
        outputs: Open outputs that a block has, sorted.
        block: (outputs,) int32, block of each.
        starts: (outputs + 1,) number of the first position of each, and how many there are in all.
        inputs: `block * n_in + input` of the open inputs of all blocks, sorted, and a last entry above all.
        firsts: (blocks,) place of the first of each block among `inputs`.
    """

    view: LayerView
    outputs: Positions
    block: npt.NDArray[np.int32]
    starts: Positions
    inputs: Positions
    firsts: Positions

    @classmethod
    def of(cls, view: LayerView) -> OpenPositions:
        n_out, n_in, constraint = view.topology.n_out, view.topology.n_in, view.constraint
        blocks: list[tuple[Positions | slice, Positions]]
        if constraint is None:
            blocks = [(slice(None), np.arange(n_in))]
        elif constraint.blocks is None:
            blocks = [(slice(None), np.flatnonzero(constraint.open_in))]
        else:
            blocks = [(outputs, inputs[constraint.open_in[inputs]]) for outputs, inputs in constraint.blocks]
        block_of = np.full(n_out, -1, np.int32)
        for index, (outputs, _) in enumerate(blocks):
            block_of[outputs] = index
        if constraint is not None:
            block_of[~constraint.open_out] = -1
        open_outputs = np.flatnonzero(block_of >= 0)
        block = block_of[open_outputs]
        del block_of  # a layer may have very many neurons
        ends = np.cumsum([0, *(inputs.size for _, inputs in blocks)], dtype=np.int64)
        starts = np.zeros(open_outputs.size + 1, np.int64)
        np.cumsum(np.diff(ends)[block], out=starts[1:])
        listed = np.full(ends[-1] + 1, np.iinfo(np.int64).max)
        for index, (_, inputs) in enumerate(blocks):
            np.add(inputs, index * n_in, out=listed[ends[index] : ends[index + 1]])
        return cls(view, open_outputs, block, starts, listed, ends[:-1])

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def numbers(self, positions: Positions) -> Positions:
        """(k,) number of each position of the layer, -1 where nothing may grow; O(k log)."""
        if self.view.constraint is None:
            return positions
        n_in = self.view.topology.n_in
        numbers = np.full(positions.size, -1)
        if self.size == 0:
            return numbers
        output, column = np.divmod(positions, n_in)
        row = np.minimum(np.searchsorted(self.outputs, output), self.outputs.size - 1)
        block = self.block[row].astype(np.int64)
        sought = block * n_in + column
        place = np.searchsorted(self.inputs, sought)
        found = (self.outputs[row] == output) & (self.inputs[place] == sought)
        numbers[found] = (self.starts[row] + place - self.firsts[block])[found]
        return numbers

    def inside(self, positions: Positions) -> Positions:
        """Numbers of those positions of the layer at which something may grow; sorted as they were."""
        numbers = self.numbers(positions)
        return numbers if self.view.constraint is None else numbers[numbers >= 0]

    def outside(self, numbers: Positions) -> Positions:
        """Positions in the layer of what is numbered so; sorted as they were."""
        if self.view.constraint is None:
            return numbers
        n_in = self.view.topology.n_in
        row = np.searchsorted(self.starts, numbers, side="right") - 1
        block = self.block[row].astype(np.int64)
        column = self.inputs[self.firsts[block] + numbers - self.starts[row]] - block * n_in
        positions: Positions = self.outputs[row] * n_in + column
        return positions

    def runs(self, entries: int) -> Iterator[tuple[Positions, Positions, int]]:
        """Consecutive outputs that have the same inputs, these inputs, and the number of their first position.

        Args:
            entries: How many positions a run has at most, unless it is of one output.
        """
        bounds = np.flatnonzero(np.diff(self.block, prepend=-1, append=-1)).tolist()
        ends = [*self.firsts[1:].tolist(), self.inputs.size - 1]
        for start, stop in pairwise(bounds):
            block = int(self.block[start])
            inputs = self.inputs[self.firsts[block] : ends[block]] - block * self.view.topology.n_in
            together = max(1, entries // max(1, inputs.size))
            for first in range(start, stop, together):
                yield self.outputs[first : min(first + together, stop)], inputs, int(self.starts[first])


def n_open(view: LayerView, kept: Positions) -> int:
    """Number of positions where connections may grow that are not among `kept`, sorted."""
    if view.constraint is None:
        return view.topology.size - kept.size
    room = OpenPositions.of(view)
    return room.size - room.inside(kept).size


def random_free(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Uniform over the positions where connections may grow that are not kept.

    Time and memory O((nnz + count) log nnz + n_in + n_out).

    Raises:
        TopologyError: If there are fewer than `count`.

    Source:
        Mocanu et al. 2018 (SET), Algorithm 1; within a block of neurons as in Sokar et al. 2021 (SpaceNet), allocation.
    """
    if view.constraint is None:  # lists no neurons, of which a layer may have many more than connections
        return free_positions(view.topology.size, kept, count, rng)
    room = OpenPositions.of(view)
    return room.outside(free_positions(room.size, room.inside(kept), count, rng))
