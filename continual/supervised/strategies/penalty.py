"""Methods that pull parameters back to the values they had after earlier tasks: l2, ewc, online_ewc, si, mas.

Decides how important each parameter is to a task. How it is pulled is `sparserl.continual.shared.quadratic`. Refuses to
know how a task is trained.

All of them add `strength * sum importance * (parameter - anchor)^2` to the loss, summed over all parameters, biases and
output rows included, without the factor 1/2 of the EWC paper. Importances and anchors have the shape of their
parameter: of a sparse layer one number a connection.

Source:
    Hsu et al. 2018, "Re-evaluating Continual Learning Scenarios", and its released code, for the form of the penalty
    and the default strengths, which are its values for class-incremental split MNIST.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sparserl.continual.shared.importance import mean_gradient_power
from sparserl.continual.shared.quadratic import QuadraticTerms, Tensors, copies
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.strategy import Strategy
from sparserl.continual.supervised.tasks import Batch
from sparserl.errors import ConfigError, unknown_name
from sparserl.ranges import Count, NotNegative, Positive, Share, check_ranges
from sparserl.seeding import stream

SAMPLES_AT_A_TIME = 250
"""Batch in which importances are estimated."""


class QuadraticPenalty(Strategy):
    """What the methods of this file share; each says what is important.

    Attributes:
        penalty: What pulls.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.penalty = QuadraticTerms()

    @property
    def retained(self) -> float | None:
        """Share of the older importances that is added to those of a task, around its anchor; None keeps every term."""
        return 1.0

    def importances(self, learner: SupervisedLearner) -> Tensors:
        """Importances to the task that ends, of the parameter's shape or ()."""
        raise NotImplementedError

    def end_task(self, learner: SupervisedLearner) -> None:
        """Adds a term, or replaces the only one."""
        self.penalty.add(self.importances(learner), copies(learner.network.named_parameters()), self.retained)

    def before_step(self, learner: SupervisedLearner) -> None:
        """Pulls."""
        self.penalty.pull(learner.network.named_parameters(), self.options.strength)

    def state_dict(self) -> dict[str, Any]:
        """The terms."""
        return self.penalty.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the terms."""
        self.penalty.load_state_dict(state)

    def memory(self) -> dict[str, int]:
        """Bytes of anchors and importances."""
        return self.penalty.memory()

    def mean_over_samples(
        self,
        learner: SupervisedLearner,
        count: int,
        derivative: Callable[[Batch], torch.Tensor],
        power: Literal[1, 2],
    ) -> Tensors:
        """Mean of |gradient|^power of an objective of single samples, over training samples of the present task.

        Args:
            learner: Its network is differentiated.
            count: Samples, drawn without replacement; all of them if the task has fewer.
            derivative: (B, n_outputs) derivative of each sample's objective by the network's outputs.
            power: 1 or 2.
        """
        samples = self.sequence.tasks[learner.task].train
        rng = stream(self.seed, "importance_samples", str(learner.task))
        places = rng.permutation(len(samples))[:count]
        totals = {name: torch.zeros_like(own) for name, own in learner.network.named_parameters()}
        for start in range(0, places.size, SAMPLES_AT_A_TIME):
            batch = Batch.of(learner.task, samples, places[start : start + SAMPLES_AT_A_TIME])
            found = mean_gradient_power(learner.network, batch.x, derivative(batch), power)
            for name, total in totals.items():
                total.add_(found[name], alpha=len(batch) / places.size)
        return totals


@dataclass(frozen=True)
class L2Options:
    """How hard l2 pulls.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 100.0
    """Factor of the penalty, >= 0. Default: Hsu et al., class-incremental; they use 0.01 task-incremental."""

    def __post_init__(self) -> None:
        _check("l2", self)


class L2(QuadraticPenalty):
    """Every parameter is equally important; only the latest anchor counts, and importances do not add up.

    Source:
        Hsu et al. 2018 and its code. (In Continual World the importance is the number of tasks learned.)
    """

    options: L2Options

    @property
    def retained(self) -> float | None:
        """Nothing is."""
        return 0.0

    def importances(self, learner: SupervisedLearner) -> Tensors:
        """1 each."""
        return {name: torch.ones(()) for name, _ in learner.network.named_parameters()}


Labels = Literal["true", "predicted", "sampled"]

LABELS: dict[str, Callable[[torch.Tensor, torch.Tensor, np.random.Generator], torch.Tensor]] = {
    "true": lambda logits, y, rng: y,
    "predicted": lambda logits, y, rng: logits.argmax(dim=1),
    "sampled": lambda logits, y, rng: (logits + torch.from_numpy(rng.gumbel(size=logits.shape))).argmax(dim=1),
}
"""(logits (B, n_outputs), labels (B,), generator) -> labels (B,) whose log-probability is differentiated."""


@dataclass(frozen=True)
class EWCOptions:
    """How hard ewc pulls, and how the Fisher information is estimated.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 600.0
    """Factor of the penalty, >= 0; lambda/2 of the paper. Default: Hsu et al., class-incremental; they use 100
    task-incremental."""
    fisher_samples: Count = 1000
    """Training samples of a task that the Fisher information is estimated from; all of them if it has fewer."""
    fisher_labels: Labels = "true"
    """Class whose log-probability is differentiated: the sample's own (`true`, the empirical Fisher information), the
    most probable one (`predicted`, as in Hsu et al.'s code), or one drawn from the network (`sampled`, the Fisher
    information itself)."""

    def __post_init__(self) -> None:
        _check("ewc", self)


@dataclass(frozen=True)
class OnlineEWCOptions:
    """How hard online_ewc pulls, and how the Fisher information is estimated and forgotten.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 100.0
    """Factor of the penalty, >= 0. Default: Hsu et al., class-incremental; they use 400 task-incremental."""
    gamma: Share = 1.0
    """Share of the earlier tasks' Fisher information that stays when a task ends, in [0, 1]. Default: Hsu et al."""
    fisher_samples: Count = 1000
    """As in ewc."""
    fisher_labels: Labels = "true"
    """As in ewc."""

    def __post_init__(self) -> None:
        _check("online-ewc", self)


