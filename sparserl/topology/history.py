"""Which connections a layer began with and which it has ever had.

Decides how that is remembered beside the present connections without listing those again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparserl.kernels.positions import present_and_gone, slots_among
from sparserl.topology.structure import Flags, Positions, SparseTopology


@dataclass(frozen=True)
class History:
    """What a layer has been, as of one topology of it.

    Attributes:
        topology: The connections when this was said.
        was_first: (nnz,) which of them the layer began with.
        gone: Sorted positions that have been connected and are not among them.
        gone_first: (gone,) which of those the layer began with.
        n_first: Connections that the layer began with.
    """

    topology: SparseTopology
    was_first: Flags
    gone: Positions
    gone_first: Flags
    n_first: int

    @classmethod
    def beginning(cls, topology: SparseTopology) -> History:
        """Of a layer that begins with `topology`."""
        nothing = np.empty(0, np.int64)
        return cls(topology, np.ones(topology.nnz, bool), nothing, np.empty(0, bool), topology.nnz)

    @classmethod
    def told(cls, topology: SparseTopology, first: Positions, explored: Positions) -> History:
        """Of a layer that is not known to have any of its connections now.

        Args:
            topology: A topology of the layer, for its size alone.
            first: Sorted positions that it began with.
            explored: Sorted positions that it has ever had, those included.
        """
        nothing = SparseTopology(topology.n_out, topology.n_in, np.empty(0, np.int64))
        return cls(nothing, np.empty(0, bool), explored, slots_among(explored, first) >= 0, first.size)

    def moved_to(self, topology: SparseTopology) -> History:
        """After the layer has got the connections `topology`, which count as explored."""
        if topology is self.topology:
            return self
        was_first, gone, gone_first = present_and_gone(
            self.topology.flat, self.was_first, self.gone, self.gone_first, topology.flat
        )
        return History(topology, was_first, gone, gone_first, self.n_first)

    @property
    def n_explored(self) -> int:
        """Positions that have ever been connected."""
        return self.topology.nnz + self.gone.size

    @property
    def explored(self) -> Positions:
        """Those, sorted."""
        here = self.topology.flat
        return np.insert(here, np.searchsorted(here, self.gone), self.gone)

    @property
    def first(self) -> Positions:
        """Positions that the layer began with, sorted."""
        here, gone = self.topology.flat[self.was_first], self.gone[self.gone_first]
        return np.insert(here, np.searchsorted(here, gone), gone)

    def overlap(self, topology: SparseTopology) -> float:
        """Share of the first connections that `topology` has, in [0, 1]; 1 where there were none."""
        present = int(np.count_nonzero(self.moved_to(topology).was_first))
        return present / self.n_first if self.n_first else 1.0
