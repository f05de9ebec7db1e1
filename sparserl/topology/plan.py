"""What an event does to the layers that are rewired together, before it is done to any.

Pure functions of views of the layers; what is planned is applied by the evolver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparserl.errors import TopologyError
from sparserl.topology.budget import BUDGET
from sparserl.topology.criteria import DROP, GROW, largest
from sparserl.topology.fan_in import FAN_INS, beyond_fan_in, constant_fan_in, without_ablated
from sparserl.topology.free_positions import random_free
from sparserl.topology.group_sizes import groups_in
from sparserl.topology.pairs import folded, unfolded
from sparserl.topology.rewire import RewireRule, exchange
from sparserl.topology.structure import LayerView, Slots, SparseTopology, TopologyChange, absent


@dataclass(frozen=True)
class LayerPlan:
    """What one of several layers that are rewired together loses, and how many connections it grows.

    Attributes:
        old: The layer's topology.
        view: The layer as criteria see it: a connection may stand for a group.
        dropped: Slots that go, of `view`.
        for_good: How many of these are not replaced, in whatever layer.
        grown: How many grow in this layer.
    """

    old: SparseTopology
    view: LayerView
    dropped: Slots
    for_good: int
    grown: int

    def rewired(self, rule: RewireRule, rng: np.random.Generator) -> TopologyChange:
        """The change, with connections grown; `rng` is the layer's own stream."""
        flat, dropped = self.view.topology.flat, self.dropped
        grown = GROW[rule.grow].choose(self.view, np.delete(flat, dropped), self.grown, rng)
        if rule.keep_regrown:
            gone = flat[dropped]
            dropped, grown = dropped[absent(gone, grown)], grown[absent(grown, gone)]
        return unfolded(exchange(self.view.topology, dropped, grown), self.old)

    def shrunk(self) -> TopologyChange:
        """The change without growth.

        Source:
            DS-TD3 code: the first trigger past the end of adaptation; SET-RBM's last epoch.
        """
        return unfolded(exchange(self.view.topology, self.dropped, np.empty(0, np.int64)), self.old)


def plan_together(
    rule: RewireRule,
    views: Sequence[LayerView],
    update: int,
    goals: Sequence[int | None],
    firsts: Sequence[int | None],
) -> list[LayerPlan]:
    """What layers that are rewired together lose, and how many connections each of them grows.

    Where the density schedule leaves a layer fewer connections than it has, the excess is dropped with the rest and not
    replaced; otherwise the number of connections stays the same. Frozen connections stay even where the schedule wants
    fewer.

    A layer that would lose more than it could regrow elsewhere simply regrows some of what it dropped: a full layer
    stays full. Where a constraint closes the neurons of a dropped connection it cannot come back, and the event is
    refused if too few other positions are free.

    Where outputs share their inputs, all this holds for groups of connections.

    Of a layer whose products use some connections alone, those that are largest now are used from the event on, as many
    as before; the others are what an event may drop.

    Args:
        rule: Drop, fraction and budget.
        views: The layers as they are.
        update: Gradient update of the event, for the drop fraction and the density.
        goals: Of each layer the connections at the end of the density schedule; None if it keeps its number.
        firsts: Of each layer the connections that it began with, where the schedule starts; all if None.
    """
    topologies, views = [view.topology for view in views], [_choosing_used(folded(view)) for view in views]
    budget = BUDGET[rule.budget]
    goals, firsts = (
        [None if count is None else count // view.neurons for count, view in zip(counts, views, strict=True)]
        for counts in (goals, firsts)
    )
    layers = [*zip((view.topology for view in views), goals, firsts, strict=True)]
    for_good = budget.excess(views, [rule.beyond(own, update, goal, first) for own, goal, first in layers])
    dropped = [
        DROP[rule.drop].choose(
            view, rule.fraction(update), min(max(excess, rule.on_trial(own, goal)), view.droppable.size)
        )
        for view, (own, goal, _), excess in zip(views, layers, for_good, strict=True)
    ]
    if rule.fan_in != "free":
        views, dropped = _with_fan_in(rule, views, dropped, update)
    replaced = [slots.size - excess for slots, excess in zip(dropped, for_good, strict=True)]
    grown = budget.grown(views, dropped, replaced)
    return [LayerPlan(*one) for one in zip(topologies, views, dropped, for_good, grown, strict=True)]


def _choosing_used(view: LayerView) -> LayerView:
    topology = view.topology
    if topology.used is None:
        return view
    return replace(view, topology=topology.with_used(largest(view.values, topology.used.size)))


def _with_fan_in(
    rule: RewireRule, views: Sequence[LayerView], dropped: Sequence[Slots], update: int
) -> tuple[list[LayerView], list[Slots]]:
    """The views with the fan-in of each output after the event, and what goes for it; no layer loses any for good."""
    score = GROW[rule.grow].score
    assert score is not None  # the rule was checked
    planned, gone = [], []
    for view, slots in zip(views, dropped, strict=True):
        with_fan_in = constant_fan_in(view, slots, rule.salient_share, score(view), FAN_INS[rule.fan_in])
        chosen = DROP[rule.drop].choose(without_ablated(with_fan_in), rule.fraction(update), 0)
        planned.append(with_fan_in)
        gone.append(beyond_fan_in(with_fan_in, chosen))
    return planned, gone


def check_goal(goal: int, topology: SparseTopology, layer: str) -> None:
    """Raises TopologyError unless a layer may have `goal` connections at the end of a density schedule."""
    if not 1 <= goal <= topology.size:
        raise TopologyError(f"the goal of layer {layer!r} must be in [1, {topology.size}], got {goal}")
    groups_in(goal, topology.pairs, f"the goal of layer {layer!r}")


def plan_allocation(view: LayerView, count: int, rng: np.random.Generator) -> TopologyChange:
    """Plans `count` new connections, uniform over the free positions where they may grow.

    Args:
        view: The layer as it is.
        count: New connections, >= 0; a multiple of the outputs that share their inputs.
        rng: The layer's own stream.

    Raises:
        TopologyError: If fewer positions are free, or the count is no such multiple.

    Source:
        Sokar et al. 2021 (SpaceNet), allocation of a new task.
    """
    old, view = view.topology, folded(view)
    grown = random_free(view, view.topology.flat, groups_in(count, view.neurons, "the number of new connections"), rng)
    return unfolded(exchange(view.topology, np.empty(0, np.int64), grown), old)
