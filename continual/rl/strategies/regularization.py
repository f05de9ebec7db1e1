"""Methods that pull shared layers back to the values they had after earlier tasks: l2, ewc, mas.

Decides how important a parameter of an actor or critic is to a task. The penalty, `strength * sum importance *
(parameter - anchor)^2`, is that of `sparserl.continual.shared.quadratic`. Importances add up over tasks, around the
latest anchor. Output layers of tasks are not pulled. Importances and anchors follow connections when a topology
changes, and end with those that are dropped: what these held is forgotten.

Source:
    Continual World (Wolczyk et al. 2021) and its code, which estimates importances from the replay buffer when a task
    is over, and regularises the actor alone unless told otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.networks import TaskNetwork
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.continual.shared.importance import mean_gradient_power
from sparserl.continual.shared.quadratic import QuadraticTerms, Tensors, copies
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.ranges import Count, NotNegative, check_ranges
from sparserl.seeding import stream
from sparserl.topology.structure import FloatArray, TopologyChange

LOG_STD_RANGE = (-20.0, 2.0)
"""To which SAC clips log standard deviations."""
VARIANCE_FLOOR = 1e-6
FISHER_FLOOR = 1e-5
"""Constants of Continual World's code."""


@dataclass(frozen=True)
class PullOptions:
    """How hard a method pulls, and what.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative = 1e4
    """Factor of the penalty, >= 0."""
    critics: bool = False
    """Whether critics are pulled as well as the actor."""

    method: ClassVar[str]

    def __post_init__(self) -> None:
        check_ranges(self, f"{self.method}.")


@dataclass(frozen=True)
class L2Options(PullOptions):
    """As `PullOptions`."""

    strength: NotNegative = 1e5
    """Factor of the penalty, >= 0."""
    method: ClassVar[str] = "l2"


@dataclass(frozen=True)
class ImportanceOptions(PullOptions):
    """Also from how much importances are estimated.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples: Count = 2560
    """Transitions of the replay buffer from which importances are estimated when a task is over."""


@dataclass(frozen=True)
class EWCOptions(ImportanceOptions):
    """As `ImportanceOptions`."""

    method: ClassVar[str] = "ewc"


@dataclass(frozen=True)
class MASOptions(ImportanceOptions):
    """As `ImportanceOptions`."""

    method: ClassVar[str] = "mas"


