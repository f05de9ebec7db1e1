"""What the topology of an agent looks like, with what only the agent can tell: dormant neurons and relevant inputs.

Draws from no generator of the agent, so that watching changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparserl.agents.parts import AgentParts
from sparserl.agents.replay.buffer import IntArray
from sparserl.layers import SparseMLP
from sparserl.layers.activity import dormant_fraction
from sparserl.metrics.connectivity import relevant_inputs, topology_metrics
from sparserl.metrics.gradients import gradient_metrics
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
        """Logged values: those of `topology_metrics` and `gradient_metrics`, and neurons recycled so far.

        Empty for a dense agent. Gradients are those of the losses on transitions of the replay buffer, and not known of
        an agent whose networks read anything but vectors as they are stored, or that several environments feed.
        """
        if self._agent.evolver is None:
            return {}
        recycler = self._agent.recycler
        recycled = {} if recycler is None else recycler.recycled_total
        return {
            **topology_metrics(self._agent.evolver, **self.known()),
            **self._of_gradients(),
            **{f"topology/{name}/recycled_total": count for name, count in recycled.items()},
        }

    def known(self) -> dict[str, Any]:
        """What `event_rows` and `topology_metrics` take beside an evolver: what only the agent can tell."""
        known: dict[str, Any] = {"dormant": self._dormant()}
        if self._relevant_features is not None:
            known["relevant"] = relevant_inputs(self._agent.evolver.layers, self._relevant_features())
        return known

    def _drawn(self) -> tuple[IntArray, IntArray] | None:
        """Rows of the replay buffer and environments of some transitions; None if there are none that can be read."""
        buffer = self._agent.replay_buffer
        size = 0 if buffer is None else buffer.size()
        if size == 0 or not self._agent.reads_vectors:
            return None
        seed = self._agent.policy_kwargs.get("topology_seed", 0)
        draws = stream(seed, "dormant", str(self._agent.updates)).integers(size * buffer.n_envs, size=SAMPLES)
        # Before the oldest row lie those that a buffer of dynamic capacity has forgotten.
        oldest = getattr(buffer, "forgotten", 0) + (buffer.pos if buffer.full else 0)
        return (oldest + draws // buffer.n_envs) % buffer.buffer_size, draws % buffer.n_envs

    def _of_gradients(self) -> dict[str, float]:
        """`gradient_metrics` of the losses on these transitions; gradients and captured samples stay as they were."""
        agent, drawn = self._agent, self._drawn()
        layers = agent.evolver.layers
        if drawn is None or agent.n_envs > 1 or agent._vec_normalize_env is not None:
            return {}
        batch = agent.transitions(drawn[0])
        captures = {
            name: (layer.capture, layer.captures_activations, layer.activation_pairs) for name, layer in layers.items()
        }
        parameters = [parameter for network in agent.networks.values() for parameter in network.parameters()]
        gradients = [
            (parameter.grad, None if parameter.grad is None else parameter.grad.clone()) for parameter in parameters
        ]
        try:
            for layer in layers.values():
                layer.capture, layer.captures_activations, layer.activation_pairs = True, False, []
            with torch.random.fork_rng(devices=[]):
                for group in agent.trained:
                    agent.form_gradients(group, batch)
            return gradient_metrics(layers)
        finally:
            for name, kept in captures.items():
                layers[name].capture, layers[name].captures_activations, layers[name].activation_pairs = kept
            for parameter, (gradient, numbers) in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
                if gradient is not None:
                    gradient.copy_(numbers)

    def _dormant(self) -> dict[str, float]:
        """Share of dormant neurons of each hidden layer on transitions of the replay buffer, by full name."""
        buffer = self._agent.replay_buffer
        drawn = self._drawn()
        if drawn is None:
            return {}
        rows, columns = drawn
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
