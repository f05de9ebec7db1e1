"""Events of one layer alone, planned as the evolver plans those of several."""

from __future__ import annotations

import numpy as np

from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.plan import plan_together
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import LayerView, TopologyChange


def go_together(drop: str, grow: str) -> bool:
    """Whether a rule may have both: what a layer keeps of an update is either activations or gradients."""
    return not (DROP[drop].needs_samples and GROW[grow].needs_activations)


BOTH = [(drop, grow) for drop in DROP for grow in GROW if go_together(drop, grow)]
"""Names of criteria that a rule may have."""


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
