"""The network of a continual classifier, and how it is trained on a task."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers.activations import HiddenUnits
from sparserl.layers.averaged_sgd import AveragedSGD
from sparserl.layers.convolution import Convolution
from sparserl.layers.fused_adam import FusedAdam
from sparserl.ranges import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    PositiveShare,
    Repeats,
    Share,
    ShareBelowOne,
    check_ranges,
)

WITH_MOMENTUM = ("sgd", "rmsprop")
"""Optimizers that read `learner.momentum`."""
OF_ACTIVATION = {"slope": "all_relu", **dict.fromkeys(("winners", "boost", "boost_decay"), "k_winners")}
"""Options that one activation reads."""


@dataclass(frozen=True)
class ClassifierConfig:
    """The network of a classifier and how it is trained on a task.

    Raises:
        ConfigError: If a value is out of range or has no effect.
    """

    hidden: tuple[Count, ...] = (400, 400)
    """Neurons of each hidden layer."""
    convolutions: tuple[tuple[Count, ...], ...] = ()
    """For pictures, convolutions before the hidden layers: of each [channels, side of a patch, stride], or without the
    stride if that is 1. There is no padding."""
    pooling: tuple[Count, ...] = ()
    """Side of the squares of which the largest activation stays after each convolution, or after all of them; 1 by
    default, all stay."""
    activation: Literal["relu", "tanh", "sigmoid", "all_relu", "k_winners"] = "relu"
    """What follows a hidden layer. all_relu multiplies what is negative by -slope in the first, third, ... one, and by
    slope in the others; k_winners passes the largest activations of a sample."""
    slope: NotNegative = 0.6
    """Of all_relu, in [0, inf)."""
    winners: PositiveShare = 0.1
    """Share of a layer's neurons that k_winners passes, in (0, 1]; half as many more in use."""
    boost: NotNegative = 1.0
    """How much k_winners prefers neurons that win seldom, in [0, inf)."""
    boost_decay: Share = 0.9
    """Multiplies boost after each epoch, in [0, 1]."""
    dropout: ShareBelowOne = 0.0
    """Share of hidden activations that are 0 in training, in [0, 1)."""
    rescaled_dropout: bool = True
    """Whether the others grow by 1 / (1 - dropout) in training; otherwise all shrink by 1 - dropout in use."""
    optimizer: Literal["sgd", "adam", "rmsprop", "adagrad"] = "adam"
    """Optimizer."""
    learning_rate: Positive = 1e-3
    """Its learning rate."""
    learning_rate_factor: PositiveShare = 1.0
    """Multiplies the learning rate at each of the times that follow, in (0, 1]; 1 leaves it alone."""
    learning_rate_every: Count | None = None
    """It does so after every so many epochs or steps of a task (see `learning_rate_unit`)."""
    learning_rate_milestones: tuple[Count, ...] = ()
    """Or after each of these numbers of them, in increasing order."""
    learning_rate_unit: Literal["epochs", "steps"] = "epochs"
    """What they count: epochs, or gradient steps."""
    momentum: ShareBelowOne = 0.0
    """Momentum of sgd and rmsprop."""
    nesterov: bool = False
    """Whether the momentum of sgd is Nesterov's."""
    weight_decay: NotNegative = 0.0
    """L2 weight decay, in [0, inf): this times the weight is added to its gradient, so the learning rate scales it."""
    constant_decay: ShareBelowOne = 0.0
    """Share of itself that each weight and bias loses at a step, whatever the learning rate, in [0, 1)."""
    epochs: Repeats = 4
    """Passes through the samples of a task."""
    batch_size: Count = 128
    """Samples a gradient step."""

    def __post_init__(self) -> None:
        check_ranges(self, "learner.")
        if not self.hidden:
            raise ConfigError(f"learner.hidden needs at least one layer of at least one neuron, got {self.hidden}")
        for field in fields(self):
            needed = OF_ACTIVATION.get(field.name, self.activation)
            value = getattr(self, field.name)
            if needed != self.activation and value != field.default:
                given = f"learner.{field.name} {value:g} has no effect on {self.activation}"
                raise ConfigError(f"{given}: set learner.activation {needed}")
        self._check_convolutions()
        if self.momentum > 0.0 and self.optimizer not in WITH_MOMENTUM:
            raise ConfigError(
                f"learner.momentum {self.momentum} has no effect on {self.optimizer}; it is for sgd and rmsprop"
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            given = f"{self.optimizer} and momentum {self.momentum:g}"
            raise ConfigError(f"learner.nesterov is a momentum of sgd: set learner.momentum, e.g. 0.9, got {given}")
        if not (self.rescaled_dropout or self.dropout):
            raise ConfigError("learner.rescaled_dropout False is about dropout: set learner.dropout, e.g. 0.2")
        if self.weight_decay and self.constant_decay:
            raise ConfigError(
                f"learner.weight_decay {self.weight_decay:g} and learner.constant_decay {self.constant_decay:g} both "
                "shrink weights; set one to 0"
            )
        self._check_schedule()

    @property
    def hidden_units(self) -> HiddenUnits:
        """What stands after each hidden layer."""
        return HiddenUnits(**{one.name: getattr(self, one.name) for one in fields(HiddenUnits)})

    @property
    def convolution_layers(self) -> list[Convolution]:
        """The convolutions, with what follows them."""
        pooling = self.pooling if len(self.pooling) > 1 else (self.pooling or (1,)) * len(self.convolutions)
        return [
            Convolution(channels, taps, stride[0] if stride else 1, side)
            for (channels, taps, *stride), side in zip(self.convolutions, pooling, strict=True)
        ]

    def _check_convolutions(self) -> None:
        for sizes in self.convolutions:
            if len(sizes) not in (2, 3):
                raise ConfigError(
                    "learner.convolutions has [channels, side of a patch, stride] of each, e.g. [32, 3, 1], got "
                    f"{list(sizes)}"
                )
        if self.pooling and not self.convolutions:
            raise ConfigError(
                f"learner.pooling {list(self.pooling)} follows convolutions: set learner.convolutions, e.g. [[32, 3]]"
            )
        if len(self.pooling) not in (0, 1, len(self.convolutions)):
            raise ConfigError(
                f"learner.pooling has one number, or one for each of {len(self.convolutions)} convolutions, got "
                f"{list(self.pooling)}"
            )
        if self.convolutions and self.activation == "k_winners":
            raise ConfigError(
                "learner.activation k_winners ranks the neurons of a layer, which learner.convolutions have at many "
                "places: use relu"
            )

    def _check_schedule(self) -> None:
        every, milestones = self.learning_rate_every, self.learning_rate_milestones
        is_timed = every is not None or bool(milestones)
        if every is not None and milestones:
            raise ConfigError(
                f"learner.learning_rate_every {every} and learner.learning_rate_milestones say the same; leave one out"
            )
        if list(milestones) != sorted(set(milestones)):
            raise ConfigError(f"learner.learning_rate_milestones must increase, got {list(milestones)}")
        if is_timed == (self.learning_rate_factor == 1.0):
            need = "learner.learning_rate_factor below 1, e.g. 0.1" if is_timed else "learner.learning_rate_factor 1"
            if not is_timed and self.learning_rate_unit == "epochs" and self.epochs > 1:
                need = f"learner.learning_rate_every, e.g. {self.epochs // 2}"
            raise ConfigError(f"a schedule of the learning rate has a factor and times: set {need}")

    def learning_rate_at(self, epoch: int, step: int) -> float:
        """The learning rate after `epoch` epochs and `step` gradient steps of a task.

        Example:
            >>> own = ClassifierConfig(learning_rate=0.1, learning_rate_factor=0.1, learning_rate_milestones=(2, 3))
            >>> [round(own.learning_rate_at(epoch, 0), 4) for epoch in range(5)]
            [0.1, 0.1, 0.01, 0.001, 0.001]
        """
        if self.learning_rate_factor == 1.0:
            return self.learning_rate
        now = step if self.learning_rate_unit == "steps" else epoch
        every = self.learning_rate_every
        times = now // every if every is not None else bisect_right(self.learning_rate_milestones, now)
        return self.learning_rate * self.learning_rate_factor**times

    def check_schedule_fits(self, epochs: int, steps: int) -> None:
        """Raises ConfigError if the learning rate would not have changed before the end of a task of this length."""
        if self.learning_rate_factor == 1.0:
            return
        length = steps if self.learning_rate_unit == "steps" else epochs
        option = "every" if self.learning_rate_every is not None else "milestones"
        last = self.learning_rate_every or self.learning_rate_milestones[-1]
        if last >= length:
            lower = f"lower it to at most {length - 1}, or " if length > 1 else ""
            none = "None" if option == "every" else "[]"
            raise ConfigError(
                f"learner.learning_rate_{option} {last} is not before the end of a task, {length} "
                f"{self.learning_rate_unit}; {lower}have no schedule, by --learner.learning-rate-factor 1 "
                f"--learner.learning-rate-{option} {none}"
            )


@dataclass(frozen=True)
class LearnerConfig(ClassifierConfig):
    """The same of a classifier that learns one task after another; raises as that."""

    reset_optimizer: bool = True
    """Whether each task starts with a new optimizer."""
    unseen_outputs: Literal["open", "closed"] = "open"
    """Class-incremental: whether outputs of classes that no task has had yet compete in the training loss."""


@dataclass(frozen=True)
class FitLearnerConfig(ClassifierConfig):
    """The same of a network that learns one table; raises as that."""

    reset_optimizer: ClassVar[bool] = True
    unseen_outputs: ClassVar[str] = "open"
    optimizer: Literal["sgd", "adam", "rmsprop", "adagrad", "asgd"] = "adam"  # type: ignore[assignment]  # one more
    """Optimizer; asgd: sgd whose network answers with the average of each weight over its steps since it grew, as
    Selfish-RNN (Liu et al. 2021) has it."""
    average_after: CountOrZero = 0
    """Epochs of asgd before its averages begin."""
    class_weights: Literal["none", "balanced"] = "none"
    """What a class weighs in the loss: as many samples as it has, or every class the same."""
    noise: NotNegative = 0.0
    """Standard deviation of normal noise that each step adds to features, as they are scaled; what is to be
    reconstructed has none."""
    gibbs_steps: Repeats = 1
    """Of an RBM: how often visible and hidden units are drawn anew before a gradient, k of CD-k."""
    ensemble: Count = 1
    """Networks whose probabilities are averaged (EDST): the best ones by validation of as many phases of training,
    between which an event drops 80 % of the connections; 1: no ensemble."""
    ensemble_explore: Count | None = None
    """Epochs before the first phase, at the full learning rate; phases begin with a tenth of it, and have a hundredth
    from their middle on. A third of all if None."""
    importance_share: ShareBelowOne = 0.0
    """Importance pruning: the neurons of a hidden layer whose incoming strength (sum of |weight|) is at or below this
    quantile, in [0, 1), lose all connections into them; 0: none do."""
    importance_every: Count = 10
    """Epochs from one importance pruning to the next."""
    importance_after: CountOrZero = 200
    """Epochs before the first one."""
    regularizer: Literal["none", "variational_dropout"] = "none"
    """variational_dropout: weights have variances that are learned, and connections whose noise drowns them go for
    good (log alpha >= 3); with topology.method dense or static, which say what there is at first."""
    kl_after: CountOrZero = 5
    """Epochs of variational dropout before the divergence of the weights' distributions counts and connections go."""
    kl_full: Count = 20
    """Epochs after which it counts in full; in between along a line."""
    patience: Count | None = None
    """Epochs without a better validation accuracy after which training ends; it takes all epochs if None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble == 1 and self.ensemble_explore is not None:
            raise ConfigError(
                f"learner.ensemble_explore {self.ensemble_explore} is about an ensemble: set learner.ensemble, e.g. 3"
            )
        if self.ensemble > 1 and (self.patience is not None or self.learning_rate_factor < 1.0):
            option = "patience" if self.patience is not None else "learning_rate_factor"
            raise ConfigError(
                f"learner.{option} {getattr(self, option):g} does not go with learner.ensemble {self.ensemble}, whose "
                "phases say when the learning rate falls and training ends; leave one out"
            )
        self._check_variational()
        if self.average_after and self.optimizer != "asgd":
            raise ConfigError(
                f"learner.average_after {self.average_after} has no effect on {self.optimizer}: set learner.optimizer "
                "asgd"
            )
        if self.average_after >= self.epochs:
            raise ConfigError(
                f"averages would begin after the last of {self.epochs} epochs: lower learner.average_after "
                f"{self.average_after} to at most {self.epochs - 1}"
            )
        first = (self.importance_after // self.importance_every + 1) * self.importance_every
        if not self.importance_share:
            for name in ("importance_every", "importance_after"):
                if getattr(self, name) != getattr(FitLearnerConfig, name):
                    given = f"learner.{name} {getattr(self, name)}"
                    raise ConfigError(f"{given} is about importance pruning: set learner.importance_share")
        elif first > self.epochs:
            raise ConfigError(
                f"the first importance pruning would be in epoch {first} of {self.epochs}: lower "
                f"learner.importance_after {self.importance_after} or learner.importance_every {self.importance_every}"
            )

    def _check_variational(self) -> None:
        if self.regularizer != "none" and self.convolutions:
            raise ConfigError(
                f"learner.regularizer {self.regularizer} is for networks without learner.convolutions: leave one out"
            )
        if self.regularizer == "none":
            for name in ("kl_after", "kl_full"):
                if getattr(self, name) != getattr(FitLearnerConfig, name):
                    given = f"learner.{name} {getattr(self, name)}"
                    raise ConfigError(f"{given} is about learner.regularizer: set it to variational_dropout")
            return
        if self.ensemble > 1:
            raise ConfigError(
                f"learner.ensemble {self.ensemble} throws connections that move, which learner.regularizer "
                f"{self.regularizer} does not: leave one out"
            )
        if self.kl_full <= self.kl_after:
            raise ConfigError(f"learner.kl_full {self.kl_full} must be above learner.kl_after {self.kl_after}")
        if self.kl_after + 1 >= self.epochs:
            raise ConfigError(
                f"the divergence would count after epoch {self.kl_after + 1} of {self.epochs}: raise learner.epochs, "
                f"or lower learner.kl_after {self.kl_after}"
            )


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], ClassifierConfig], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, own: torch.optim.SGD(
        parameters,
        own.learning_rate,
        momentum=own.momentum,
        weight_decay=own.weight_decay,
        nesterov=own.nesterov,
        fused=True,
    ),
    "adam": lambda parameters, own: FusedAdam(parameters, own.learning_rate, weight_decay=own.weight_decay),
    "rmsprop": lambda parameters, own: torch.optim.RMSprop(
        parameters, own.learning_rate, momentum=own.momentum, weight_decay=own.weight_decay
    ),
    "adagrad": lambda parameters, own: torch.optim.Adagrad(
        parameters, own.learning_rate, weight_decay=own.weight_decay
    ),
    "asgd": lambda parameters, own: AveragedSGD(parameters, own.learning_rate, own.weight_decay),
}
