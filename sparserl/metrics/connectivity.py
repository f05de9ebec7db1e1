"""What a topology looks like while it evolves, under the names that are logged."""

from __future__ import annotations

from sparserl.topology.evolver import TopologyEvolver


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
