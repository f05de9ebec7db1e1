"""Several classifiers of one run: it explores, then comes to rest several times, and is thrown far in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from sparserl.continual.supervised.objectives import Score
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.topology.criteria import DROP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule

LARGE_FRACTION = 0.8
"""Of the connections, what the event between two phases drops."""
PHASE_FACTORS = (0.1, 0.01)
"""Of the learning rate, in the first and in the second half of a phase."""


@dataclass(frozen=True)
class Best:
    """The network that was best on validation samples, of those with the fewest connections.

    Attributes:
        epoch: After which it was, from 1; the first of those that were as good.
        connections: That it has.
        step: Gradient steps until then.
        score: On validation samples.
        network: Its `state_dict`.
    """

    epoch: int
    step: int
    connections: int
    score: Score
    network: Mapping[str, torch.Tensor]

    def is_better(self, other: Best | None) -> bool:
        """Whether it has fewer connections than another one (pruning has gone on since), or as many and is better."""
        if other is None or self.connections != other.connections:
            return other is None or self.connections < other.connections
        return self.score.merit > other.score.merit

    def of(self, network: SparseMLP) -> Best:
        """The same with a network as it is now."""
        return replace(self, network={name: tensor.clone() for name, tensor in network.state_dict().items()})

    def tree(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {**vars(self), "score": asdict(self.score)}

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> Best:
        """The inverse of `tree`."""
        return cls(**{**tree, "score": Score(**tree["score"])})


@dataclass(frozen=True)
class Phases:
    """When a run explores, and when it makes its members.

    Attributes:
        epochs: Of the run.
        explore: Of them, before the first phase.
        members: Phases, one for each member, as long as each other up to an epoch.

    Source:
        Liu et al. 2022 (FreeTickets, EDST), code: 450 epochs, 150 of exploration, three members.

    Example:
        >>> phases = Phases(450, 150, 3)
        >>> phases.ends, [phases.factor(epoch) for epoch in (149, 150, 199, 200, 249, 250)]
        ([150, 250, 350, 450], [1.0, 0.1, 0.1, 0.01, 0.01, 0.1])
    """

    epochs: int
    explore: int
    members: int

    @property
    def ends(self) -> list[int]:
        """Epochs after which exploration, and each phase, is over."""
        length = (self.epochs - self.explore) / self.members
        return [self.explore + round(number * length) for number in range(self.members + 1)]

    def phase(self, epoch: int) -> int | None:
        """The phase of an epoch, both from 0; None while it explores."""
        later = [number for number, end in enumerate(self.ends[1:]) if epoch < end]
        return None if epoch < self.explore else later[0]

    def factor(self, epoch: int) -> float:
        """What multiplies the learning rate in an epoch, from 0."""
        phase = self.phase(epoch)
        if phase is None:
            return 1.0
        begin, end = self.ends[phase : phase + 2]
        return PHASE_FACTORS[2 * (epoch - begin) >= end - begin]


class Ensemble:
    """The members of a run so far, and the large event between two phases.

    That event is the first one that is due after a phase, by the rule of the topology but for how much is dropped.

    Args:
        phases: When.
        rule: Of the topology; None if connections do not move.
        steps: Gradient steps of an epoch.

    Attributes:
        members: The best network of each phase so far.

    Raises:
        ConfigError: If there is no event between two phases, or it would drop as much as others.

    Known differences from the published code: the first member is the best of its own phase, not of exploration too;
    the optimizer's momentum goes on through a large event, as through others.
    """

    def __init__(self, phases: Phases, rule: RewireRule | None, steps: int):
        self.phases = phases
        self.members: list[Best] = []
        self._waits = False
        if phases.explore + phases.members > phases.epochs:
            raise ConfigError(
                f"an ensemble of {phases.members} after {phases.explore} epochs of exploration needs more than "
                f"{phases.epochs} epochs: raise learner.epochs, or lower learner.ensemble_explore"
            )
        if rule is None or rule.prunes or DROP[rule.drop].needs_threshold or DROP[rule.drop].needs_signs:
            raise ConfigError("learner.ensemble needs events that drop a share of the connections: use --method set")
        last = phases.ends[-2]
        if rule.last_update is not None and rule.last_update <= last * steps:
            raise ConfigError(
                f"the last large event of the ensemble comes after epoch {last}, and the topology rests from gradient "
                f"step {rule.last_update} on: set topology.end_fraction 1"
            )

    def takes(self, present: Best) -> bool:
        """Whether a network is the best one of its phase so far."""
        phase = self.phases.phase(present.epoch - 1)
        return phase is not None and (len(self.members) == phase or present.is_better(self.members[phase]))

    def take(self, present: Best) -> None:
        """Makes a network a member in place of another one of its phase."""
        self.members[self.phases.phase(present.epoch - 1) :] = [present]

    def end_epoch(self, epoch: int) -> None:
        """Takes note that an epoch, from 1, is over: at the end of a phase the next event is a large one."""
        self._waits |= epoch in self.phases.ends[1:-1]

    def enlarged(self, evolver: TopologyEvolver, group: str) -> RewireRule | None:
        """The rule of the event that is due now, if that is to be large."""
        if not self._waits or evolver.rule is None or not evolver.is_due(group):
            return None
        return replace(evolver.rule, drop_fraction=LARGE_FRACTION, decay="constant")

    def happened(self) -> None:
        """The large event is over."""
        self._waits = False

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the run depends on."""
        return {"members": [member.tree() for member in self.members], "waits": self._waits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.members, self._waits = [Best.of_tree(tree) for tree in state["members"]], state["waits"]
