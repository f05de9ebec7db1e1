"""Which connections are dropped and where new ones grow.

A drop rule returns slots, a grow rule returns positions; both see a `LayerView` and nothing else. To add one,
write a function and its line in `DROP` or `GROW`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparserl.errors import TopologyError
from sparserl.topology.structure import LayerView, Positions, Slots

DropRule = Callable[[LayerView, float], Slots]
"""(view, drop fraction of live connections) -> slots to remove."""


def weight_magnitude(view: LayerView, fraction: float) -> Slots:
    """The `int(fraction * nnz)` connections of smallest |weight|; among equals the lower slot goes first.

    Source:
        Evci et al. 2020 (RigL), drop criterion; count truncated as in its code.
    """
    count = int(fraction * view.values.size)
    return np.sort(np.argsort(np.abs(view.values), kind="stable")[:count])


def signed_magnitude(view: LayerView, fraction: float) -> Slots:
    """About `fraction` of the positive weights nearest 0 and the same share of the negative ones.

    Thresholds are two entries of the sorted weights and survivors lie strictly beyond them, so the number dropped
    depends on the data (about one more per sign, all ties, and every weight that is exactly 0).

    Source:
        Mocanu et al. 2018 (SET), index rule of the original code; Sokar et al. 2022 (DS-TD3) code.
    """
    n = view.values.size
    if n == 0 or fraction <= 0.0:
        return np.empty(0, np.int64)
    ordered = np.sort(view.values)
    magnitude = np.abs(ordered)
    first = int(np.argmin(magnitude))
    past_last = n - int(np.argmin(magnitude[::-1]))
    low = ordered[int((1.0 - fraction) * first)]
    high = ordered[int(min(n - 1, past_last + fraction * (n - past_last)))]
    return np.flatnonzero((view.values >= low) & (view.values <= high))


DROP: dict[str, DropRule] = {
    "weight_magnitude": weight_magnitude,
    "signed_magnitude": signed_magnitude,
}


@dataclass(frozen=True)
class GrowRule:
    """Where connections grow.

    Attributes:
        choose: (view, kept positions sorted, count, generator) -> `count` positions that are not kept, sorted. A
            connection that the same event dropped is eligible.
        needs_gradient: Whether `view.samples` must hold the update's activations and gradients.
    """

    choose: Callable[[LayerView, Positions, int, np.random.Generator], Positions]
    needs_gradient: bool


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
        drawn = np.concatenate([drawn, more])
        # The first `count` different draws in order of drawing are a uniform set.
        first = np.unique(drawn, return_index=True)[1]
        drawn = drawn[np.sort(first)]
    return np.sort(drawn[:count])


def free_positions(size: int, occupied: Positions, count: int, rng: np.random.Generator) -> Positions:
    """`count` different positions of [0, size) outside `occupied`, uniform, sorted; O((nnz + count) log)."""
    rank = distinct_integers(size - occupied.size, count, rng)
    # The i-th occupied position has occupied[i] - i free ones below it.
    free_below = occupied - np.arange(occupied.size)
    return rank + np.searchsorted(free_below, rank, side="right")


def _random(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Uniform over the positions that are not kept.

    Source:
        Mocanu et al. 2018 (SET), Algorithm 1.
    """
    return free_positions(view.topology.size, kept, count, rng)


ROW_BLOCK = 1 << 20
"""Entries of the dense weight gradient that are formed at a time."""


def _gradient(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The largest |dense weight gradient| among positions that are not kept; among equals the lower position.

    The dense gradient is formed in blocks of rows of at most `ROW_BLOCK` entries and only the best `count` are
    carried on: time O(n_in n_out B), memory O(block + count).

    Source:
        Evci et al. 2020 (RigL), grow criterion.
    """
    del rng
    topology = view.topology
    if not view.samples:
        raise TopologyError("growth by gradient needs the update's activations; call `begin_update` before it")
    best_score = np.empty(0, np.float32)
    best: Positions = np.empty(0, np.int64)
    rows_at_a_time = max(1, ROW_BLOCK // topology.n_in)
    for start in range(0, topology.n_out, rows_at_a_time):
        stop = min(topology.n_out, start + rows_at_a_time)
        block = sum(dy[start:stop] @ x.T for x, dy in view.samples)
        score = np.abs(np.asarray(block)).ravel()
        if np.isnan(score).any():
            raise TopologyError("the weight gradient holds NaN, so no connection can be chosen by it")
        lowest = start * topology.n_in
        inside = slice(*np.searchsorted(kept, [lowest, stop * topology.n_in]))
        score[kept[inside] - lowest] = -1.0  # never chosen: |gradient| >= 0
        candidates = np.flatnonzero(score >= _kth_largest(score, count))
        candidates = candidates[score[candidates] >= 0.0]
        best_score = np.concatenate([best_score, score[candidates]])
        best = np.concatenate([best, candidates + lowest])
        order = np.argsort(-best_score, kind="stable")[:count]  # stable: the lower position wins a tie
        order.sort()
        best_score, best = best_score[order], best[order]
    return best


def _kth_largest(score: npt.NDArray[np.floating], k: int) -> float:
    if k == 0:
        return np.inf
    if k >= score.size:
        return -1.0
    return float(np.partition(score, score.size - k)[score.size - k])


GROW: dict[str, GrowRule] = {
    "random": GrowRule(_random, needs_gradient=False),
    "gradient": GrowRule(_gradient, needs_gradient=True),
}
