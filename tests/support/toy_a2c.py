"""An agent that learns from what it has just met and forgets it: dense, no replay buffer, no targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gymnasium import spaces
from stable_baselines3 import A2C

from sparserl.agents.config import AgentConfig
from sparserl.agents.parts import AgentParts
from sparserl.kernels.flops import counting, torch_products
from sparserl.ranges import Count


@dataclass(frozen=True)
class ToyA2CConfig(AgentConfig):
    """Its options: those of every agent, and one of its own."""

    n_steps: Count = 5
    """Env steps of a rollout, in each environment."""

    def rollout(self, n_envs: int) -> tuple[int, int]:
        """One update after each."""
        return self.n_steps * n_envs, 1

    def arguments(self, action_shape: tuple[int, ...], *, seed: int, acts_only: bool) -> dict[str, Any]:
        """Without a buffer there is nothing that an agent which only acts could leave out."""
        del action_shape, seed, acts_only
        own = ("learning_rate", "gamma", "n_steps")
        return {name: getattr(self, name) for name in own} | {"policy_kwargs": {"net_arch": list(self.net_arch)}}


class ToyA2C(AgentParts, A2C):
    """Stable-Baselines3's `A2C`."""

    trained = ("policy",)
    action_spaces = (spaces.Box, spaces.Discrete)

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        return {"policy": [[n_obs, *config.net_arch, n_action], [n_obs, *config.net_arch, 1]]}

    @property
    def batch_size(self) -> int:  # type: ignore[override]  # a property here
        """The whole rollout."""
        return self.n_steps * self.n_envs

    def train(self) -> None:
        with counting(self.flops), torch_products(self, "update"):
            super().train()
