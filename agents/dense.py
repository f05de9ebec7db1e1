"""Stable-Baselines3's dense agents, for comparison: the same numbers bit for bit, and they say what they multiplied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from math import inf, lcm
from types import SimpleNamespace
from typing import Any

import stable_baselines3
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from sparserl.agents.on_policy_parts import A2CParts, PPOParts
from sparserl.agents.optimizer_steps import Step, double_of, instead_of_step, no_step
from sparserl.agents.parts import ActorCriticParts, AgentParts, QNetworkParts
from sparserl.agents.probe import Places, Probe, places_in
from sparserl.agents.replay.batch import transitions_at
from sparserl.kernels.flops import counting, torch_products


class DenseAgent(AgentParts, OffPolicyAlgorithm):
    """Counts the operations of an agent that Stable-Baselines3 trains."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Runs gradient updates; called by `learn`."""
        turn = self._n_updates % lcm(*self.updates_per_step.values())
        with counting(self.flops), torch_products(self, (turn, gradient_steps, batch_size)):
            super().train(gradient_steps, batch_size)

    def probe(self) -> Probe | None:
        """As in `AgentParts`; no gradients where observations are normalised, or several environments are stepped."""
        places = places_in(self.replay_buffer, self.seed or 0, self._n_updates)
        if places is None or not self.meets_vectors:
            return None
        return self._probe_of_replay(places, self._form_gradients)

    def _form_gradients(self, rows: Places) -> None:
        """Forms the gradients of all trained networks on transitions of the replay buffer, not clipped; takes no step.

        Losses are formed within Stable-Baselines3's `train` alone. Gradients are those that a step would take: later in
        it, the loss of an actor leaves some in critics.
        """
        assert self.replay_buffer is not None
        batch = transitions_at(self.replay_buffer, rows, self.gamma)
        samples = ReplayBufferSamples(*(torch.from_numpy(getattr(batch, name)) for name in ReplayBufferSamples._fields))
        double = double_of(
            self,
            replay_buffer=SimpleNamespace(sample=lambda *args, **kwargs: samples),
            _n_updates=lcm(*self.updates_per_step.values()) - 1,  # the next update is one of all networks ...
            tau=0.0,  # ... and moves no target
            max_grad_norm=inf,
            _update_learning_rate=lambda optimizers: None,
        )
        found: list[tuple[nn.Parameter, torch.Tensor]] = []

        def keep(network: nn.Module, step: Step) -> None:
            del step
            found.extend((one, one.grad.clone()) for one in network.parameters() if one.grad is not None)

        steps: list[tuple[torch.optim.Optimizer, Callable[[Step], None]]] = [
            (self.optimizer_of(name), partial(keep, network)) for name, network in self.networks.items()
        ]
        temperature: torch.optim.Optimizer | None = vars(self).get("ent_coef_optimizer")
        if temperature is not None:
            steps.append((temperature, no_step))
        mode = self.policy.training
        with ExitStack() as stack:
            for optimizer, instead in steps:
                stack.enter_context(instead_of_step(optimizer, instead))
            super(DenseAgent, double).train(1, len(rows))
        self.policy.set_training_mode(mode)
        for parameter, gradient in found:
            parameter.grad = gradient


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
