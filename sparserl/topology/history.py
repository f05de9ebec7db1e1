"""Which connections a layer began with and which it has ever had.

Decides how that is remembered beside the present connections without listing those again, and in memory that follows
their number: of very many that are gone, a sample.

Source:
    Flajolet 1990, "On adaptive sampling" (Wegman's algorithm): of what is counted, what a hash lets through is kept,
    and half of that whenever it becomes too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparserl.kernels.positions import merged, present_and_gone, slots_among
from sparserl.topology.structure import Flags, Positions, SparseTopology

FEWEST_KEPT = 2**20
"""Positions of a layer that are gone and were not there at first, up to which all are kept."""
KEPT_SHARE = 0.125
"""The same as a share of a layer's connections; the larger of both holds. So the number of gone ones is exact, or has a
standard error of a thousandth at most."""
_HASH = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


@dataclass(frozen=True)
class History:
    """What a layer has been, as of one topology of it.

    Attributes:
        topology: The connections when this was said.
        was_first: (nnz,) which of them the layer began with.
        gone: Sorted positions that have been connected and are not among them: all that the layer began with, and a
            share 2**-halvings of the others.
        gone_first: (gone,) which of those the layer began with.
        n_first: Connections that the layer began with.
        halvings: How often the others were halved.
        keeps_all: Whether they never are.
    """

    topology: SparseTopology
    was_first: Flags
    gone: Positions
    gone_first: Flags
    n_first: int
    halvings: int = 0
    keeps_all: bool = False

    @classmethod
    def beginning(cls, topology: SparseTopology, *, keeps_all: bool = False) -> History:
        """Of a layer that begins with `topology`."""
        nothing = np.empty(0, np.int64)
        first = np.ones(topology.nnz, bool)
        return cls(topology, first, nothing, np.empty(0, bool), topology.nnz, keeps_all=keeps_all)

    @classmethod
    def told(cls, topology: SparseTopology, first: Positions, stored: Positions, *, keeps_all: bool = False) -> History:
        """Of a layer that is not known to have any of its connections now; `n_explored` is right once they are known.

        Args:
            topology: A topology of the layer, for its size alone.
            first: Sorted positions that it began with.
            stored: As `stored` gives it.
            keeps_all: As `History` has it.
        """
        halvings = max(0, -int(stored[0])) if stored.size else 0
        explored = stored[halvings > 0 :]
        nothing = SparseTopology(topology.n_out, topology.n_in, np.empty(0, np.int64))
        was_first = slots_among(explored, first) >= 0
        return cls(nothing, np.empty(0, bool), explored, was_first, first.size, halvings, keeps_all)

    def moved_to(self, topology: SparseTopology) -> History:
        """After the layer has got the connections `topology`, which count as explored."""
        if topology is self.topology:
            return self
        was_first, gone, gone_first = present_and_gone(
            self.topology.flat, self.was_first, self.gone, self.gone_first, topology.flat
        )
        moved = History(topology, was_first, gone, gone_first, self.n_first, self.halvings, self.keeps_all)
        return moved._thinned()

    def _thinned(self) -> History:
        """With no more of what is gone than is kept."""
        most = max(FEWEST_KEPT, int(KEPT_SHARE * self.topology.nnz))
        halvings, gone, gone_first = self.halvings, self.gone, self.gone_first
        if self.keeps_all or (not halvings and gone.size - np.count_nonzero(gone_first) <= most):
            return self
        while True:
            stays = gone_first | _passes(gone, halvings)
            gone, gone_first = gone[stays], gone_first[stays]
            if gone.size - np.count_nonzero(gone_first) <= most:
                return replace(self, gone=gone, gone_first=gone_first, halvings=halvings)
            halvings += 1

    @property
    def n_explored(self) -> int:
        """Positions that have ever been connected; of very many an estimate, see `KEPT_SHARE`."""
        first = int(np.count_nonzero(self.gone_first))
        return self.topology.nnz + first + ((self.gone.size - first) << self.halvings)

    @property
    def explored(self) -> Positions:
        """Those that are kept, sorted: all, unless they were halved."""
        explored: Positions = merged(self.topology.flat, self.gone)
        return explored

    @property
    def stored(self) -> Positions:
        """The same for a checkpoint: `explored`, behind -halvings where there are any."""
        return np.insert(self.explored, 0, -self.halvings) if self.halvings else self.explored

    @property
    def first(self) -> Positions:
        """Positions that the layer began with, sorted."""
        first: Positions = merged(self.topology.flat[self.was_first], self.gone[self.gone_first])
        return first

    def overlap(self, topology: SparseTopology) -> float:
        """Share of the first connections that `topology` has, in [0, 1]; 1 where there were none."""
        present = int(np.count_nonzero(self.moved_to(topology).was_first))
        return present / self.n_first if self.n_first else 1.0


def _passes(positions: Positions, halvings: int) -> Flags:
    """Which positions a hash lets through, one in 2**halvings of them."""
    if not halvings:
        return np.ones(positions.size, bool)
    flags: Flags = (positions.astype(np.uint64) * _HASH) >> np.uint64(64 - halvings) == 0
    return flags
