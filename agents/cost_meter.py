"""Running account of what an agent costs, following its topology."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparserl.agents.parts import AgentParts
from sparserl.metrics import cost


class CostMeter:
    """Sizes of an agent, and the operations of its gradient updates from now on.

    Args:
        agent: Which counts what its passes multiply; at events of its topology it calls `advance`.
    """

    def __init__(self, agent: AgentParts):
        self.agent = agent
        self._counted_before = agent.flops.total
        self.flops_train_short = 0.0
        self._counted_updates = agent.updates
        self._short_rate: float | None = None
        if agent.evolver is not None:
            agent.evolver.before_event = self._before_event

    @property
    def flops_train(self) -> int:
        """Of every product of all updates so far, targets and dense gradients included."""
        return self.agent.flops.total - self._counted_before

    @property
    def trained(self) -> list[nn.Module]:
        """Networks that the method trains."""
        return list(self.agent.networks.values())

    def _before_event(self) -> None:
        """Adds the updates that ended at the sizes that are about to change."""
        self.advance()
        self._short_rate = None

    def advance(self) -> None:
        """Adds the updates since the last call to the short account, each at the sizes it had."""
        before, now = self._counted_updates, self.agent.updates
        if now > before:
            if self._short_rate is None:
                networks, periods = self.agent.networks, self.agent.updates_per_step
                trained = [(network, periods[group]) for group, network in networks.items()]
                self._short_rate = cost.flops_short(trained, self.agent.batch_size)
            self.flops_train_short += (now - before) * self._short_rate
        self._counted_updates = now

    def summary(self) -> dict[str, Any]:
        """Sizes and FLOPs of the run so far, under the names of `result.json`."""
        trained, targets = self.trained, self.agent.target_copies.values()
        nonzero, dense = cost.params_nonzero(trained), cost.params_dense(trained)
        return {
            "params_nonzero": nonzero,
            "params_used": cost.params_used(trained),
            "params_dense": dense,
            "params_nonzero_targets": cost.params_nonzero(targets),
            "density": nonzero / dense,
            "flops_train": self.flops_train,
            "flops_train_short": self.flops_train_short,
            "bytes_parameters": cost.bytes_parameters(trained),
            "bytes_optimizer": cost.bytes_optimizer(map(self.agent.optimizer_of, self.agent.trained)),
            "bytes_indices": cost.bytes_indices(trained),
        }

    def state_dict(self) -> dict[str, Any]:
        """Counters."""
        return {
            "flops_train": self.flops_train,
            "flops_train_short": self.flops_train_short,
            "counted_updates": self._counted_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues counting; the agent must have been restored before."""
        self._counted_before = self.agent.flops.total - state["flops_train"]
        self.flops_train_short = state["flops_train_short"]
        self._counted_updates = state["counted_updates"]
        self._short_rate = None
