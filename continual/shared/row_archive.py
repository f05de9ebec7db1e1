"""Rows of a sparse output layer that are put away while other tasks are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sparserl.continual.shared.owned import release
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import FloatArray, SparseTopology


class RowArchive:
    """Positions and weights of the connections of finished tasks in one layer.

    Args:
        evolver: Holds the layer.
        name: Full name of the layer in it.
    """

    def __init__(self, evolver: TopologyEvolver, name: str):
        self._evolver, self._name = evolver, name
        self._rows: list[tuple[SparseTopology, FloatArray, int]] = []

    @classmethod
    def of(cls, evolver: TopologyEvolver, network: TaskNetwork) -> RowArchive | None:
        """One of the output layer of a classifier; None where tasks share its rows, which then stay."""
        rows = [row for outputs in network.task_outputs or () for row in outputs]
        *_, output = network.shared
        return cls(evolver, output) if len(set(rows)) == len(rows) else None

    @property
    def _layer(self) -> SparseLinear:
        return self._evolver.layers[self._name]  # type: ignore[return-value]  # is one

    def __len__(self) -> int:
        return len(self._rows)

    def put_away(self, task: int) -> None:
        """Takes all connections of the layer away and keeps them as those of a task; nothing if there are none."""
        if self._layer.nnz:
            self._rows.append((self._layer.topology, self._layer.values.detach().numpy(), task))
            release(self._evolver, self._name, "archive")

    def restored(self) -> SparseLinear:
        """The layer with the connections that are away and those that it has; biases are the layer's own."""
        last = self._layer
        rows = [(topology.flat, values) for topology, values, _ in self._rows]
        rows.append((last.topology.flat, last.values.detach().numpy()))
        flat = np.concatenate([positions for positions, _ in rows])
        order = np.argsort(flat)
        values = torch.from_numpy(np.concatenate([weights for _, weights in rows])[order])
        return SparseLinear.of(SparseTopology(last.n_out, last.n_in, flat[order]), values, last.bias)

    def answering(self, network: SparseMLP) -> SparseMLP:
        """The network with `restored` as its last layer, if anything is away."""
        return network.with_layers([*list(network)[:-1], self.restored()]) if self._rows else network

    def with_rows(self, usage: ConnectionUsage) -> ConnectionUsage:
        """The usage of the layer, connections that are away included."""
        away = {task: topology.nnz for topology, _, task in self._rows}
        owned = tuple(count + away.get(task, 0) for task, count in enumerate(usage.owned))
        return replace(usage, owned=owned, frozen=sum(owned))

    def state(self) -> list[list[Any]]:
        """What is away: positions, weights and task."""
        return [[topology.flat, values, task] for topology, values, task in self._rows]

    def load_state(self, state: Sequence[Sequence[Any]]) -> None:
        """Keeps what was away."""
        sides = self._layer.n_out, self._layer.n_in
        self._rows = [(SparseTopology(*sides, flat.numpy()), values.numpy(), task) for flat, values, task in state]
