"""What the topology of an agent looks like, with what only the agent can tell: dormant neurons and relevant inputs.

Draws from no generator of the agent, so that watching changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparserl.agents.parts import AgentParts
from sparserl.agents.probe import gradients_on
from sparserl.layers import SparseMLP
from sparserl.layers.activity import dormant_fraction
from sparserl.metrics.connectivity import relevant_inputs, topology_metrics
from sparserl.metrics.gradients import gradient_metrics
from sparserl.topology.structure import Flags


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

        Empty for a dense agent. Activity and gradients are those on a probe of the agent (`AgentParts.probe`), where it
        has one; how far gradients agree is known where its steps are independent.
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
            networks = self._agent.networks.items()
            with_memory = {group for group, network in networks if getattr(network, "memory", None) is not None}
            layers, features = self._agent.evolver.layers, self._relevant_features()
            known["relevant"] = relevant_inputs(layers, features, with_memory)
        return known

    def _of_gradients(self) -> dict[str, float]:
        """`gradient_metrics` of the losses on a probe; gradients and captured samples stay as they were."""
        agent, probe = self._agent, self._agent.probe()
        if probe is None or probe.form_gradients is None:
            return {}
        layers = agent.evolver.layers
        with gradients_on(probe, agent.networks, layers, hold_samples=True):
            return gradient_metrics(layers)

    def _dormant(self) -> dict[str, float]:
        """Share of dormant neurons of each hidden layer on a probe, by full name."""
        probe = self._agent.probe()
        if probe is None:
            return {}
        threshold = self._agent.topology.recycle_threshold
        return {
            f"{group}.{name}.{level}": fraction
            for group, network in self._agent.networks.items()
            for name, mlp in network.named_modules()
            if isinstance(mlp, SparseMLP)
            for level, fraction in enumerate(dormant_fraction(mlp, probe.inputs[group], threshold))
        }
