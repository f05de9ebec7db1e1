"""What a topology looks like while it evolves, under the names that are logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparserl.topology.evolver import TopologyEvent, TopologyEvolver

TOPOLOGY_COLUMNS = (
    "global_step",
    "update",
    "layer",
    "kind",
    "nnz",
    "size",
    "density",
    "grown",
    "dropped",
    "grown_total",
    "dropped_total",
    "explored_fraction",
)
"""Columns of `topology.csv`, a row per layer and event."""


def event_rows(evolver: TopologyEvolver, events: Sequence[TopologyEvent]) -> list[dict[str, Any]]:
    """What `topology.csv` says of the latest events of an evolver, oldest first; `global_step` is for the caller.

    Args:
        evolver: Where they happened.
        events: All that happened since some moment.
    """
    grown, dropped = dict(evolver.grown_total), dict(evolver.dropped_total)
    rows = []
    for event in reversed(events):
        rows.append(
            {
                "update": event.update,
                "layer": event.layer,
                "kind": event.kind,
                "nnz": event.nnz,
                "size": event.size,
                "density": event.nnz / event.size,
                "grown": event.grown,
                "dropped": event.dropped,
                "grown_total": grown[event.layer],
                "dropped_total": dropped[event.layer],
                "explored_fraction": event.explored / event.size,
            }
        )
        grown[event.layer] -= event.grown
        dropped[event.layer] -= event.dropped
    return rows[::-1]


def topology_metrics(evolver: TopologyEvolver) -> dict[str, float]:
    """Logged values of each layer, and of all sparse layers together.

    Returns:
        `topology/<layer>/density`, `.../grown_total` and `.../dropped_total` (connections, cumulative) and
        `.../explored_fraction` (positions ever connected, share of the dense layer), and `topology/density` and
        `topology/explored_fraction` over all sparse layers, absent when there is none.
    """
    metrics: dict[str, float] = {}
    nnz = size = explored = 0.0
    for name, layer in evolver.layers.items():
        topology = layer.topology
        fraction = evolver.explored_fraction(name)
        metrics[f"topology/{name}/density"] = topology.density
        metrics[f"topology/{name}/grown_total"] = evolver.grown_total[name]
        metrics[f"topology/{name}/dropped_total"] = evolver.dropped_total[name]
        metrics[f"topology/{name}/explored_fraction"] = fraction
        nnz += topology.nnz
        size += topology.size
        explored += fraction * topology.size
    if size:
        metrics["topology/density"] = nnz / size
        metrics["topology/explored_fraction"] = explored / size
    return metrics
