"""Growth where paths of length three lead between two neurons, in the network of connections alone.

Time follows the number of such paths, memory that of a block of them; a layer is never listed. Weights play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sparserl.errors import TopologyError
from sparserl.topology.block_scores import ROW_BLOCK
from sparserl.topology.free_positions import OpenPositions, n_open, random_free
from sparserl.topology.structure import NOTHING, FloatArray, LayerView, Positions, SparseTopology, absent

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def by_paths(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The highest CH2-L3n score by the connections that are kept, among free positions; see `scored_by_paths`.

    Among equals the lower position; where too few have a path of length three, random others. Time follows the paths.

    Raises:
        TopologyError: If fewer than `count` are free.

    Source:
        Zhang et al. 2024 (CHT), Zhang et al. 2025 (CHTs), regrowth without the soft rule.
    """
    return _best_by_paths(view, kept, count, rng, lambda scores: scores)


def by_paths_soft(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Drawn without replacement in proportion to the same scores; others come only where those do not suffice.

    Source:
        Zhang et al. 2025 (CHTs), soft rule of regrowth; there each position has 1e-5 more where those do not suffice.
        Drawn as in Efraimidis and Spirakis 2006: the largest scores, each divided by an exponential number.
    """
    return _best_by_paths(view, kept, count, rng, lambda scores: scores / rng.standard_exponential(scores.size))


def _best_by_paths(
    view: LayerView,
    kept: Positions,
    count: int,
    rng: np.random.Generator,
    judged: Callable[[FloatArray], FloatArray],
) -> Positions:
    free_in_all = n_open(view, kept)
    if count > free_in_all:
        raise TopologyError(f"cannot choose {count} of {free_in_all} free positions")
    room = OpenPositions.of(view)
    best_score, best = np.empty(0), NOTHING
    for positions, scores in scored_by_paths(view.topology.with_positions(kept)):
        free = absent(positions, kept) & (room.numbers(positions) >= 0)
        best_score = np.concatenate([best_score, judged(scores[free])])
        best = np.concatenate([best, positions[free]])
        order = np.argsort(-best_score, kind="stable")[:count]  # stable: the lower position wins a tie
        order.sort()
        best_score, best = best_score[order], best[order]
    return np.union1d(best, random_free(view, np.union1d(kept, best), count - best.size, rng))


def scored_by_paths(topology: SparseTopology) -> Iterator[tuple[Positions, FloatArray]]:
    """Positions with a path of length three between their neurons, existing ones included, and their scores.

    Paths lead from output u by an input t and an output j to input v. The score of (u, v), named CH2-L3n, adds up what
    each middle neuron is worth: an output j connected to v by what it has in common with u, an input t connected to u
    by what it has in common with v. With c > 0 neighbours in common, and d of its own, that is
    (1 + c) / (1 + max(0, d - c - 1)): neighbours on the paths count for it, those beside them against it.

    Args:
        topology: The connections that there are.

    Yields:
        Of consecutive blocks of outputs: (k,) sorted positions and (k,) scores > 0.

    Source:
        Zhang et al. 2025 (CHTs), code: the Cannistraci-Hebb rule of Muscoloni et al. 2018 per middle neuron, not per
        path, and over all neighbours in common, by products of matrices. An earlier version of that code has c in place
        of 1 + c.
    """
    from scipy.sparse import csr_array  # takes longer to import than all of this package's topology

    outputs, inputs = topology.outputs, topology.inputs
    shape = topology.n_out, topology.n_in
    layer = csr_array((np.ones(topology.nnz), (outputs, inputs)), shape=shape)
    back = layer.T.tocsr()
    of_outputs, of_inputs = np.diff(layer.indptr), np.diff(back.indptr)
    # At most as many entries as paths: of two steps from each input, and of three from each output.
    from_inputs = np.minimum(back @ of_outputs, topology.n_in)
    from_outputs = np.minimum(layer @ (back @ of_outputs), topology.n_in)
    for rows in _blocks(from_outputs):
        own = layer[rows]
        scores = _worth(own @ back, of_outputs, of_others=True) @ layer
        used = np.unique(own.indices)
        for block in _blocks(from_inputs[used]):
            middle = used[block]
            scores = scores + own[:, middle] @ _worth(back[middle] @ layer, of_inputs[middle], of_others=False)
        scores = scores.tocsr()
        scores.sort_indices()
        row = np.repeat(np.arange(rows.start, rows.stop), np.diff(scores.indptr))
        yield row * np.int64(topology.n_in) + scores.indices, scores.data


def _worth(common: csr_array, degrees: Positions, *, of_others: bool) -> csr_array:
    """(1 + c) / (1 + max(0, d - c - 1)) where neurons have c > 0 neighbours in common.

    Args:
        common: (neurons, others) c, where it is not 0.
        degrees: d of the others, or of the neurons.
        of_others: Which of the two.
    """
    degree = degrees[common.indices] if of_others else np.repeat(degrees, np.diff(common.indptr))
    c = common.data
    worth: Any = common.copy()
    worth.data = (1.0 + c) / (1.0 + np.maximum(0.0, degree - c - 1.0))
    return worth


def _blocks(sizes: Positions) -> Iterator[slice]:
    """Consecutive runs whose sizes add up to `ROW_BLOCK` at most, or of one alone."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + ROW_BLOCK, side="right")))
        yield slice(start, stop)
        start = stop
