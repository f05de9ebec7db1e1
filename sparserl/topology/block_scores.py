"""Scores of all positions of a layer, formed a block of rows at a time, and the best of them.

Nothing as large as the layer is ever held. What a score is made of is decided in `criteria`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.free_positions import OpenPositions
from sparserl.topology.structure import NOTHING, FloatArray, LayerView, Positions

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
        of_inputs = [(_rows(x, inputs), dy) for x, dy in samples]
        of_neurons = (
            np.abs(np.asarray(sum(dy[outputs * view.neurons + index] @ x.T for x, dy in of_inputs)))
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
        own = _rows(sources, inputs)
        of_neurons = (np.abs(targets[outputs * view.neurons + index] @ own.T) for index in range(view.neurons))
        return reduce(np.add, of_neurons)

    return score


def _rows(of_inputs: FloatArray, inputs: Positions) -> FloatArray:
    """What is known of some inputs; no copy where they are all."""
    return of_inputs if inputs.size == len(of_inputs) else of_inputs[inputs]


def _samples(view: LayerView, sought: str) -> tuple[tuple[FloatArray, FloatArray], ...]:
    """What the update saw at the inputs of a layer, and at its outputs.

    Raises:
        TopologyError: If that was not kept.
    """
    if not view.samples:
        raise TopologyError(f"growth by {sought} needs the update's activations: a pass forward and back before it")
    return view.samples


def _directions(activations: Sequence[FloatArray]) -> FloatArray:
    """(neurons, samples) of length 1 a neuron, or 0 if it never varies; of batches (neurons, B) one after the other."""
    joined = np.concatenate(activations, axis=1)
    peak = np.abs(joined).max(axis=1, keepdims=True, initial=0.0)
    if not np.isfinite(peak).all():
        raise NotFiniteScoreError("an activation is NaN or infinite, so no connection can be chosen by it")
    varies = np.ptp(joined, axis=1, keepdims=True) > 0.0
    scaled = np.divide(joined, peak, out=np.zeros_like(joined), where=varies)  # or squares of tiny ones would be 0
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions: FloatArray = np.divide(scaled, length, out=np.zeros_like(scaled), where=varies)
    return directions


def highest(view: LayerView, kept: Positions, count: int, score: Score, last: Positions = NOTHING) -> Positions:
    """The `count` positions of highest score that are free and may be grown at; among equals the lower position.

    Scores are formed of such rows alone, in blocks of at most `ROW_BLOCK` entries, and only the best `count` are
    carried on. Where the view says how many connections each output is to have, or each so many inputs of it, the best
    are taken of each.

    Args:
        view: The layer.
        kept: Sorted positions that are not free.
        count: How many.
        score: What is to be high.
        last: Sorted positions that are chosen only where nothing else is free.

    Raises:
        TopologyError: If fewer are free.
    """
    room = OpenPositions.of(view)
    taken, late = room.inside(kept), room.inside(last)
    best = Best(count)
    missing, width = None, view.topology.n_in
    if view.fan_in is not None:
        width = view.topology.size // view.fan_in.size
        missing = view.fan_in - np.bincount(kept // width, minlength=view.fan_in.size)
    for outputs, inputs, start in room.runs(ROW_BLOCK):
        scores = score(outputs, inputs).reshape(-1)
        for positions, value in ((late, LAST), (taken, NEVER)):
            first, stop = np.searchsorted(positions, [start, start + scores.size])
            scores[positions[first:stop] - start] = value
        if missing is not None:
            some = slice(start // width, (start + scores.size) // width)
            of_rows = _best_of_rows(scores.reshape(-1, width), missing[some])
            scores[np.delete(np.arange(scores.size), of_rows)] = NEVER
        best.add(scores, start, above=NEVER)
    if best.positions.size < count:
        raise TopologyError(f"cannot choose {count} of {best.positions.size} free positions")
    return room.outside(best.positions)


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