class L2(RLStrategy):
    """Every parameter is equally important to each task, so its importance is the number of tasks learned."""

    options: PullOptions

    def attach(self, learner: RLLearner) -> None:
        """Holds terms for each network that is pulled, which follow its connections.

        Raises:
            ConfigError: If critics are pulled back that start anew.
        """
        super().attach(learner)
        if self.options.critics and learner.border.critic == "reset":
            name = self.options.method
            raise ConfigError(f"{name}.critics pulls critics back to what they were: use --border.critic kept")
        networks = learner.networks if self.options.critics else learner.networks[:1]
        self._pulled = [(network, QuadraticTerms()) for network in networks]
        for network, terms in self._pulled:
            for place, name in enumerate(network.shared):
                if name in learner.agent.evolver.layers:
                    learner.agent.evolver.follow(name, functools.partial(_follow, terms, f"{place}.values"))

    def end_task(self, learner: RLLearner) -> None:
        """Adds what the task found important, around its values."""
        for network, terms in self._pulled:
            parameters = network.shared_parameters()
            found = self.importances(learner, network)
            terms.add({name: found[name] for name in parameters}, copies(parameters.items()), 1.0)

    def importances(self, learner: RLLearner, network: TaskNetwork) -> Tensors:
        """Importances to the task that ends, of the parameter's shape or ()."""
        del learner
        return {name: torch.ones(()) for name in network.shared_parameters()}

    def before_step(self, learner: RLLearner, group: str) -> None:
        """Pulls."""
        del learner
        for network, terms in self._pulled:
            if network.group == group:
                terms.pull(network.shared_parameters().items(), self.options.strength)

    def state_dict(self) -> dict[str, Any]:
        """The terms of each network."""
        return {network.name: terms.state_dict() for network, terms in self._pulled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the terms."""
        for network, terms in self._pulled:
            terms.load_state_dict(state[network.name])

    def memory(self) -> dict[str, int]:
        """Bytes of anchors and importances."""
        kept = [terms.memory() for _, terms in self._pulled]
        return {what: sum(one[what] for one in kept) for what in kept[0]}


class ImportanceStrategy(L2):
    """Importances are estimated from transitions of the task that ends."""

    options: ImportanceOptions

    def transitions(self, learner: RLLearner, network: TaskNetwork) -> torch.Tensor:
        """(samples, n_in) what a network reads of transitions of the task that ends, drawn with replacement."""
        rng = stream(self.seed, "importance_samples", str(learner.task))
        batch = learner.agent.transitions(learner.latest(rng.integers(learner.task_steps, size=self.options.samples)))
        heads = learner.agent.actor.heads
        features = batch.observations if heads is None else heads.split_array(batch.observations)[0]
        read = features if network.group == "actor" else np.concatenate([features, batch.actions], axis=1)
        return torch.from_numpy(np.ascontiguousarray(read))


class EWC(ImportanceStrategy):
    """Elastic weight consolidation: importance is the diagonal of the Fisher information of the policy.

    Of the Gaussian before it is squashed, with mean and standard deviation of each actuator; of a deterministic policy,
    as if it had unit variance. A critic counts as a Gaussian of unit variance, too.

    Source:
        Kirkpatrick et al. 2017, eq. 3, as one sum around the latest anchor; Continual World's code for the Gaussian and
        for the floors.
    """

    def importances(self, learner: RLLearner, network: TaskNetwork) -> Tensors:
        """Diagonal of the Fisher information."""
        x, own = self.transitions(learner, network), network.of_task(learner.task)
        with torch.no_grad():
            outputs = own(x)
        gaussian = network.group == "actor" and learner.agent.actor.outputs_per_action == 2
        scales = _gaussian_scales(outputs) if gaussian else torch.ones_like(outputs)
        return {name: fisher.clamp(min=FISHER_FLOOR) for name, fisher in _summed_squares(own, x, scales).items()}


class MAS(ImportanceStrategy):
    """Memory aware synapses: importance is the mean absolute gradient of the squared norm of the outputs.

    Source:
        Aljundi et al. 2018, eq. 2; in Continual World of means and log standard deviations.
    """

    def importances(self, learner: RLLearner, network: TaskNetwork) -> Tensors:
        """Mean absolute gradients."""
        x, own = self.transitions(learner, network), network.of_task(learner.task)
        with torch.no_grad():
            outputs = own(x)
        return mean_gradient_power(own, x, 2.0 * outputs, 1)


def _follow(terms: QuadraticTerms, name: str, change: TopologyChange, grown_values: float | FloatArray) -> None:
    del grown_values
    terms.follow(name, change)


def _gaussian_scales(outputs: torch.Tensor) -> torch.Tensor:
    """(B, 2 A) square roots of what the Fisher information weighs the squared gradient of each output by.

    The information of a Gaussian is (d mean)^2 / variance + 2 (d std)^2 / variance, and d std = std d log std.
    """
    width = outputs.shape[1] // 2
    raw = outputs[:, width:]
    log_std = raw.clamp(*LOG_STD_RANGE)
    std = log_std.exp()
    root = (std.square() + VARIANCE_FLOOR).sqrt()
    of_log_std = 2.0**0.5 * std / root
    of_log_std[raw != log_std] = 0.0  # a clipped one does not move
    return torch.cat([1.0 / root, of_log_std], dim=1)


def _summed_squares(network: SparseMLP, x: torch.Tensor, scales: torch.Tensor) -> Tensors:
    """Mean over samples of the squared gradients of `scales * outputs`, summed over outputs."""
    total: Tensors = {}
    for output in range(scales.shape[1]):
        cotangents = torch.zeros_like(scales)
        cotangents[:, output] = scales[:, output]
        for name, squares in mean_gradient_power(network, x, cotangents, 2).items():
            total[name] = total[name] + squares if name in total else squares
    return total
