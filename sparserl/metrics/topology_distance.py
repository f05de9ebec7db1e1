"""How different two networks are connected, with and without regard to which hidden neuron is which.

Decides distances from connections alone, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from sparserl.errors import TopologyError
from sparserl.topology.structure import Positions, SparseTopology

MOST_OUTPUTS = 8192
"""Of a layer whose neurons are assigned to each other: a table of all pairs of them is held."""


@dataclass(frozen=True)
class TopologyDistance:
    """How different two networks are connected; 0 alike, 1 nothing in common.

    Attributes:
        layers: Of each layer, once the neurons are assigned to each other.
        unaligned: The same where neuron i of one network is neuron i of the other.
    """

    layers: tuple[float, ...]
    unaligned: tuple[float, ...]

    @property
    def mean(self) -> float:
        """NNSTD: mean over layers, once assigned."""
        return float(np.mean(self.layers))

    @property
    def mean_unaligned(self) -> float:
        """Mean over layers, neuron i with neuron i."""
        return float(np.mean(self.unaligned))


def topology_distance(first: Sequence[SparseTopology], second: Sequence[SparseTopology]) -> TopologyDistance:
    """Neural network sparse topology distance (NNSTD): hidden neurons have no names, so the cheapest assignment counts.

    From the input on, each neuron of one network is assigned to one of the other, so that the mean distance of their
    inputs is smallest; the next layer is compared with its inputs renamed accordingly. The distance of two neurons is
    the share of their inputs that one of them alone has (Jaccard distance; 0 if neither has any). Networks that are
    equal but for the order of hidden neurons have distance 0, unless neurons of a layer have the same inputs: which of
    these is assigned to which is arbitrary, and later layers depend on it.

    Args:
        first: Consecutive layers, the first one first; of a dense layer all its connections.
        second: As many, of the same widths. A layer may read each neuron several times, all of them in a row and then
            again, as kernels of convolutions and what follows them read channels.

    Raises:
        TopologyError: If widths differ, there is no layer, or one has more than `MOST_OUTPUTS` outputs.

    Source:
        Liu et al. 2020, Topological Insights into Sparse Neural Networks, and its code. Outputs of the last layer are
        assigned as well, as there.
    """
    widths = [[*(layer.n_in for layer in layers[:1]), *(layer.n_out for layer in layers)] for layers in (first, second)]
    read = [[layer.n_in for layer in layers] for layers in (first, second)]
    if widths[0] != widths[1] or read[0] != read[1] or not first:
        shown = " and ".join(" - ".join(map(str, of)) or "none" for of in widths)
        raise TopologyError(f"networks of equal widths have a distance, got {shown}")
    distances = []
    renamed: Positions = np.arange(first[0].n_in)  # by neuron of `second`, which one of `first` it is
    for one, other in zip(first, second, strict=True):
        if one.n_out > MOST_OUTPUTS:
            raise TopologyError(
                f"at most {MOST_OUTPUTS} outputs of a layer are assigned to each other, got {one.n_out}"
            )
        costs = _costs(one, other, _at_all_places(renamed, one.n_in))
        assigned = linear_sum_assignment(costs)
        distances.append(float(costs[assigned].mean()))
        renamed = np.empty(one.n_out, np.int64)
        renamed[assigned[1]] = assigned[0]
    return TopologyDistance(tuple(distances), tuple(map(jaccard_distance, first, second)))


def jaccard_distance(one: SparseTopology, other: SparseTopology) -> float:
    """Share of the connections of two layers of equal shape that one of them alone has; 0 if neither has any.

    Example:
        >>> jaccard_distance(SparseTopology(1, 4, np.array([0, 1])), SparseTopology(1, 4, np.array([1, 3])))
        0.6666666666666667
    """
    shared = np.intersect1d(one.flat, other.flat, assume_unique=True).size
    union = one.nnz + other.nnz - shared
    return 1.0 - shared / union if union else 0.0


def _at_all_places(neurons: Positions, n_in: int) -> Positions:
    """(n_in,) names of inputs, given those of the neurons: all of them, as often as the layer reads each."""
    times = n_in // neurons.size
    names: Positions = (np.arange(times)[:, None] * neurons.size + neurons).ravel()
    return names


def _costs(one: SparseTopology, other: SparseTopology, renamed: Positions) -> npt.NDArray[np.float64]:
    """(n_out, n_out) Jaccard distance of the inputs of each neuron of `one` from those of each neuron of `other`."""
    shape = one.n_out, one.n_in
    (starts, columns), (their_starts, their_columns) = one.rows, other.rows
    mine = csr_array((np.ones(one.nnz), columns, starts), shape)
    theirs = csr_array((np.ones(other.nnz), renamed[their_columns], their_starts), shape)
    shared = (mine @ theirs.T).toarray()
    union = np.diff(starts)[:, None] + np.diff(their_starts)[None, :] - shared
    costs: npt.NDArray[np.float64] = np.where(union > 0, 1.0 - shared / np.maximum(union, 1.0), 0.0)
    return costs
