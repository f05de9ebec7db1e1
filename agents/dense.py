"""Stable-Baselines3's dense agents, for comparison: the same numbers bit for bit, and they say what they multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, lcm
from typing import Any

import stable_baselines3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.agents.on_policy_parts import A2CParts, PPOParts
from sparserl.agents.parts import ActorCriticParts, AgentParts, QNetworkParts
from sparserl.agents.probe import Probe, places_in
from sparserl.kernels.flops import counting, torch_products


class DenseAgent(AgentParts, OffPolicyAlgorithm):
    """Counts the operations of an agent that Stable-Baselines3 trains."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Runs gradient updates; called by `learn`."""
        turn = self._n_updates % lcm(*self.updates_per_step.values())
        with counting(self.flops), torch_products(self, (turn, gradient_steps, batch_size)):
            super().train(gradient_steps, batch_size)

    def probe(self) -> Probe | None:
        """As in `AgentParts`; without gradients, as losses are formed within Stable-Baselines3's `train` alone."""
        places = places_in(self.replay_buffer, self.seed or 0, self._n_updates)
        return None if places is None or not self.meets_vectors else Probe(self._read_at(places), None)


class PPO(PPOParts, stable_baselines3.PPO):
    """Stable-Baselines3's `PPO`."""


class A2C(A2CParts, stable_baselines3.A2C):
    """Stable-Baselines3's `A2C`."""


class TD3(ActorCriticParts, DenseAgent, stable_baselines3.TD3):
    """Stable-Baselines3's `TD3`."""

    targets_of = ("actor", "critic")

    @property
    def updates_per_step(self) -> Mapping[str, int]:
        return {"actor": self.policy_delay, "critic": 1}


class SAC(ActorCriticParts, DenseAgent, stable_baselines3.SAC):
    """Stable-Baselines3's `SAC` with `target_update_interval` counted over the whole run.

    There it is counted within one call of `train`, so with one update per env step, as everybody trains, the target
    networks move at every update whatever the interval. With an interval of 1 the two are the same bit for bit.
    """

    targets_of = ("critic",)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Runs gradient updates; called by `learn`."""
        if self.target_update_interval == 1:
            super().train(gradient_steps, batch_size)
            return
        tau = self.tau
        try:
            for _ in range(gradient_steps):
                due = (self._n_updates + 1) % self.target_update_interval == 0
                self.tau = tau if due else 0.0  # moves the targets by nothing
                super().train(1, batch_size)
        finally:
            self.tau = tau


class DQN(QNetworkParts, DenseAgent, stable_baselines3.DQN):
    """Stable-Baselines3's `DQN`; `max_grad_norm` None is no bound."""

    def __init__(self, *args: Any, **kwargs: Any):
        if kwargs.get("max_grad_norm", 0) is None:
            kwargs["max_grad_norm"] = inf
        super().__init__(*args, **kwargs)
