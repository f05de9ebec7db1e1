"""Multilayer perceptrons whose hidden layers all tasks share, and whose output layer is the task's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sparserl.layers.sparse_mlp import STATIC, SparseMLP
from sparserl.topology.config import TopologyConfig


class MultiHeadMLP(nn.Module):
    """Hidden layers, and one output layer for each task; of the output layers only those that are asked for run.

    Args:
        trunk: `SparseLinear` or `nn.Linear`, the hidden layers in order.
        heads: Likewise, the output layer of each task.
        activation: Name of the hidden activation, in `sparserl.layers.activations.ACTIVATIONS`, or all that stands
            after hidden layers.
        output_activation: Name of the last one.

    Attributes:
        by_task: The network of each task, `trunk` and its head; they hold the same layers.
        goals: As in `SparseMLP`, by the layer's name here, e.g. `trunk.0`.

    Raises:
        ValueError: If an activation has no such name.
    """

    def __init__(
        self,
        trunk: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        activation: str = "relu",
        output_activation: str = "identity",
    ):
        super().__init__()
        self.trunk, self.heads = nn.ModuleList(trunk), nn.ModuleList(heads)
        # A plain list, so that a layer has one name.
        first = SparseMLP([*trunk, heads[0]], activation, output_activation)
        self.by_task = [first, *(first.with_layers([*trunk, head]) for head in heads[1:])]
        self.goals: dict[str, int] = {}

    @classmethod
    def random(
        cls,
        sizes: Sequence[int],
        n_tasks: int,
        *,
        topology: TopologyConfig = STATIC,
        seed: int,
        name: str,
        activation: str = "relu",
        output_activation: str = "identity",
    ) -> MultiHeadMLP:
        """A network with random topologies; arguments as in `SparseMLP.random`, the same for each task's head."""
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        densities, first = topology.densities(shapes), topology.densities_at_first(shapes)
        own: dict[str, Any] = {"topology": topology, "seed": seed}
        trunk = SparseMLP.random(sizes[:-1], densities[:-1], first[:-1], name=f"{name}.trunk", **own)
        heads = [
            SparseMLP.random(sizes[-2:], densities[-1:], first[-1:], name=f"{name}.heads.{task}", **own)
            for task in range(n_tasks)
        ]
        network = cls(list(trunk), [head[0] for head in heads], activation, output_activation)
        network.goals = {f"trunk.{index}": goal for index, goal in trunk.goals.items()}
        network.goals |= {f"heads.{task}": goal for task, head in enumerate(heads) for goal in head.goals.values()}
        return network

    def forward(self, x: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """(B, n_in) inputs and the (B,) int64 task of each, to (B, n_out)."""
        present = torch.unique(tasks).tolist()
        if len(present) == 1:
            alone: torch.Tensor = self.by_task[present[0]](x)
            return alone
        rows = [torch.nonzero(tasks == task).flatten() for task in present]
        parts = [self.by_task[task](x[of_task]) for task, of_task in zip(present, rows, strict=True)]
        return torch.cat(parts)[torch.argsort(torch.cat(rows))]
