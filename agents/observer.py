"""What the topology of an agent looks like, with what only the agent can tell: dormant neurons and relevant inputs.

Draws from no generator of the agent, so that watching changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparserl.agents.parts import AgentParts
from sparserl.agents.sparse_off_policy import SparseTopologyMixin
from sparserl.layers import SparseMLP
from sparserl.layers.activity import dormant_fraction
from sparserl.metrics.connectivity import relevant_inputs, topology_metrics
from sparserl.seeding import stream
from sparserl.topology.structure import Flags

SAMPLES = 256
"""Transitions on which activity is measured."""


class TopologyObserver:
    """Describes the topology of an agent whenever it is asked.

    Args:
        agent: The agent.
        relevant_features: Tells which features of an observation are relevant at this moment, as (features,) flags;
            None if unknown.
    """

    def __init__(self, agent: AgentParts, relevant_features: Callable[[], Flags] | None = None):
        self._agent: Any = agent
        self._relevant_features = relevant_features

    def metrics(self) -> dict[str, float]:
        """Logged values: those of `topology_metrics`, and neurons recycled so far; empty for a dense agent."""
        if not isinstance(self._agent, SparseTopologyMixin):
            return {}
        recycler = self._agent.recycler
        recycled = {} if recycler is None else recycler.recycled_total
        return {
            **topology_metrics(self._agent.evolver, **self.known()),
            **{f"topology/{name}/recycled_total": count for name, count in recycled.items()},
        }

    def known(self) -> dict[str, Any]:
        """What `event_rows` and `topology_metrics` take beside an evolver: what only the agent can tell."""
        known: dict[str, Any] = {"dormant": self._dormant()}
        if self._relevant_features is not None:
            known["relevant"] = relevant_inputs(self._agent.evolver.layers, self._relevant_features())
        return known

    def _dormant(self) -> dict[str, float]:
        """Share of dormant neurons of each hidden layer on transitions of the replay buffer, by full name."""
        buffer = self._agent.replay_buffer
        size = 0 if buffer is None else buffer.size()
        if size == 0 or not self._agent.reads_vectors:
            return {}
        seed = self._agent.policy_kwargs.get("topology_seed", 0)
        count = size * buffer.n_envs
        draws = stream(seed, "dormant", str(self._agent._n_updates)).integers(count, size=SAMPLES)
        # Before the oldest row lie those that a buffer of dynamic capacity has forgotten.
        oldest = getattr(buffer, "forgotten", 0) + (buffer.pos if buffer.full else 0)
        rows, columns = (oldest + draws // buffer.n_envs) % buffer.buffer_size, draws % buffer.n_envs
        stored = (buffer.observations, buffer.actions)
        read = self._agent.read_by(*(array[rows, columns].astype(np.float32).reshape(SAMPLES, -1) for array in stored))
        inputs = {group: torch.from_numpy(array) for group, array in read.items()}
        threshold = self._agent.topology.recycle_threshold
        return {
            f"{group}.{name}.{level}": fraction
            for group, network in self._agent.networks.items()
            for name, mlp in network.named_modules()
            if isinstance(mlp, SparseMLP)
            for level, fraction in enumerate(dormant_fraction(mlp, inputs[group], threshold))
        }
