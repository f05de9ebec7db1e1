"""An agent of another kind than those of the library: discrete actions, one network, an exploration rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

from sparserl.agents.config import AgentConfig, OffPolicyConfig
from sparserl.agents.networks.networks import network, plain_ensembles
from sparserl.agents.networks.traced_forward import evaluate, traced_forward
from sparserl.agents.replay.batch import TransitionBatch
from sparserl.agents.sparse_off_policy import Number, SparseTopologyMixin
from sparserl.kernels.deferred import computed
from sparserl.layers.fused_adam import FusedAdam
from sparserl.ranges import Count, Share
from sparserl.topology.config import TopologyConfig


class ToyQNetwork(BaseModel):
    """(B, obs) to the (B, actions) value of each action."""

    def __init__(self, observations: spaces.Box, actions: spaces.Discrete, hidden: Sequence[int], **topology: Any):
        extractor = FlattenExtractor(observations)
        super().__init__(observations, actions, features_extractor=extractor)
        sizes = extractor.features_dim, list(hidden), int(actions.n)
        self.q = network(*sizes, name="q_net.q", activation_fn=torch.nn.ReLU, **topology)
        self.ensembles = plain_ensembles(self, {"forward": [self.q]})

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.q(observations)
        return values


class ToyPolicy(BasePolicy):
    """The best action by a sparse network."""

    takes_topology = True

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Any,
        net_arch: Sequence[int] = (16,),
        optimizer_kwargs: dict[str, Any] | None = None,
        *,
        topology: TopologyConfig,
        topology_seed: int,
    ):
        super().__init__(observation_space, action_space)
        own = observation_space, action_space, net_arch
        self.q_net, self.q_net_target = (ToyQNetwork(*own, topology=topology, seed=topology_seed) for _ in range(2))
        self.q_net_target.load_state_dict(self.q_net.state_dict())
        self.optimizer = FusedAdam(self.q_net.parameters(), lr=lr_schedule(1), **(optimizer_kwargs or {}))
        self.q_net.optimizer = self.optimizer  # type: ignore[assignment]  # where agents look for it

    def _predict(self, observation: torch.Tensor, deterministic: bool = True) -> torch.Tensor:
        del deterministic
        values = evaluate(self.q_net, "forward", observation.numpy().astype(np.float32))
        return torch.from_numpy(computed(values)[0].argmax(axis=1))


@dataclass(frozen=True)
class ToyConfig(OffPolicyConfig):
    """Its options: those of every agent, and two of its own."""

    target_interval: Count = 5
    """Gradient updates between two updates of the target network."""
    exploration: Share = 0.2
    """Share of random actions at the end."""

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        """And its own."""
        own = {"target_update_interval": self.target_interval, "exploration_final_eps": self.exploration}
        return super().arguments(action_shape, **how) | own


class ToyDQN(SparseTopologyMixin, DQN):
    """Deep Q-learning whose network is sparse and rewires."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ToyPolicy}
    trained = ("q_net",)
    targets_of = ("q_net",)
    action_spaces = (spaces.Discrete,)
    counters = (*SparseTopologyMixin.counters, "exploration_rate")

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        return {"q_net": [[n_obs, *config.net_arch, n_action]]}

    def _on_step(self) -> None:
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        loss = self._form(batch)
        self._step("q_net")
        if self._is_turn(self.target_update_interval):
            self._sync_targets(self.tau)
        return {"loss": loss}

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        self._form(batch)

    def _form(self, batch: TransitionBatch) -> float:
        following = computed(evaluate(self.q_net_target, "forward", batch.next_observations))[0]
        best = following.max(axis=1, keepdims=True)
        targets = computed(batch.rewards) + (1 - computed(batch.dones)) * computed(batch.discounts) * best
        online = traced_forward(self.q_net, "forward", batch.observations)
        values = computed(online.outputs)[0]
        chosen = np.arange(len(values)), computed(batch.actions)[:, 0].astype(int)
        errors = values[chosen] - targets[:, 0]
        gradient = np.zeros_like(values)
        gradient[chosen] = 2 * errors / len(errors)
        online.backward(gradient[None])
        return float(np.square(errors).mean())
