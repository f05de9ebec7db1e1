"""What a topology looks like while it evolves, under the names that are logged.

Decides what is counted, from indices alone. Independent of agents: what is known to them alone (which inputs are
relevant, which neurons are dormant) is passed in by layer, and left out where it is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sparserl.errors import TopologyError
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import EvolvingLayer, Flags, Positions, SparseTopology

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
    "fan_in_min",
    "fan_in_mean",
    "fan_in_max",
    "fan_out_min",
    "fan_out_mean",
    "fan_out_max",
    "neurons_without_inputs",
    "neurons_without_outputs",
    "initial_overlap",
    "degree_relevant",
    "degree_irrelevant",
    "dormant",
)
"""Columns of `topology.csv`, a row per layer and event."""
HEADS = "heads"
"""What the list of the output layers of tasks is called in a network (`sparserl.layers.multi_head`)."""
UNKNOWN: Mapping[str, Any] = {}
"""By layer, of something that is known of none."""


def fan_in(topology: SparseTopology) -> Positions:
    """(n_out,) connections into each output neuron.

    Example:
        >>> fan_in(SparseTopology(n_out=3, n_in=2, flat=np.array([0, 1, 4]))).tolist()
        [2, 0, 1]
    """
    return np.diff(topology.rows[0])


def fan_out(topology: SparseTopology) -> Positions:
    """(n_in,) connections out of each input neuron; of an input layer, the degree of each feature.

    Example:
        >>> fan_out(SparseTopology(n_out=3, n_in=2, flat=np.array([0, 1, 4]))).tolist()
        [2, 1]
    """
    return np.bincount(topology.rows[1], minlength=topology.n_in)


def dead_neurons(topology: SparseTopology, reader: SparseTopology | None = None) -> int:
    """Output neurons of a layer that compute nothing, whatever the weights are.

    One without connections into it gives a constant; one without connections out of it is never read. Neither need
    be dormant, and neither comes back but by growth.

    Args:
        topology: The layer.
        reader: The layer that reads its outputs; None where each of them is read.

    Raises:
        TopologyError: If `reader` has another number of inputs.
    """
    dead = fan_in(topology) == 0
    if reader is not None:
        if reader.n_in != topology.n_out:
            raise TopologyError(f"a layer of {reader.n_in} inputs cannot read one of {topology.n_out} outputs")
        dead |= fan_out(reader) == 0
    return int(np.count_nonzero(dead))


def effective_connections(chain: Sequence[SparseTopology | None]) -> list[int]:
    """Connections on some path from an input to an output of a network; without the others it computes the same.

    Up to constants, that is: a neuron without connections into it still passes on its bias.

    Args:
        chain: Consecutive layers, the first one first; None stands for a dense layer of any width. Dense layers before
            the first and after the last of them make no difference.

    Returns:
        Count of each layer of `chain` that is not dense.

    Raises:
        TopologyError: If two consecutive layers do not fit.

    Source:
        Effective nnz, as in the compression of CTRE's code (Atashgahi et al. 2022).

    Example:
        >>> first = SparseTopology(n_out=2, n_in=2, flat=np.array([0, 1, 3]))
        >>> effective_connections([first, SparseTopology(n_out=1, n_in=2, flat=np.array([1]))])
        [1, 1]
    """
    for layer, reader in pairwise(chain):
        if layer is not None and reader is not None and reader.n_in != layer.n_out:
            raise TopologyError(f"a layer of {reader.n_in} inputs cannot read one of {layer.n_out} outputs")
    fed = _leading_on([None if t is None else (t.inputs, t.n_in, t.outputs, t.n_out) for t in chain])
    read = _leading_on([None if t is None else (t.outputs, t.n_out, t.inputs, t.n_in) for t in reversed(chain)])
    return [int(np.count_nonzero(into & out_of)) for into, out_of in zip(fed, reversed(read), strict=True)]


def _leading_on(chain: Sequence[tuple[Positions, int, Positions, int] | None]) -> list[Flags]:
    """(nnz,) which connections of each sparse layer continue a path from the start of a chain.

    Args:
        chain: Of each layer the neuron at which each connection starts, how many such neurons there are, and the same
            where they end; None of a dense layer.
    """
    neurons: Flags = np.array(True)  # without dimensions: all alike, of a layer of any width
    leading = []
    for layer in chain:
        if layer is None:
            neurons = np.array(neurons.any())
            continue
        starts, n_starts, ends, n_ends = layer
        connections = np.broadcast_to(neurons, n_starts)[starts]
        neurons = np.zeros(n_ends, bool)
        neurons[ends[connections]] = True
        leading.append(connections)
    return leading


def overlap(topology: SparseTopology, initial: Positions) -> float:
    """Share of the initial connections that exist, in [0, 1]; 1 where there were none.

    A connection that was dropped and has grown again counts.

    Args:
        topology: The layer now.
        initial: Its first positions, sorted.
    """
    if initial.size == 0:
        return 1.0
    return float(np.isin(initial, topology.flat, assume_unique=True).mean())


def degree_by_relevance(topology: SparseTopology, relevant: Flags) -> dict[str, float]:
    """Mean connections of a relevant and of an irrelevant input of a layer.

    Args:
        topology: The layer.
        relevant: (n_in,) which of its inputs carry information about the task.

    Returns:
        `degree_relevant` and `degree_irrelevant`; a kind of which there is no input is absent.

    Raises:
        TopologyError: If there is not one flag for each input.

    Source:
        Grooten et al. 2023 (ANF), mean active connections per relevant and irrelevant feature.
    """
    if relevant.shape != (topology.n_in,):
        raise TopologyError(f"a layer of {topology.n_in} inputs needs as many flags, got {relevant.size}")
    degree = fan_out(topology)
    groups = {"degree_relevant": degree[relevant], "degree_irrelevant": degree[~relevant]}
    return {name: float(group.mean()) for name, group in groups.items() if group.size}


def relevant_inputs(
    layers: Mapping[str, EvolvingLayer], features: Flags, with_memory: Collection[str] = ()
) -> dict[str, Flags]:
    """Which inputs of the layers that read observations are relevant.

    Args:
        layers: By full name; those that read observations are numbered 0, e.g. `critic.qf0.0`.
        features: (n,) which features of an observation are relevant. Inputs after them are actions, and relevant.
        with_memory: Groups whose networks have an LSTM before these layers; it reads observations, e.g. by
            `actor.memory.ih_l0`.

    Returns:
        (n_in,) flags by full name.

    Raises:
        TopologyError: If such a layer has fewer inputs than there are features.

    Source:
        Grooten et al. 2023 (ANF), whose code counts the critics' action inputs as relevant.
    """
    relevant = {}
    for name, layer in layers.items():
        n_in = layer.topology.n_in
        if name.rpartition(".")[2] == ("ih_l0" if name.partition(".")[0] in with_memory else "0"):
            if n_in < features.size:
                raise TopologyError(f"{features.size} features do not fit the {n_in} inputs of {name}")
            relevant[name] = np.pad(features, (0, n_in - features.size), constant_values=True)
    return relevant


def chains(names: Iterable[str]) -> dict[str, list[str]]:
    """Full names of the consecutive layers of each network, as far as its first and last sparse layers reach.

    Args:
        names: Of sparse layers, e.g. `critic.qf0.0`; the numbers of a network count its layers, dense ones included.
            Heads of tasks, which are numbered side by side, are a network each.

    Returns:
        By network; a name that is not among `names` belongs to a dense layer.

    Example:
        >>> chains(["actor.mu.0", "actor.mu.2", "head"])
        {'actor.mu': ['actor.mu.0', 'actor.mu.1', 'actor.mu.2'], 'head': ['head']}
    """
    numbers: dict[str, list[int]] = {}
    chains = {}
    for name in names:
        network, _, number = name.rpartition(".")
        if not (network and number.isdecimal()) or network.rpartition(".")[2] == HEADS:
            chains[name] = [name]
            continue
        known = numbers.setdefault(network, [])
        known.append(int(number))
        chains[network] = [f"{network}.{layer}" for layer in range(min(known), max(known) + 1)]
    return chains


def event_rows(
    evolver: TopologyEvolver,
    events: Sequence[TopologyEvent],
    *,
    relevant: Mapping[str, Flags] = UNKNOWN,
    dormant: Mapping[str, float] = UNKNOWN,
) -> list[dict[str, Any]]:
    """What `topology.csv` says of the latest events of an evolver, oldest first; `global_step` is for the caller.

    Of each layer, all columns describe its topology right after the event; those from `fan_in_min` on are known of its
    latest event only, and absent from rows of earlier ones. The neurons without inputs are among its outputs, those
    without outputs among its inputs.

    Args:
        evolver: Where they happened.
        events: All that happened since some moment.
        relevant: (n_in,) which inputs are relevant, by layer.
        dormant: Share of the output neurons that are dormant now, by layer.
    """
    grown, dropped = dict(evolver.grown_total), dict(evolver.dropped_total)
    layers = evolver.layers
    rows = []
    described = set()
    for event in reversed(events):
        name = event.layer
        row: dict[str, Any] = {
            "update": event.update,
            "layer": name,
            "kind": event.kind,
            "nnz": event.nnz,
            "size": event.size,
            "density": event.nnz / event.size,
            "grown": event.grown,
            "dropped": event.dropped,
            "grown_total": grown[name],
            "dropped_total": dropped[name],
            "explored_fraction": event.explored / event.size,
        }
        if name not in described:
            described.add(name)
            row |= _degrees(layers[name].topology)
            row |= _compared(name, evolver, relevant, dormant)
        rows.append(row)
        grown[name] -= event.grown
        dropped[name] -= event.dropped
    return rows[::-1]


def _degrees(topology: SparseTopology) -> dict[str, float]:
    into, out_of = fan_in(topology), fan_out(topology)
    return {
        "fan_in_min": int(into.min()),
        "fan_in_mean": topology.nnz / topology.n_out,
        "fan_in_max": int(into.max()),
        "fan_out_min": int(out_of.min()),
        "fan_out_mean": topology.nnz / topology.n_in,
        "fan_out_max": int(out_of.max()),
        "neurons_without_inputs": int(np.count_nonzero(into == 0)),
        "neurons_without_outputs": int(np.count_nonzero(out_of == 0)),
    }


def _compared(
    name: str, evolver: TopologyEvolver, relevant: Mapping[str, Flags], dormant: Mapping[str, float]
) -> dict[str, float]:
    """What is said of a layer beside its own connections; what is unknown is left out."""
    topology = evolver.layers[name].topology
    said = {"initial_overlap": evolver.initial_overlap(name)}
    if name in relevant:
        said |= degree_by_relevance(topology, relevant[name])
    if name in dormant:
        said["dormant"] = dormant[name]
    return said


def topology_metrics(
    evolver: TopologyEvolver,
    *,
    relevant: Mapping[str, Flags] = UNKNOWN,
    dormant: Mapping[str, float] = UNKNOWN,
) -> dict[str, float]:
    """Logged values of each layer, and of all sparse layers together.

    Args:
        evolver: Of the layers.
        relevant: (n_in,) which inputs are relevant, by layer.
        dormant: Share of the output neurons that are dormant now, by layer.

    Returns:
        `topology/<layer>/density`, `.../grown_total` and `.../dropped_total` (connections, cumulative),
        `.../explored_fraction` (positions ever connected, share of the dense layer), `.../dead_neurons` (outputs
        without connections into them or on to the next layer; what heads of tasks read is not asked),
        `.../initial_overlap` (share of the first connections that exist), where known `.../degree_relevant`,
        `.../degree_irrelevant` (mean connections of an input) and `.../dormant` (share of the outputs); and
        `topology/density` and `topology/explored_fraction` over all sparse layers, absent when there is none.
    """
    metrics: dict[str, float] = {}
    nnz = size = explored = 0.0
    layers = {name: layer.topology for name, layer in evolver.layers.items()}
    readers = dict(pair for chain in chains(layers).values() for pair in pairwise(chain))
    for name, topology in layers.items():
        reader = layers.get(readers.get(name, ""))
        if reader is not None and reader.n_in != topology.n_out:
            reader = None  # numbered side by side, not one after the other
        fraction = evolver.explored_fraction(name)
        values = {
            "density": topology.density,
            "grown_total": evolver.grown_total[name],
            "dropped_total": evolver.dropped_total[name],
            "explored_fraction": fraction,
            "dead_neurons": dead_neurons(topology, reader),
            **_compared(name, evolver, relevant, dormant),
        }
        metrics.update({f"topology/{name}/{key}": value for key, value in values.items()})
        nnz += topology.nnz
        size += topology.size
        explored += fraction * topology.size
    if size:
        metrics["topology/density"] = nnz / size
        metrics["topology/explored_fraction"] = explored / size
    return metrics
