"""What sub-networks are made of: owned connections, parts of a task, and layers that have lost theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import Flags, FloatArray

FREE = -1
"""Task that has reserved a neuron, or owns a connection or a bias, where none does."""


def release(evolver: TopologyEvolver, name: str, kind: str = "release") -> None:
    """Takes all connections away from a layer; `kind` is what the event is called."""
    topology = evolver.layers[name].topology
    evolver.apply(name, exchange(topology, np.arange(topology.nnz), np.empty(0, np.int64)), kind)


@dataclass
class OwnedConnections:
    """What is known of the connections of one layer beyond their weights.

    Attributes:
        owner: (nnz,) int16 task of each connection.
        importance: (nnz,) gathered over the steps of the present task.
        before: (nnz,) weights before the step that is being taken.
    """

    owner: np.ndarray
    importance: FloatArray
    before: FloatArray

    @classmethod
    def unowned(cls, count: int) -> OwnedConnections:
        """`count` connections that no task owns."""
        return cls(np.full(count, FREE, np.int16), np.zeros(count, np.float32), np.zeros(count, np.float32))


@dataclass(frozen=True, eq=False)
class TaskPart:
    """Part of a task: connections between neurons of its own.

    Attributes:
        outputs: (n_out,) open outputs of the output layer.
        selected: Of each hidden layer, (n,) neurons that its connections may join. From those that earlier tasks have
            reserved connections may come; none may lead to them.
        connections: In each layer.
    """

    outputs: Flags
    selected: Sequence[Flags]
    connections: Sequence[int]
