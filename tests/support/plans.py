"""Events of one layer alone, planned as the evolver plans those of several."""

from __future__ import annotations

import numpy as np

from sparserl.topology.plan import plan_together
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import LayerView, TopologyChange


def plan_rewire(
    rule: RewireRule,
    view: LayerView,
    update: int,
    rng: np.random.Generator,
    goal: int | None = None,
    first: int | None = None,
) -> TopologyChange:
    """Drop and growth of one layer."""
    return plan_together(rule, [view], update, [goal], [first])[0].rewired(rule, rng)


def plan_shrink(
    rule: RewireRule, view: LayerView, update: int, goal: int | None = None, first: int | None = None
) -> TopologyChange:
    """A final event of one layer, which drops and grows nothing."""
    return plan_together(rule, [view], update, [goal], [first])[0].shrunk()
