"""Methods that pull shared layers back to the values they had after earlier tasks: l2, ewc, online_ewc, si, mas.

Decides how important each parameter is to a task. The penalty, `strength * sum importance * (parameter - anchor)^2`
without the factor 1/2 of the EWC paper, is that of `sparserl.continual.shared.quadratic`: over all parameters that
tasks share, biases included. Of a sparse layer there is one number a connection; it follows the connection when a
topology changes, and ends with it: what a dropped connection held is forgotten.

Source:
    Hsu et al. 2018, "Re-evaluating Continual Learning Scenarios", and its released code, for classifiers: the form of
    the penalty and default strengths, which are its values for class-incremental split MNIST. Continual World (Wolczyk
    et al. 2021) and its code for agents: importances are estimated from the replay buffer when a task is over, add up
    around the latest anchor, and are those of the actor alone unless told otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from sparserl.continual.learner import Group, Kind, Learner, Objective
from sparserl.continual.shared.importance import mean_gradient_power
from sparserl.continual.shared.quadratic import QuadraticTerms, Tensors, copies
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import Strategy
from sparserl.errors import ConfigError, unknown_name
from sparserl.ranges import Count, NotNegative, Positive, Share
from sparserl.topology.rewire import remap
from sparserl.topology.structure import FloatArray, TopologyChange

Labels = Literal["true", "predicted", "sampled"]
"""Class whose log-probability is differentiated: the sample's own (`true`, the empirical Fisher information), the most
probable one (`predicted`, as in Hsu et al.'s code), or one drawn from the network (`sampled`, the Fisher information
itself)."""
LABELS: tuple[Labels, ...] = ("true", "predicted", "sampled")


@dataclass(frozen=True)
class PenaltyOptions(Options):
    """Strength of a penalty, and which networks it is for.

    Raises:
        ConfigError: If a value is out of range.
    """

    strength: NotNegative | None = None
    """Factor of the penalty, >= 0."""
    critics: bool = False
    """Agents: whether critics have the penalty as well as the actor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = getattr(self, "fisher_labels", None)
        if labels is not None and labels not in LABELS:
            raise ConfigError(unknown_name(f"{self._said()}fisher-labels", labels, LABELS))


@dataclass(frozen=True)
class L2Options(PenaltyOptions):
    """Strength of l2, and which networks it is for.

    Default strengths: classifiers 100 (Hsu et al., class-incremental; they use 0.01 task-incremental), agents 1e5.
    """

    group: ClassVar[str] = "l2"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"strength": 100.0},
        "agent": {"strength": 1e5, "critics": False},
    }


@dataclass(frozen=True)
class MASOptions(PenaltyOptions):
    """Strength of mas, which networks it is for, and how importances are estimated.

    Default strengths: classifiers 1 (Hsu et al., in both scenarios; their importances are smaller, because gradients
    are averaged over a batch before their size is taken, and squares over outputs), agents 1e4 (Continual World).
    """

    samples: Count | None = None
    """Samples of a task that importances are estimated from. Classifiers: 1000, or all if it has fewer; agents: 2560
    transitions of the replay buffer."""

    group: ClassVar[str] = "mas"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"strength": 1.0, "samples": 1000},
        "agent": {"strength": 1e4, "critics": False, "samples": 2560},
    }


@dataclass(frozen=True)
class EWCOptions(PenaltyOptions):
    """Strength of ewc, which networks it is for, and how the Fisher information is estimated.

    Default strengths: classifiers 600 (Hsu et al., class-incremental; they use 100 task-incremental; lambda/2 of the
    paper), agents 1e4 (Continual World).
    """

    fisher_samples: Count | None = None
    """Classifiers: training samples of a task that the Fisher information is estimated from, 1000 by default; all of
    them if it has fewer."""
    fisher_labels: Labels | None = None
    """Classifiers: class whose log-probability is differentiated: the sample's own (`true`, the default), the most
    probable one (`predicted`, as in Hsu et al.'s code), or one drawn from the network (`sampled`)."""
    samples: Count | None = None
    """Agents: transitions of the replay buffer that the Fisher information is estimated from, 2560 by default."""

    group: ClassVar[str] = "ewc"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"strength": 600.0, "fisher_samples": 1000, "fisher_labels": "true"},
        "agent": {"strength": 1e4, "critics": False, "samples": 2560},
    }


@dataclass(frozen=True)
class OnlineEWCOptions(EWCOptions):
    """As ewc, and how fast Fisher information is forgotten.

    Default strengths: classifiers 100 (Hsu et al., class-incremental; they use 400 task-incremental), agents 1e4, as
    ewc, which with `gamma` 1 is the same there.
    """

    gamma: Share = 1.0
    """Share of the earlier tasks' Fisher information that stays when a task ends, in [0, 1]. Default: Hsu et al."""

    group: ClassVar[str] = "online_ewc"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"strength": 100.0, "gamma": 1.0, "fisher_samples": 1000, "fisher_labels": "true"},
        "agent": {"strength": 1e4, "critics": False, "gamma": 1.0, "samples": 2560},
    }


