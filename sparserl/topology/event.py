"""What happened to a layer, as a record, and what follows its connections through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sparserl.topology.structure import FloatArray, TopologyChange


class Follower(Protocol):
    """Carries per-connection data of one layer through an event, after the layer itself has changed.

    A copy of an evolver takes its followers along, so they hold what they change where copying sees it: as attributes,
    or bound by a method or `functools.partial`; never in a closure.
    """

    def __call__(self, change: TopologyChange, grown_values: float | FloatArray) -> None: ...


@dataclass(frozen=True)
class TopologyEvent:
    """What happened to one layer.

    Attributes:
        update: Gradient update after which it happened.
        layer: Full name, e.g. `critic.qf0.0`.
        kind: `initial`, `rewire`, `prune` (the density schedule drops, nothing grows), `shrink` (the final drop of
            `shrink_at_end`) or `allocate`.
        nnz: Connections after it.
        size: Connections of the dense layer.
        grown: Connections that are new.
        dropped: Connections that are gone.
        explored: Positions that have ever been connected, this event included.
    """

    update: int
    layer: str
    kind: str
    nnz: int
    size: int
    grown: int
    dropped: int
    explored: int