class EWC(QuadraticPenalty):
    """Elastic weight consolidation: importance is the diagonal of the Fisher information, one term for each task.

    Gradients are those of single samples, so their squares are not damped by averaging over a batch.

    Source:
        Kirkpatrick et al. 2017, eq. 3.
    """

    options: EWCOptions | OnlineEWCOptions

    @property
    def retained(self) -> float | None:
        """Every term stays."""
        return None

    def importances(self, learner: SupervisedLearner) -> Tensors:
        """Diagonal of the Fisher information."""
        own = self.options
        rng = stream(self.seed, "fisher_labels", str(learner.task))

        @torch.no_grad()
        def by_logits(batch: Batch) -> torch.Tensor:
            logits = learner.logits(learner.network, batch)
            labels = LABELS[own.fisher_labels](logits, batch.y, rng)
            return logits.softmax(dim=1) - functional.one_hot(labels, logits.shape[1])

        return self.mean_over_samples(learner, own.fisher_samples, by_logits, 2)


class OnlineEWC(EWC):
    """EWC with a single term around the latest anchor: Fisher information adds up, and fades by `gamma` a task.

    Source:
        Schwarz et al. 2018, "Progress & Compress", section 3.2.
    """

    options: OnlineEWCOptions

    @property
    def retained(self) -> float | None:
        """As the option says."""
        return self.options.gamma


@dataclass(frozen=True)
class SIOptions:
    """How hard si pulls.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 600.0
    """Factor of the penalty, >= 0; c of the paper. Default: Hsu et al., class-incremental; they use 300
    task-incremental."""
    damping: Positive = 0.1
    """Added to the squared distance that a parameter moved, > 0; xi of the paper. Default: the paper, Hsu et al."""

    def __post_init__(self) -> None:
        _check("si", self)


class SI(QuadraticPenalty):
    """Synaptic intelligence: a parameter is as important as its moves lowered the loss, per squared distance moved.

    The loss is that of the task alone: gradients are taken before the penalty is added.

    Source:
        Zenke et al. 2017, eqs. 3 to 5; importances that add up to less than 0 count as 0 in its code.
    """

    options: SIOptions

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._start: Tensors = {}
        self._lowered: Tensors = {}

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Starts a path."""
        self._start = copies(learner.network.named_parameters())
        self._lowered = {name: torch.zeros_like(value) for name, value in self._start.items()}

    def before_step(self, learner: SupervisedLearner) -> None:
        """Remembers gradients and values, then pulls."""
        self._before = copies(learner.network.named_parameters())
        self._gradients = {name: _gradient(parameter).clone() for name, parameter in learner.network.named_parameters()}
        super().before_step(learner)

    @torch.no_grad()
    def after_step(self, learner: SupervisedLearner) -> None:
        """Adds what the step lowered the loss, to first order."""
        for name, parameter in learner.network.named_parameters():
            self._lowered[name].addcmul_(self._gradients[name], parameter - self._before[name], value=-1.0)

    @torch.no_grad()
    def importances(self, learner: SupervisedLearner) -> Tensors:
        """Of the path since the task began."""
        return {
            name: self._lowered[name] / ((parameter - self._start[name]).square() + self.options.damping)
            for name, parameter in learner.network.named_parameters()
        }

    def state_dict(self) -> dict[str, Any]:
        """The terms and the path."""
        return {**super().state_dict(), "start": self._start, "lowered": self._lowered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them."""
        super().load_state_dict(state)
        self._start, self._lowered = dict(state["start"]), dict(state["lowered"])


@dataclass(frozen=True)
class MASOptions:
    """How hard mas pulls, and how importances are estimated.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 1.0
    """Factor of the penalty, >= 0. Default: Hsu et al., in both scenarios; their importances are smaller, because
    gradients are averaged over a batch before their size is taken, and squares over outputs."""
    samples: Count = 1000
    """Training samples of a task that importances are estimated from; all of them if it has fewer."""

    def __post_init__(self) -> None:
        _check("mas", self)


class MAS(QuadraticPenalty):
    """Memory aware synapses: a parameter is important if it changes the squared norm of the outputs; tasks add up.

    The outputs are those among which a class is chosen once the task is learned; labels are not used.

    Source:
        Aljundi et al. 2018, eqs. 3 and 5.
    """

    options: MASOptions

    def importances(self, learner: SupervisedLearner) -> Tensors:
        """Mean absolute gradient of the squared norm of the outputs."""
        outputs = torch.tensor(self.sequence.competing(learner.task, learner.task))
        competes = torch.zeros(self.sequence.n_outputs).index_fill_(0, outputs, 1.0)

        @torch.no_grad()
        def by_outputs(batch: Batch) -> torch.Tensor:
            derivative: torch.Tensor = 2.0 * learner.network(batch.x) * competes
            return derivative

        return self.mean_over_samples(learner, self.options.samples, by_outputs, 1)


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _check(group: str, options: Any) -> None:
    """What options of this file have in common."""
    check_ranges(options, f"{group}.")
    labels = getattr(options, "fisher_labels", "true")
    if labels not in LABELS:
        raise ConfigError(unknown_name(f"{group}.fisher-labels", labels, LABELS))
