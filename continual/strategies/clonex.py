"""ClonEx: the policies of earlier tasks are cloned on their observations while a new one is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sparserl.continual.learner import Group, Kind
from sparserl.continual.rl.memory import OutputMemory
from sparserl.continual.rl.probe import LOG_STD_RANGE
from sparserl.continual.strategies.memory import WithMemory
from sparserl.continual.strategies.options import Options
from sparserl.errors import ConfigError
from sparserl.ranges import Count, NotNegative

STD_FLOOR = 1e-6
"""Added to standard deviations, as in the code."""


@dataclass(frozen=True)
class ClonExOptions(Options):
    """What is kept, and how much it weighs. Defaults are those of the paper's code.

    Raises:
        ConfigError: If a value is out of range.
    """

    states_per_task: Count = 10_000
    """Observations kept of each task, with the actor's outputs on them."""
    batch_size: Count = 128
    """Of them, those that the divergence is taken on at a step, drawn anew."""
    strength: NotNegative = 100.0
    """Weight of the divergence, >= 0, relative to the actor's loss."""

    group: ClassVar[str] = "clonex"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "agent": {"states_per_task": 10_000, "batch_size": 128, "strength": 100.0}
    }


class ClonEx(WithMemory):
    """Behaviour cloning of an agent's earlier policies; with `--border.exploration best_return` it is ClonEx.

    When a task ends, observations of it are kept with what the actor says of them: means and log standard deviations
    before they are squashed. From then on each step of the actor also goes down the Kullback-Leibler divergence of what
    it says of such observations from what it said; critics are free.

    Source:
        Wolczyk et al. 2022, "Disentangling Transfer in Continual Reinforcement Learning", and its code.

    Known differences from that code:
        - The gradients of both losses are added; there, they are averaged, which is no matter to Adam.
        - Gradients are not clipped (there, to a norm of .1).
        - Observations are drawn without replacement.
        - Cloning of critics (off there) is left out.
    """

    options: ClonExOptions
    kept: OutputMemory

    def attach(self, learner: Any) -> None:
        """Keeps nothing yet.

        Raises:
            ConfigError: If the agent's policy is not a Gaussian.
        """
        super().attach(learner)
        if not learner.is_gaussian:
            raise ConfigError(
                f"clonex clones the distribution of actions, and {type(learner.agent).__name__} has none: use --algo "
                "ds_sac or ds_tqc, or --method replay"
            )
        self._acting = next(iter(learner.groups))
        self.kept = OutputMemory(learner)

    def before_step(self, learner: Any, group: Group) -> None:
        """Adds the gradient of the divergence to the actor's."""
        if group.name != self._acting or not len(self.kept):
            return
        drawn = self.kept.draw(self.options.batch_size)
        with group.uncaptured():
            outputs = learner.outputs_on(drawn["observations"])
            divergence = self.options.strength * gaussian_divergence(torch.from_numpy(drawn["outputs"]), outputs)
            parameters = list(group.module.parameters())
            gradients = torch.autograd.grad(divergence, parameters, allow_unused=True)  # of heads that did not answer
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def end_task(self, learner: Any) -> None:
        self.kept.keep(self.options.states_per_task)


def gaussian_divergence(targets: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Mean over samples of the Kullback-Leibler divergence of Gaussians from others, a scalar.

    Args:
        targets: (B, 2 A) means, then log standard deviations, which are clipped as SAC does: what is diverged from.
        outputs: (B, 2 A) likewise: what diverges.
    """
    mean, raw = targets.chunk(2, dim=1)
    other_mean, other_raw = outputs.chunk(2, dim=1)
    log_std, other_log_std = raw.clamp(*LOG_STD_RANGE), other_raw.clamp(*LOG_STD_RANGE)
    variance, other_variance = ((one.exp() + STD_FLOOR).square() for one in (log_std, other_log_std))
    squares = (variance + (mean - other_mean).square()) / (2.0 * other_variance)
    return (other_log_std - log_std + squares - 0.5).sum(dim=1).mean()
