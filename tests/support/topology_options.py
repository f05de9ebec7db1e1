"""What a topology may be told, and where it must arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.option_kinds import Batch, Probe, Value, of_rule


def _of_first(built: Any) -> list[Any]:
    """Layers of the network that answers that take part."""
    return [layer for name, layer in built.evolver.layers.items() if name.startswith(("actor", "network"))]


RULE = {
    "topology.drop": "weight_magnitude",
    "topology.grow": "random_unfired",
    "topology.drop_fraction": 0.4,
    "topology.decay": "cosine",
    "topology.update_interval": 17,
    "topology.first_update": 4,
    "topology.last_update": 99,
    "topology.shrink_at_end": False,
    "topology.keep_regrown": True,
}


def topology_batches(kind: str, *, of_tasks: bool = False) -> list[Batch]:
    """Connections of networks, those of agents or of a classifier."""
    dense_output = {"output_layer": "dense"} if of_tasks else {}
    is_classifier = kind in ("moving classifier", "moving fit")
    all_sparse: dict[str, Value] = {"border.heads": "shared"} if of_tasks else {}
    if is_classifier:
        all_sparse["topology.density"] = 0.2

    def alone(name: str, value: Value, probe: Probe, also: tuple[str, ...] = (), **needs: Value) -> Batch:
        option = f"topology.{name}"
        needed = {f"topology.{other}": given for other, given in needs.items()}
        return Batch(kind, option, {option: value}, needed, {option: probe}, also)

    of_agents = [
        Batch(kind, "topology.target", {"topology.target": "shared"}),
        alone("actor_density", 0.3, lambda built: built.density("actor")),
        alone("critic_density", 0.3, lambda built: built.density("critic")),
        alone("budget_scope", "all", of_rule("budget_scope"), budget="survivors"),
        alone("recycle_threshold", 0.375, lambda built: built.agent.topology.recycle_threshold),
    ]
    parts = {
        "topology.new_value": "uniform",
        "topology.moments": "mean",
        "topology.initial_value": "sparse_fan_in",
    }
    return [
        *([] if is_classifier else of_agents),
        Batch(kind, "rule", {**RULE, **parts}, {}, {name: of_rule(name.partition(".")[2]) for name in RULE}),
        alone(
            "method",
            "rigl",
            lambda built: "rigl" if built.evolver.rule.grow == "gradient" else "",
            **dense_output,
        ),
        alone("density", 0.3, lambda built: built.density(""), ("topology.epsilon",)),
        alone(
            "epsilon",
            [1.0, 2.0],
            lambda built: [round(layer.nnz / (layer.n_in + layer.n_out)) * 1.0 for layer in _of_first(built)],
            ("topology.density",),
        ),
        alone(
            "allocation",
            "uniform",
            lambda built: (
                "uniform" if len({round(layer.density, 1) for layer in built.evolver.layers.values()}) == 1 else "erk"
            ),
        ),
        Batch(
            kind,
            "topology.output_layer",
            {"topology.output_layer": "sparse"},
            all_sparse,
            {"topology.output_layer": lambda built: "sparse" if len(_of_first(built)) == 3 else "dense"},
        ),
        alone("density_schedule", "cubic", of_rule("density_schedule")),
        alone("schedule_share", 0.5, of_rule("schedule_share"), density_schedule="cubic"),
        alone(
            "initial_density",
            0.7,
            lambda built: round(min(one.density for one in _of_first(built)) / 0.7) * 0.7,
            density_schedule="cubic",
            density=0.5,
            allocation="uniform",
        ),
        alone("weight_l1", 0.5, of_rule("weight_l1")),
        alone("weight_noise", 0.5, of_rule("weight_noise")),
        alone("weight_l2", 0.5, of_rule("weight_l2")),
        alone("backward_factor", 1.5, of_rule("backward_factor"), **({} if is_classifier else {"target": "shared"})),
        alone("gradient_weight", 0.5, of_rule("gradient_weight"), drop="magnitude_and_gradient"),
        alone(
            "initial_topology",
            "constant_fan_in",
            lambda built: (
                "constant_fan_in"
                if all(np.ptp(np.bincount(one.topology.outputs, minlength=one.n_out)) <= 1 for one in _of_first(built))
                else "random"
            ),
        ),
        alone("budget", "survivors", of_rule("budget")),
        alone("fan_in", "constant", of_rule("fan_in"), grow="gradient", shrink_at_end=False),
        alone("salient_share", 0.5, of_rule("salient_share"), fan_in="constant", grow="gradient", shrink_at_end=False),
        alone("replaces_step", True, of_rule("replaces_step")),
        alone("drop_threshold", 0.5, of_rule("drop_threshold")),
        Batch(
            kind,
            "topology.output_density",
            {"topology.output_density": 0.6},
            {**all_sparse, "topology.allocation": "erk_plus", "topology.output_layer": "sparse"},
            {"topology.output_density": lambda built: round(_of_first(built)[-1].density, 1)},
        ),
        alone("gradient_batches", 3, of_rule("gradient_batches"), grow="gradient"),
        Batch(
            kind,
            "window",
            {"topology.begin_fraction": 0.25, "topology.end_fraction": 0.5},
            {},
            {
                "topology.begin_fraction": lambda built: (
                    built.evolver.rule.first_update / built.evolver.rule.last_update / 2
                ),
            },
        ),
        alone("pairs", 2, lambda built: min(one.topology.pairs for one in built.evolver.layers.values())),
    ]
