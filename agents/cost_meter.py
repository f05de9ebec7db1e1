"""Running account of the training FLOPs of an agent, following its topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sparserl.layers import SparseLinear
from sparserl.metrics import cost
from sparserl.metrics.cost import UpdateFlops
from sparserl.topology.evolver import TopologyEvolver


def _td3(agent: Any, critic_gradients: bool) -> UpdateFlops:
    return cost.td3_update_flops(
        agent.actor,
        agent.critic.q_networks,
        agent.actor_target,
        agent.critic_target.q_networks,
        agent.batch_size,
        critic_gradients_in_policy_update=critic_gradients,
    )


def _sac(agent: Any, critic_gradients: bool) -> UpdateFlops:
    return cost.sac_update_flops(
        agent.actor,
        agent.critic.q_networks,
        agent.critic_target.q_networks,
        agent.batch_size,
        critic_gradients_in_policy_update=critic_gradients,
    )


UPDATE_FLOPS: dict[type[OffPolicyAlgorithm], Callable[[Any, bool], UpdateFlops]] = {TD3: _td3, SAC: _sac}
"""Algorithm -> FLOPs of an update of an agent, given whether its policy update forms weight gradients of the critic."""


class CostMeter:
    """Counts FLOPs as updates happen, at the sizes that the networks have then.

    Args:
        agent: Of an algorithm in `UPDATE_FLOPS` or a subclass.
    """

    def __init__(self, agent: OffPolicyAlgorithm):
        self.agent: Any = agent
        self._update_flops = next(flops for kind, flops in UPDATE_FLOPS.items() if isinstance(agent, kind))
        self._policy_delay: int = getattr(agent, "policy_delay", 1)
        self.flops_train = 0
        self.flops_train_short = 0.0
        self._counted_updates = agent._n_updates
        self._measure()
        if self.evolver is not None:
            self.evolver.before_event = self._before_event

    @property
    def evolver(self) -> TopologyEvolver | None:
        """The agent's topology clock; None for a dense agent."""
        return getattr(self.agent, "evolver", None)

    @property
    def trained(self) -> list[nn.Module]:
        """Networks that the method trains."""
        return [self.agent.actor, self.agent.critic]

    @property
    def targets(self) -> list[nn.Module]:
        """Their target copies; SAC's actor has none."""
        return [getattr(self.agent, name) for name in ("actor_target", "critic_target") if hasattr(self.agent, name)]

    def _measure(self) -> None:
        agent = self.agent
        self._short_rate = cost.flops_short(agent.actor, agent.critic.q_networks, agent.batch_size, self._policy_delay)
        self._rate = self._update_flops(agent, self.evolver is None)
        self._is_outdated = False

    def _before_event(self) -> None:
        """Adds the updates that ended at the sizes that are about to change."""
        self.advance()
        self._is_outdated = True

    def advance(self) -> None:
        """Adds the updates since the last call, each at the sizes it had; call `remeasure` after topology events."""
        before, now = self._counted_updates, self.agent._n_updates
        if self._is_outdated and now > before:
            self._measure()
        delay = self._policy_delay
        self.flops_train += (now - before) * self._rate.critic + (now // delay - before // delay) * self._rate.policy
        self.flops_train_short += (now - before) * self._short_rate
        self._counted_updates = now

    def remeasure(self, rewired_layers: list[str]) -> None:
        """Adopts the sizes after topology events, and adds what growing by gradient cost.

        Args:
            rewired_layers: Names of the layers that grew; a final drop forms no gradient.
        """
        self._measure()
        evolver = self.evolver
        if evolver is not None and evolver.rule is not None and evolver.rule.needs_gradient:
            layers = [layer for name in rewired_layers if isinstance(layer := evolver.layers[name], SparseLinear)]
            batches = evolver.rule.gradient_batches
            self.flops_train += batches * cost.gradient_event_flops(layers, self.agent.batch_size)

    def summary(self) -> dict[str, Any]:
        """Sizes and FLOPs of the run so far, under the names of `result.json`."""
        nonzero, dense = cost.params_nonzero(self.trained), cost.params_dense(self.trained)
        return {
            "params_nonzero": nonzero,
            "params_dense": dense,
            "params_nonzero_targets": cost.params_nonzero(self.targets),
            "density": nonzero / dense,
            "flops_train": self.flops_train,
            "flops_train_short": self.flops_train_short,
            "bytes_parameters": cost.bytes_parameters(self.trained),
            "bytes_optimizer": cost.bytes_optimizer([self.agent.actor.optimizer, self.agent.critic.optimizer]),
            "bytes_indices": cost.bytes_indices(self.trained),
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
        self.flops_train, self.flops_train_short = state["flops_train"], state["flops_train_short"]
        self._counted_updates = state["counted_updates"]
        self._measure()
