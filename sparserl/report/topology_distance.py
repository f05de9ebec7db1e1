"""How far apart the topologies of runs are, pair by pair, as records and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from sparserl.errors import ConfigError, TopologyError
from sparserl.metrics.topology_distance import TopologyDistance, topology_distance
from sparserl.report.cells import Record
from sparserl.report.document import Section, Table
from sparserl.topology.structure import SparseTopology

Networks = Mapping[str, Sequence[SparseTopology]]
HEADS = {"aligned": "NNSTD", "unaligned": "same numbers\nof neurons"}
"""Distance -> head of its column."""
NOTE = (
    "in [0, 1], 0: the same connections; NNSTD (Liu et al. 2020) assigns neurons to each other, layer by layer from "
    "the input on, by the inputs that they share; beside it neuron i is neuron i"
)


def distance_records(runs: Sequence[tuple[Path, Networks]]) -> list[Record]:
    """Distances of every pair of runs, network by network and layer by layer, as plain data that JSON holds.

    Args:
        runs: Folder of each, at least two, and its networks by name.

    Raises:
        ConfigError: If there are fewer, or two of them have other networks or widths.
    """
    if len(runs) < 2:
        raise ConfigError(f"--topology-distance compares runs, at least two, got {len(runs)}")
    return [_pair(one, other) for one, other in combinations(runs, 2)]


def _pair(one: tuple[Path, Networks], other: tuple[Path, Networks]) -> Record:
    (path, networks), (other_path, others) = one, other
    if networks.keys() != others.keys():
        theirs = " and ".join(", ".join(names) for names in (networks, others))
        raise ConfigError(f"{path} and {other_path} have other networks: {theirs}")
    found = {}
    for name, layers in networks.items():
        try:
            found[name] = _record(topology_distance(layers, others[name]))
        except TopologyError as error:
            raise ConfigError(f"{name} of {path} and {other_path}: {error}") from None
    return {"runs": [str(path), str(other_path)], "networks": found}


def _record(distance: TopologyDistance) -> Record:
    return {
        "aligned": list(distance.layers),
        "unaligned": list(distance.unaligned),
        "mean": {"aligned": distance.mean, "unaligned": distance.mean_unaligned},
    }


def distance_sections(records: Sequence[Record]) -> list[Section]:
    """A table for each pair, and one of means over pairs if there are several."""
    pairs = [
        Section(f"{' and '.join(record['runs'])}: topology distance", [NOTE] if at == 0 else [], [_table(record)])
        for at, record in enumerate(records)
    ]
    return pairs if len(records) < 2 else [*pairs, _means(records)]


def _table(record: Record) -> Table:
    rows: list[list[str]] = []
    for name, network in record["networks"].items():
        rows.append([name, *(_cell(network["mean"][kind]) for kind in HEADS)])
        rows += [
            [f"  layer {index}", *map(_cell, both)]
            for index, both in enumerate(zip(*(network[kind] for kind in HEADS), strict=True))
        ]
        rows.append([])
    return Table("", ["network", *HEADS.values()], rows[:-1])


def _means(records: Sequence[Record]) -> Section:
    rows = [
        [name, *(_cell(float(np.mean([one["networks"][name]["mean"][kind] for one in records]))) for kind in HEADS)]
        for name in records[0]["networks"]
    ]
    return Section(f"means over {len(records)} pairs", tables=[Table("", ["network", *HEADS.values()], rows)])


def _cell(distance: float) -> str:
    return f"{distance:.4f}"