@dataclass(frozen=True)
class SIOptions(PenaltyOptions):
    """Strength of si, and which networks it is for.

    Default strengths, c of the paper: classifiers 600 (Hsu et al., class-incremental; they use 300 task-incremental);
    agents the same, for which no source has a value.
    """

    damping: Positive = 0.1
    """Added to the squared distance that a parameter moved, > 0; xi of the paper. Default: the paper, Hsu et al."""

    group: ClassVar[str] = "si"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"strength": 600.0, "damping": 0.1},
        "agent": {"strength": 600.0, "critics": False, "damping": 0.1},
    }


class QuadraticPenalty(Strategy):
    """What the methods of this file share; each says what is important.

    Attributes:
        retained: Kind -> share of the older importances that is added to those of a task, around its anchor; None keeps
            every term.
    """

    options: PenaltyOptions
    retained: ClassVar[Mapping[Kind, float | None]] = {"classifier": 1.0, "agent": 1.0}

    def attach(self, learner: Learner) -> None:
        """Holds terms for each network that is pulled, which follow its connections.

        Raises:
            ConfigError: If critics are pulled back that start anew.
        """
        super().attach(learner)
        border = getattr(learner, "border", None)
        if self.options.critics and border is not None and border.critic == "reset":
            name = self.options.group.replace("_", "-")
            raise ConfigError(f"{name}.critics pulls critics back to what they were: use --border.critic kept")
        self._kind, self._pulled = learner.kind, dict[str, TaskNetwork]()
        self.terms: dict[str, QuadraticTerms] = {}
        for group in list(learner.groups.values())[: None if self.options.critics else 1]:
            for network in group.networks:
                self._pulled[network.name], self.terms[network.name] = network, QuadraticTerms()
                for index, name in enumerate(network.shared):
                    if group.evolver is not None and name in group.evolver.layers:
                        follow = functools.partial(self._follow, network.name, f"{index}.values")
                        group.evolver.follow(name, follow)

    def _follow(self, network: str, name: str, change: TopologyChange, grown_values: float | FloatArray) -> None:
        del grown_values
        self.terms[network].follow(name, change)

    def importances(self, learner: Learner, network: TaskNetwork) -> Tensors:
        """Importances to the task that ends, of the parameter's shape or ()."""
        raise NotImplementedError

    def older_share(self) -> float | None:
        """As `retained`, of this kind of learner."""
        return self.retained[self._kind]

    def end_task(self, learner: Learner) -> None:
        for name, network in self._pulled.items():
            parameters = network.shared_parameters()
            importances = self.importances(learner, network)
            anchors = copies(parameters.items())
            self.terms[name].add({key: importances[key] for key in parameters}, anchors, self.older_share())

    def before_step(self, learner: Learner, group: Group) -> None:
        assert self.options.strength is not None
        for name, network in self._of(group):
            self.terms[name].add_penalty_grad(network.shared_parameters().items(), self.options.strength)

    def _of(self, group: Group) -> Iterator[tuple[str, TaskNetwork]]:
        return ((name, network) for name, network in self._pulled.items() if network.group == group.name)

    def state_dict(self) -> dict[str, Any]:
        return {name: terms.state_dict() for name, terms in self.terms.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, terms in self.terms.items():
            terms.load_state_dict(of_network(state, name))

    def memory(self) -> dict[str, int]:
        kept = [terms.memory() for terms in self.terms.values()]
        return {what: sum(one[what] for one in kept) for what in kept[0]}

    def mean_over_probes(
        self, learner: Learner, network: TaskNetwork, objective: Objective, power: Literal[1, 2]
    ) -> Tensors:
        """Mean of |gradient|^power of an objective of single samples, over samples of the present task."""
        options, parameters = self.options, network.of_task(learner.task)
        count = getattr(options, "samples", None) or getattr(options, "fisher_samples", None)
        assert count is not None
        totals = {name: torch.zeros_like(one) for name, one in parameters.named_parameters()}
        for probe in learner.probe(network, objective, count, getattr(options, "fisher_labels", None)):
            for cotangents in probe.cotangents:
                powers = mean_gradient_power(parameters, probe.x, cotangents, power)
                for name, total in totals.items():
                    total.add_(powers[name], alpha=probe.share)
        return totals


def of_network(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What a state holds of a network; in checkpoints of 0.1 that of a classifier's only one is not under its name."""
    of_name: Mapping[str, Any] = state.get(name, state)
    return of_name


class L2(QuadraticPenalty):
    """Every parameter is equally important.

    Classifiers: only the latest anchor counts, and importances do not add up, as in Hsu et al. and its code. Agents:
    the importance is the number of tasks learned, as in Continual World.
    """

    retained: ClassVar[Mapping[Kind, float | None]] = {"classifier": 0.0, "agent": 1.0}

    def importances(self, learner: Learner, network: TaskNetwork) -> Tensors:
        return {name: torch.ones(()) for name in network.shared_parameters()}


class EWC(QuadraticPenalty):
    """Elastic weight consolidation: importance is the diagonal of the Fisher information.

    Gradients are those of single samples, so their squares are not damped by averaging over a batch. Classifiers keep
    one term for each task. For agents, terms add up around the latest anchor, and the information is that of the
    Gaussian before it is squashed, with mean and standard deviation of each actuator; of a deterministic policy and of
    a critic, as if it had unit variance.

    Source:
        Kirkpatrick et al. 2017, eq. 3; Continual World's code for the Gaussian and for its floors.
    """

    options: EWCOptions
    retained: ClassVar[Mapping[Kind, float | None]] = {"classifier": None, "agent": 1.0}

    def importances(self, learner: Learner, network: TaskNetwork) -> Tensors:
        fisher_of = self.mean_over_probes(learner, network, "likelihood", 2)
        return {name: fisher.clamp(min=learner.fisher_floor) for name, fisher in fisher_of.items()}


class OnlineEWC(EWC):
    """EWC with a single term around the latest anchor: Fisher information adds up, and fades by `gamma` a task.

    Source:
        Schwarz et al. 2018, "Progress & Compress", section 3.2.
    """

    options: OnlineEWCOptions

    def older_share(self) -> float | None:
        return self.options.gamma


class SI(QuadraticPenalty):
    """Synaptic intelligence: a parameter is as important as its moves lowered the loss, per squared distance moved.

    The loss is that of the task alone: gradients are taken before the penalty is added. A connection that grows starts
    its path there.

    Source:
        Zenke et al. 2017, eqs. 3 to 5; importances that add up to less than 0 count as 0 in its code.
    """

    of_one_task = ("start", "lowered")
    options: SIOptions

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self._start: dict[str, Tensors] = {name: {} for name in self._pulled}
        self._lowered: dict[str, Tensors] = {name: {} for name in self._pulled}
        self._before: dict[str, tuple[Tensors, Tensors]] = {}

    def _follow(self, network: str, name: str, change: TopologyChange, grown_values: float | FloatArray) -> None:
        super()._follow(network, name, change, grown_values)
        for path, grown in ((self._start, grown_values), (self._lowered, 0.0)):
            if name in path[network]:
                path[network][name] = torch.from_numpy(remap(path[network][name].numpy(), change, grown))

    def begin_task(self, learner: Learner) -> None:
        for key, network in self._pulled.items():
            self._start[key] = copies(network.shared_parameters().items())
            self._lowered[key] = {name: torch.zeros_like(value) for name, value in self._start[key].items()}

    def before_step(self, learner: Learner, group: Group) -> None:
        for key, network in self._of(group):
            parameters = network.shared_parameters()
            gradients = {name: parameter.grad.clone() for name, parameter in parameters.items()}  # type: ignore[union-attr]
            self._before[key] = copies(parameters.items()), gradients
        super().before_step(learner, group)

    @torch.no_grad()
    def after_step(self, learner: Learner, group: Group) -> None:
        """Adds what the step lowered the loss, to first order."""
        for key, network in self._of(group):
            before, gradients = self._before[key]
            for name, parameter in network.shared_parameters().items():
                self._lowered[key][name].addcmul_(gradients[name], parameter - before[name], value=-1.0)

    @torch.no_grad()
    def importances(self, learner: Learner, network: TaskNetwork) -> Tensors:
        start, lowered = self._start[network.name], self._lowered[network.name]
        return {
            name: lowered[name] / ((parameter - start[name]).square() + self.options.damping)
            for name, parameter in network.shared_parameters().items()
        }

    def state_dict(self) -> dict[str, Any]:
        paths = {key: {"start": self._start[key], "lowered": self._lowered[key]} for key in self._pulled}
        return {key: {**terms, **paths[key]} for key, terms in super().state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for key in self._pulled:
            stored = of_network(state, key)
            self._start[key], self._lowered[key] = dict(stored["start"]), dict(stored["lowered"])


class MAS(QuadraticPenalty):
    """Memory aware synapses: importance is the mean absolute gradient of the squared norm of the outputs; tasks add up.

    The outputs of a classifier are those among which a class is chosen once the task is learned; labels are not used.
    Those of an actor are, as in Continual World, means and log standard deviations.

    Source:
        Aljundi et al. 2018, eqs. 2, 3 and 5.
    """

    options: MASOptions

    def importances(self, learner: Learner, network: TaskNetwork) -> Tensors:
        return self.mean_over_probes(learner, network, "outputs", 1)
