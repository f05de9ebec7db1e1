"""Scores of all positions of a layer, formed a block of rows at a time, and the best of them.

Nothing as large as the layer is ever held. What a score is made of is decided in `criteria`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.free_positions import Block
from sparserl.topology.structure import FloatArray, LayerView, Positions

NOTHING: Positions = np.empty(0, np.int64)
ROW_BLOCK = 1 << 20
"""Entries of a dense layer whose scores are formed at a time."""
LAST, NEVER = -0.5, -1.0
"""Scores below every importance and |gradient|."""
Score = Callable[[Positions, Positions], FloatArray]
"""(outputs, inputs) -> (outputs, inputs) scores, none negative."""


def gradient_score(view: LayerView) -> Score:
    """|dense weight gradient|, summed over all samples before it is judged and over the neurons of an output after.

    Raises:
        TopologyError: If there are no samples.
    """
    samples = _samples(view, "gradient")

    def score(outputs: Positions, inputs: Positions) -> FloatArray:
        del inputs
        of_neurons = (
            np.abs(np.asarray(sum(dy[outputs * view.neurons + index] @ x.T for x, dy in samples)))
            for index in range(view.neurons)
        )
        gradient: FloatArray = reduce(np.add, of_neurons)
        if np.isnan(gradient).any():
            raise NotFiniteScoreError("the weight gradient holds NaN, so no connection can be chosen by it")
        return gradient

    return score


def cosine_score(view: LayerView) -> Score:
    """|cosine| between the activations of both neurons over all samples, 0 where one is the same in all of them.

    The neurons of one output add theirs up. Memory O((n_in + n_out) B) beside that of a block.

    Raises:
        TopologyError: If activations were not kept, or are not finite.
    """
    samples = _samples(view, "cosine")
    sources, targets = (_directions([pair[side] for pair in samples]) for side in (0, 1))

    def score(outputs: Positions, inputs: Positions) -> FloatArray:
        del inputs
        of_neurons = (np.abs(targets[outputs * view.neurons + index] @ sources.T) for index in range(view.neurons))
        return reduce(np.add, of_neurons)

    return score


def _samples(view: LayerView, sought: str) -> list[tuple[FloatArray, FloatArray]]:
    """What the update saw at the open inputs of a layer, and at its outputs.

    Raises:
        TopologyError: If that was not kept.
    """
    if not view.samples:
        raise TopologyError(f"growth by {sought} needs the update's activations; call `begin_update` before it")
    inputs = slice(None) if view.constraint is None else view.constraint.open_in
    return [(x[inputs], y) for x, y in view.samples]


def _directions(activations: Sequence[FloatArray]) -> FloatArray:
    """(neurons, samples) of length 1 a neuron, or 0 if it never varies; of batches (neurons, B) one after the other."""
    joined = np.concatenate(activations, axis=1)
    length = np.linalg.norm(joined, axis=1, keepdims=True)
    if not np.isfinite(length).all():
        raise NotFiniteScoreError("an activation is NaN or infinite, so no connection can be chosen by it")
    varies = np.ptp(joined, axis=1, keepdims=True) > 0.0
    directions: FloatArray = np.divide(joined, length, out=np.zeros_like(joined), where=varies)
    return directions


def highest(view: LayerView, kept: Positions, count: int, score: Score, last: Positions = NOTHING) -> Positions:
    """The `count` positions of highest score between open neurons that are not kept; among equals the lower position.

    Scores are formed in blocks of rows of at most `ROW_BLOCK` entries, and only the best `count` are carried on. Where
    the view says how many connections each output is to have, or each so many inputs of it, the best are taken of each.

    Args:
        view: The layer.
        kept: Sorted positions that are not free.
        count: How many.
        score: What is to be high.
        last: Sorted positions that are chosen only where nothing else is free.

    Raises:
        TopologyError: If fewer are free.
    """
    block = Block.of(view)
    n_in = block.inputs.size
    taken, late = block.inside(kept), block.inside(last)
    best = Best(count)
    rows_at_a_time = max(1, ROW_BLOCK // max(1, n_in))
    missing, width = None, n_in
    if view.fan_in is not None:
        width = view.topology.size // view.fan_in.size
        missing = view.fan_in - np.bincount(kept // width, minlength=view.fan_in.size)
    for start in range(0, block.outputs.size, rows_at_a_time):
        rows = block.outputs[start : start + rows_at_a_time]
        scores = score(rows, block.inputs).reshape(-1)
        for positions, value in ((late, LAST), (taken, NEVER)):
            first, stop = np.searchsorted(positions, [start * n_in, (start + rows.size) * n_in])
            scores[positions[first:stop] - start * n_in] = value
        if missing is not None:
            some = slice(start * n_in // width, (start + rows.size) * n_in // width)
            of_rows = _best_of_rows(scores.reshape(-1, width), missing[some])
            scores[np.delete(np.arange(scores.size), of_rows)] = NEVER
        best.add(scores, start * n_in, above=NEVER)
    if best.positions.size < count:
        raise TopologyError(f"cannot choose {count} of {best.positions.size} free positions")
    return block.outside(best.positions)


class Best:
    """The highest of scores that come a block at a time; among equals the lower position.

    Args:
        count: How many are carried on, >= 0.

    Attributes:
        positions: Of the best so far, sorted if blocks come in order.
        scores: Theirs.
    """

    def __init__(self, count: int):
        self.count = count
        self.positions: Positions = np.empty(0, np.int64)
        self.scores: FloatArray = np.empty(0, np.float32)

    def add(self, scores: FloatArray, first: int, above: float = -np.inf) -> None:
        """Compares the scores of a block of positions.

        Args:
            scores: (m,).
            first: Position of the first of them.
            above: What is not above this is never chosen.
        """
        candidates = np.flatnonzero(scores >= _kth_largest(scores, self.count))
        candidates = candidates[scores[candidates] > above]
        self.scores = np.concatenate([self.scores, scores[candidates]])
        self.positions = np.concatenate([self.positions, candidates + first])
        order = np.argsort(-self.scores, kind="stable")[: self.count]  # stable: the lower position wins a tie
        order.sort()
        self.scores, self.positions = self.scores[order], self.positions[order]


def _kth_largest(score: FloatArray, k: int) -> float:
    if k == 0:
        return np.inf
    if k >= score.size:
        return -np.inf
    return float(np.partition(score, score.size - k)[score.size - k])


def _best_of_rows(scores: FloatArray, counts: Positions) -> Positions:
    """Places of the `counts[i]` highest scores of each row i, in the rows one after the other, sorted."""
    order = np.argsort(-scores, axis=1, kind="stable")
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, order, np.arange(scores.shape[1]) < counts[:, None], axis=1)
    return np.flatnonzero(best)
