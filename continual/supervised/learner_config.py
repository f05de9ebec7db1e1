"""The network of a continual classifier, and how it is trained on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers.fused_adam import FusedAdam
from sparserl.ranges import Count, NotNegative, Positive, Repeats, ShareBelowOne, check_ranges

WITH_MOMENTUM = ("sgd", "rmsprop")
"""Optimizers that read `learner.momentum`."""


@dataclass(frozen=True)
class LearnerConfig:
    """The network of a continual learner and how it is trained on a task.

    Raises:
        ConfigError: If a value is out of range.
    """

    hidden: tuple[Count, ...] = (400, 400)
    """Neurons of each hidden layer."""
    optimizer: Literal["sgd", "adam", "rmsprop", "adagrad"] = "adam"
    """Optimizer."""
    learning_rate: Positive = 1e-3
    """Its learning rate."""
    momentum: ShareBelowOne = 0.0
    """Momentum of sgd and rmsprop."""
    weight_decay: NotNegative = 0.0
    """L2 weight decay."""
    reset_optimizer: bool = True
    """Whether each task starts with a new optimizer."""
    unseen_outputs: Literal["open", "closed"] = "open"
    """Class-incremental: whether outputs of classes that no task has had yet compete in the training loss."""
    epochs: Repeats = 4
    """Passes through the samples of a task."""
    batch_size: Count = 128
    """Samples a gradient step."""

    def __post_init__(self) -> None:
        check_ranges(self, "learner.")
        if not self.hidden:
            raise ConfigError(f"learner.hidden needs at least one layer of at least one neuron, got {self.hidden}")
        if self.momentum > 0.0 and self.optimizer not in WITH_MOMENTUM:
            raise ConfigError(
                f"learner.momentum {self.momentum} has no effect on {self.optimizer}; it is for sgd and rmsprop"
            )


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], LearnerConfig], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, own: torch.optim.SGD(
        parameters, own.learning_rate, momentum=own.momentum, weight_decay=own.weight_decay
    ),
    "adam": lambda parameters, own: FusedAdam(parameters, own.learning_rate, weight_decay=own.weight_decay),
    "rmsprop": lambda parameters, own: torch.optim.RMSprop(
        parameters, own.learning_rate, momentum=own.momentum, weight_decay=own.weight_decay
    ),
    "adagrad": lambda parameters, own: torch.optim.Adagrad(
        parameters, own.learning_rate, weight_decay=own.weight_decay
    ),
}
