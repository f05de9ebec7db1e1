"""How many connections each layer of a group loses for good and grows, where layers share them.

Decides numbers alone, of layers that are rewired together. Which connections go and where new ones grow is decided in
`criteria`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.free_positions import n_open
from sparserl.topology.pruning import PRUNE, lowest, squared_gradients
from sparserl.topology.structure import LayerView, Slots

Counts = list[int]


def own_excess(views: Sequence[LayerView], beyond: Sequence[int]) -> Counts:
    """What each layer has beyond its own schedule, or 0."""
    return [min(max(0, count), view.droppable.size) for view, count in zip(views, beyond, strict=True)]


def lowest_by(rule: str) -> Callable[[Sequence[LayerView], Sequence[int]], Counts]:
    """What all layers together have beyond their schedules, from where the lowest scores of all by `PRUNE[rule]` are.

    Each layer keeps its best connection; among equals the earlier layer loses one first.

    Source:
        Liu et al. 2021 (GraNet), pruning by one threshold for all layers; there all ties at the threshold go.
    """

    def excess(views: Sequence[LayerView], beyond: Sequence[int]) -> Counts:
        if sum(beyond) <= 0:
            return [0] * len(views)
        scores = [np.full(view.topology.nnz, np.inf) for view in views]
        for view, of_layer in zip(views, scores, strict=True):
            importance = [squared_gradients(view)] if PRUNE[rule].needs_importance else []
            of_layer[view.droppable] = PRUNE[rule].scores(view.values, *importance)[view.droppable]
        return [slots.size for slots in lowest(scores, sum(beyond))]

    return excess


def as_many(views: Sequence[LayerView], dropped: Sequence[Slots], replaced: Counts) -> Counts:
    """Each layer grows what it lost."""
    del views, dropped
    return replaced


def by_survivors(views: Sequence[LayerView], dropped: Sequence[Slots], replaced: Counts) -> Counts:
    """All that was lost is shared out by how many connections each layer has left.

    Source:
        Mostafa and Wang 2019 (DSR), code; what rounding leaves goes to a random layer there, here to the largest
        remainder.
    """
    survivors = [view.topology.nnz - slots.size for view, slots in zip(views, dropped, strict=True)]
    return dealt(sum(replaced), survivors, _room(views, dropped))


FULL = 0.99
"""Share of the free positions of a layer that a share by momentum fills at most."""


def by_momentum(views: Sequence[LayerView], dropped: Sequence[Slots], replaced: Counts) -> Counts:
    """All that was lost is shared out by the mean |momentum| of each layer's connections before the event.

    Raises:
        TopologyError: If the optimizer keeps no momentum.

    Source:
        Dettmers and Zettlemoyer 2019 (SNFS), code; there each share is rounded up and a controller repairs the number
        later, here the number is exact.
    """
    shares = []
    for view in views:
        if view.momentum is None:
            raise TopologyError("a budget by momentum needs what the optimizer keeps: tell it by `set_optimizer`")
        shares.append(float(np.abs(view.momentum).mean()) if view.momentum.size else 0.0)
    room = _room(views, dropped)
    wished = dealt(sum(replaced), shares, [math.floor(FULL * free) for free in room])
    left = sum(replaced) - sum(wished)
    more = dealt(left, [1.0] * len(views), [free - own for free, own in zip(room, wished, strict=True)])
    return [own + extra for own, extra in zip(wished, more, strict=True)]


def dealt(total: int, shares: Sequence[float], room: Sequence[int]) -> Counts:
    """A total in proportion to shares, exact: what rounding leaves goes to the largest remainders, the first of equals.

    What does not fit a layer is dealt again among those with room, likewise, until it is placed or all are full. Where
    no layer with room has a share, they have equal ones.

    Args:
        total: >= 0.
        shares: Of each layer, >= 0.
        room: Of each layer, >= 0.

    Raises:
        TopologyError: If a share is NaN or infinite.

    Example:
        >>> dealt(90, [300, 100, 50], [1000] * 3), dealt(95, [0.75, 0.25], [54, 891])
        ([60, 20, 10], [54, 41])
    """
    if not np.isfinite(shares).all():
        raise NotFiniteScoreError("a share of a layer is NaN or infinite, so nothing can be dealt by it")
    given = np.zeros(len(shares), np.int64)
    limits = np.asarray(room, np.int64)
    left = min(total, int(limits.sum()))
    while left > 0:
        open_layers = limits > given
        weights = np.where(open_layers, shares, 0.0)
        if weights.sum() == 0.0:
            weights = open_layers.astype(np.float64)
        exact = left * weights / weights.sum()
        whole = np.floor(np.round(exact, 9)).astype(np.int64)
        by_remainder = np.argsort(-np.round(exact - whole, 9), kind="stable")
        whole[by_remainder[: left - whole.sum()]] += 1
        placed = np.minimum(whole, limits - given)
        given += placed
        left -= int(placed.sum())
    counts: Counts = given.tolist()
    return counts


def _room(views: Sequence[LayerView], dropped: Sequence[Slots]) -> Counts:
    """Positions of each layer that are free after the drop and may be grown at."""
    return [n_open(view, np.delete(view.topology.flat, slots)) for view, slots in zip(views, dropped, strict=True)]


@dataclass(frozen=True)
class Budget:
    """Who gets how many.

    Attributes:
        excess: (layers, connections of each beyond its schedule, negative where it has fewer) -> how many of each go
            for good.
        grown: (layers, dropped slots of each, how many of those are replaced) -> how many grow in each, as many in all.
        needs_momentum: Whether `view.momentum` must be there.
        needs_samples: Whether `view.samples` must hold inputs and output gradients of the update.
    """

    excess: Callable[[Sequence[LayerView], Sequence[int]], Counts] = own_excess
    grown: Callable[[Sequence[LayerView], Sequence[Slots], Counts], Counts] = as_many
    needs_momentum: bool = False
    needs_samples: bool = False

    @property
    def shares_goals(self) -> bool:
        """Whether layers end with as many connections as their goals together, each with more or fewer than its own."""
        return self.excess is not own_excess


BUDGET: dict[str, Budget] = {
    "own": Budget(),
    "global_magnitude": Budget(excess=lowest_by("global")),
    "lamp": Budget(excess=lowest_by("lamp")),
    "fisher": Budget(excess=lowest_by("fisher"), needs_samples=True),
    "survivors": Budget(grown=by_survivors),
    "momentum": Budget(grown=by_momentum, needs_momentum=True),
}
"""What the layers of a group that is rewired together (all critics, say) share; a dense layer is not among them."""
SCOPES = ("group", "all")
"""Whether each group has its budget, or all groups share one."""
