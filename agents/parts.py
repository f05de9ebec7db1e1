"""What the rest of the library asks of an agent: its networks, their optimizers and targets, and what they read.

Nobody outside an agent knows how many networks it has, what they are called, or whether there is a replay buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sparserl.kernels.flops import FlopCounter


class AgentParts(OffPolicyAlgorithm):
    """An agent that says what it is made of.

    Attributes:
        flops: Operations of all products of its gradient updates; not saved.
    """

    trained: ClassVar[tuple[str, ...]]
    """Attributes that hold a trained network; each is a group of the evolver, which one optimizer step moves."""
    targets_of: ClassVar[tuple[str, ...]]
    """Those of them that have a target copy, `<name>_target`."""
    evolver: Any = None
    """Clock of its topology; None for a dense agent."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.flops = FlopCounter()
        super().__init__(*args, **kwargs)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Trained networks by group."""
        return {name: getattr(self, name) for name in self.trained}

    @property
    def target_copies(self) -> dict[str, nn.Module]:
        """Target networks, by the group that they follow."""
        return {name: getattr(self, f"{name}_target") for name in self.targets_of}

    def optimizer_of(self, group: str) -> torch.optim.Optimizer:
        """The optimizer of a group."""
        found: torch.optim.Optimizer = getattr(self, group).optimizer
        return found

    @property
    def updates_per_step(self) -> Mapping[str, int]:
        """Of each group the gradient updates between two steps of its optimizer."""
        return dict.fromkeys(self.trained, 1)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "flops"]
