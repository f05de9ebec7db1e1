"""What a rule of rewiring may say: ranges of its numbers, and which of its parts go together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparserl.errors import TopologyError, unknown_name
from sparserl.topology.budget import BUDGET, SCOPES
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.fan_in import FAN_INS
from sparserl.topology.schedules import DECAY, DENSITY

if TYPE_CHECKING:
    from sparserl.topology.rewire import RewireRule


def check_rule(rule: RewireRule) -> None:
    """Raises TopologyError if a field is out of range, a name unknown, or two fields do not go together."""
    for kind, name, table in (
        ("drop criterion", rule.drop, DROP),
        ("grow criterion", rule.grow, GROW),
        ("drop fraction decay", rule.decay, DECAY),
        ("density schedule", rule.density_schedule, DENSITY),
        ("budget", rule.budget, BUDGET),
        ("budget scope", rule.budget_scope, SCOPES),
        ("fan-in", rule.fan_in, FAN_INS),
    ):
        if name not in table:
            raise TopologyError(unknown_name(kind, name, table))
    if not 0.0 <= rule.drop_fraction < 1.0:
        raise TopologyError(f"drop_fraction must be in [0, 1), got {rule.drop_fraction}")
    if rule.update_interval < 1 or rule.first_update < 1:
        raise TopologyError(
            f"update_interval and first_update must be >= 1, got {rule.update_interval} and {rule.first_update}"
        )
    if rule.last_update is not None and rule.last_update < 0:
        raise TopologyError(f"last_update must not be negative, got {rule.last_update}")
    if rule.decay != "constant" and rule.last_update is None:
        raise TopologyError(f"a {rule.decay} drop fraction needs last_update")
    if not 0.0 < rule.schedule_share <= 1.0:
        raise TopologyError(f"schedule_share must be in (0, 1], got {rule.schedule_share}")
    if not 0.0 < rule.drop_threshold < math.inf:
        raise TopologyError(f"drop_threshold must be positive and finite, got {rule.drop_threshold}")
    for name in ("gradient_weight", "weight_l1", "weight_noise", "weight_l2"):
        if not 0.0 <= getattr(rule, name) < math.inf:
            raise TopologyError(f"{name} must not be negative or infinite, got {getattr(rule, name)}")
    if rule.gradient_weight and not DROP[rule.drop].needs_gradient:
        problem = f"so gradient_weight must be 0, got {rule.gradient_weight:g}"
        raise TopologyError(f"drop {rule.drop!r} looks at no gradient, {problem}")
    if rule.gradient_batches < 1:
        raise TopologyError(f"gradient_batches must be >= 1, got {rule.gradient_batches}")
    if rule.gradient_batches > 1 and not rule.needs_samples:
        problem = f"so gradient_batches must be 1, got {rule.gradient_batches}"
        raise TopologyError(f"growth {rule.grow!r} looks at no gradient and no activations, {problem}")
    if rule.chooses_by_samples and rule.needs_activations:
        raise TopologyError(f"growth {rule.grow!r} keeps activations where drop or budget need gradients: 'gradient'")
    _check_has_effect(rule)
    _check_fan_in(rule)
    _check_backward_factor(rule)
    if rule.budget_scope == "all" and rule.budget == "own":
        raise TopologyError("budget_scope all needs a budget that layers share, such as survivors, got budget 'own'")
    if rule.budget_scope == "all" and rule.replaces_step:
        raise TopologyError("replaces_step needs budget_scope group: an event of all follows the last of their steps")
    if rule.prunes:
        if rule.last_update is None:
            raise TopologyError(f"a {rule.density_schedule} density schedule needs last_update")
        if rule.last_update < rule.first_update:
            raise TopologyError(
                f"last_update must not come before first_update where pruning begins, {rule.first_update}, "
                f"got {rule.last_update}"
            )


def _check_has_effect(rule: RewireRule) -> None:
    if BUDGET[rule.budget].shares_goals and not rule.prunes:
        raise TopologyError(f"budget {rule.budget!r} shares what a density schedule takes: set density_schedule")
    if BUDGET[rule.budget].shares_goals and DENSITY[rule.density_schedule].on_trial:
        raise TopologyError(
            f"a {rule.density_schedule} density schedule is of each layer: budget own, not {rule.budget!r}"
        )
    if rule.schedule_share != 1.0 and not rule.prunes:
        raise TopologyError(f"schedule_share {rule.schedule_share:g} is of a density schedule: set density_schedule")


def _check_fan_in(rule: RewireRule) -> None:
    if not 0.0 <= rule.salient_share < 1.0:
        raise TopologyError(f"salient_share must be in [0, 1), got {rule.salient_share}")
    if rule.salient_share and rule.fan_in != "constant":
        raise TopologyError(f"salient_share {rule.salient_share:g} is of a constant fan-in: set fan_in constant")
    if rule.fan_in == "free":
        return
    if GROW[rule.grow].score is None:
        scored = [name for name, growth in GROW.items() if growth.score is not None]
        raise TopologyError(f"a constant fan-in needs growth by a score, {' or '.join(scored)}, got {rule.grow!r}")
    if rule.budget != "own":
        raise TopologyError(f"a constant fan-in keeps the connections of a layer: budget own, got {rule.budget!r}")
    if rule.prunes or rule.shrink_at_end:
        what = "density_schedule constant" if rule.prunes else "shrink_at_end false"
        raise TopologyError(f"a constant fan-in keeps the connections of a layer: set {what}")


def _check_backward_factor(rule: RewireRule) -> None:
    if not 1.0 <= rule.backward_factor < math.inf:
        raise TopologyError(f"backward_factor must be >= 1 and finite, got {rule.backward_factor}")
    if rule.backward_factor == 1.0:
        return
    said = f"backward_factor {rule.backward_factor:g} keeps the connections of a layer: set"
    if rule.prunes:
        raise TopologyError(f"{said} density_schedule constant, not {rule.density_schedule!r}")
    if rule.fan_in != "free":
        raise TopologyError(f"{said} fan_in free, not {rule.fan_in!r}")
