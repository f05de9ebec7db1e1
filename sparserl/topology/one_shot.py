"""Initial topologies that are chosen by scores of a dense layer's weights, which are never there all at once.

Decides what a score is and which positions the best of all layers are. Where gradients come from is decided by who
calls it: a streamed pass of a network (`sparserl.layers.one_shot`), or autograd of a dense one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.seeding import stream
from sparserl.topology import block_scores
from sparserl.topology.block_scores import Best
from sparserl.topology.pairs import unfold_positions
from sparserl.topology.structure import FloatArray, Positions

Block = tuple[int, FloatArray]
"""First row, and (rows, n_in) entries of a layer."""


def _magnitude(weights: FloatArray) -> FloatArray:
    """|w|."""
    return np.abs(weights)


def _sensitivity(weights: FloatArray, gradient: FloatArray) -> FloatArray:
    """|w g|: how much the loss changes with the share of a weight that is left.

    Source:
        Lee et al. 2019 (SNIP), equation 6; divided by their sum there, which changes no order.

    Example:
        >>> _sensitivity(np.array([0.5, -1.0, 2.0]), np.array([-3.5, -7.0, 3.5])).tolist()
        [1.75, 7.0, 7.0]
    """
    return np.abs(weights * gradient)


def _kept_flow(weights: FloatArray, gradient: FloatArray, hessian_gradient: FloatArray) -> FloatArray:
    """w (H g): half of what the squared norm of the gradient would lose without a weight, to first order.

    Source:
        Wang et al. 2020 (GraSP), Algorithm 1, with the opposite sign: what scores highest there goes.

    Example:
        >>> _kept_flow(np.array([0.5, -1.0]), np.zeros(2), np.array([-21.0, -42.0])).tolist()
        [-10.5, 42.0]
    """
    del gradient
    return weights * hessian_gradient


@dataclass(frozen=True)
class OneShot:
    """How the connections that a network begins with are chosen.

    Attributes:
        score: Weights, then as many of gradient and product of Hessian and gradient as `order` says -> scores of the
            same shape; the highest stay.
        order: Of the derivatives of the loss that it needs: 0, 1 or 2.
        together: Whether all layers for which one density is given are compared, so that the numbers of connections of
            layers follow; else the best of each layer.
        at_random: Whether those numbers alone are kept, and positions drawn.
    """

    score: Callable[..., FloatArray]
    order: int = 0
    together: bool = True
    at_random: bool = False


ONE_SHOT: dict[str, OneShot] = {
    "largest": OneShot(_magnitude, together=False),
    "snip": OneShot(_sensitivity, order=1),
    "snip_ratios": OneShot(_sensitivity, order=1, at_random=True),
    "grasp": OneShot(_kept_flow, order=2),
    "grasp_ratios": OneShot(_kept_flow, order=2, at_random=True),
}


class StreamedWeights:
    """Weights of a dense layer, drawn a block of rows at a time as often as they are needed, uniform in +-1/sqrt(n_in).

    Args:
        n_out: Outputs.
        n_in: Inputs.
        seed: Root seed.
        name: Of the layer, which has a stream of its own.
    """

    def __init__(self, n_out: int, n_in: int, seed: int, name: str):
        self.n_out, self.n_in, self._seed, self._name = n_out, n_in, seed, name
        self._bound = np.float32(1.0 / math.sqrt(n_in))

    def blocks(self, rows_together: int = 1) -> Iterator[Block]:
        """Blocks of at most `block_scores.ROW_BLOCK` entries, and of whole groups of rows; float32."""
        rng = stream(self._seed, "dense_weights", self._name)
        step = max(1, block_scores.ROW_BLOCK // (self.n_in * rows_together)) * rows_together
        for first in range(0, self.n_out, step):
            yield first, self._uniform(rng, (min(step, self.n_out - first), self.n_in))

    def biases(self) -> FloatArray:
        """(n_out,) float32, from the same distribution."""
        return self._uniform(stream(self._seed, "dense_biases", self._name), (self.n_out,))

    def at(self, positions: Positions) -> FloatArray:
        """(k,) weights at sorted positions."""
        found = [np.empty(0, np.float32)]
        for first, block in self.blocks():
            start, stop = np.searchsorted(positions, [first * self.n_in, (first + len(block)) * self.n_in])
            found.append(block.reshape(-1)[positions[start:stop] - first * self.n_in])
        return np.concatenate(found)

    def _uniform(self, rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
        return (2.0 * rng.random(shape, np.float32) - 1.0) * self._bound


def chosen(
    scores: Sequence[Iterable[Block]], shapes: Sequence[tuple[int, int]], counts: Sequence[int] | int, pairs: int
) -> list[Positions]:
    """The positions of highest score, sorted, by layer; O(connections + block) memory.

    Among equals the earlier layer and the lower position is chosen. Where layers are compared, none is left empty.

    Args:
        scores: Of each layer, in blocks of whole groups of rows.
        shapes: (n_out, n_in) of each layer.
        counts: Connections of each, or of all together; multiples of `pairs`, at least so many for each layer.
        pairs: Consecutive outputs that share their inputs; their scores are summed.

    Raises:
        TopologyError: If there are fewer connections than layers.
        NotFiniteScoreError: If a score is NaN.
    """
    if isinstance(counts, int) and counts // pairs < len(shapes):
        least = len(shapes) * pairs / sum(n_out * n_in for n_out, n_in in shapes)
        raise TopologyError(f"{counts} connections leave one of {len(shapes)} layers empty: use density {least:.3g}")
    bounds = np.cumsum([0, *(n_out // pairs * n_in for n_out, n_in in shapes)])
    if isinstance(counts, int):
        best = [Best(counts // pairs)] * len(shapes)
    else:
        best = [Best(count // pairs) for count in counts]
    first_of_all = [Best(1) for _ in shapes]
    for layer, blocks in enumerate(scores):
        n_in = shapes[layer][1]
        for row, block in blocks:
            summed = block.reshape(-1, pairs, n_in).sum(axis=1).reshape(-1)
            if np.isnan(summed).any():
                raise NotFiniteScoreError("a score is NaN, so no connection can be chosen by it")
            for one in (best[layer], first_of_all[layer]):
                one.add(summed, int(bounds[layer]) + row // pairs * n_in)
    positions, scored = (
        np.concatenate(parts) for parts in zip(*((b.positions, b.scores) for b in dict.fromkeys(best)), strict=True)
    )
    layer_of = np.searchsorted(bounds, positions, side="right") - 1
    for missing in set(range(len(shapes))) - set(layer_of.tolist()):
        crowded = np.bincount(layer_of, minlength=len(shapes))[layer_of] > 1
        worst = np.flatnonzero(crowded)[np.argmin(scored[crowded])]
        positions[worst], layer_of[worst], scored[worst] = first_of_all[missing].positions[0], missing, np.inf
    return [
        unfold_positions(np.sort(positions[layer_of == layer] - bounds[layer]), shape[1], pairs)
        for layer, shape in enumerate(shapes)
    ]
