"""What a continual method needs of a learner: groups of networks, probes of a task, gradients and memory.

A classifier has one group, `network`; an agent has those of its optimizers, e.g. `actor` and `critic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.topology.evolver import TopologyEvolver

Kind = Literal["classifier", "agent"]
"""What learns."""
Objective = Literal["likelihood", "outputs"]
"""What a probe is the derivative of, by the outputs: the log-likelihood of what the network says, so that mean squared
gradients are the Fisher information; or the squared norm of the outputs."""


@dataclass(eq=False)
class Group:
    """Networks that one optimizer moves.

    Attributes:
        name: `network` of a classifier; as an agent names it, e.g. `actor`.
        networks: Those that are trained.
        module: Holds all parameters that the optimizer moves.
        find_optimizer: Gives the optimizer, which may be another one for each task.
        evolver: Moves connections of the networks; None if nothing does.
        frozen: Entries of parameters that no step moves.
    """

    name: str
    networks: Sequence[TaskNetwork]
    module: nn.Module
    find_optimizer: Callable[[], torch.optim.Optimizer]
    evolver: TopologyEvolver | None
    frozen: FrozenEntries = field(default_factory=FrozenEntries)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The present one."""
        return self.find_optimizer()

    @contextmanager
    def uncaptured(self) -> Iterator[None]:
        """A context of passes on samples of earlier tasks: where connections grow by gradient, it is the task's own."""
        layers = [] if self.evolver is None else self.evolver.groups[self.name].values()
        captures = [layer for layer in layers if layer.capture]
        for layer in captures:
            layer.capture = False
        yield
        for layer in captures:
            layer.capture = True


@dataclass(frozen=True, eq=False)
class Probe:
    """Samples of a task with derivatives of an objective by the network's outputs.

    Attributes:
        x: (B, n_in) what the network reads.
        cotangents: Each (B, n_out); powers of the gradients of all of them add up.
        share: Of the samples of all probes, in (0, 1].
    """

    x: torch.Tensor
    cotangents: Sequence[torch.Tensor]
    share: float


class Memory(Protocol):
    """Samples of earlier tasks."""

    def __len__(self) -> int: ...

    def sizes(self) -> dict[str, int]:
        """Bytes, by what is kept."""

    def numbers(self) -> int:
        """Numbers of all samples, with their labels."""

    def state_dict(self) -> dict[str, Any]:
        """What is kept."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps what was kept."""


class TaskMemory(Memory, Protocol):
    """One that is added to when a task ends."""

    def keep(self, count: int) -> None:
        """Adds up to `count` samples of the task that ends."""


class Learner(Protocol):
    """A learner of a sequence of tasks.

    Attributes:
        kind: What it is.
        seed: Root seed of everything random.
        task: Task that is being, or will next be, learned.
        groups: By name; networks of the first one answer.
        fisher_floor: Least importance of a parameter by its Fisher information.
    """

    kind: Kind
    seed: int
    task: int
    groups: dict[str, Group]
    fisher_floor: float

    @property
    def n_tasks(self) -> int:
        """Tasks of the sequence."""

    @property
    def networks(self) -> list[TaskNetwork]:
        """Networks of all groups; the first one answers."""

    @property
    def updates(self) -> int:
        """Gradient updates so far."""

    def is_within(self, share: float) -> bool:
        """Whether no more than this share of the present task's training is over."""

    def require_heads(self) -> None:
        """Raises ConfigError unless each task can be answered by itself."""

    def begin_anew(self) -> None:
        """Puts networks and optimizers where they were before anything was learned."""

    def probe(self, network: TaskNetwork, objective: Objective, count: int, labels: str | None) -> Iterator[Probe]:
        """Samples of the present task as a network reads them, the same ones whenever it is asked.

        Args:
            network: Of this learner.
            objective: What is differentiated.
            count: Samples; a classifier takes no more than the task has.
            labels: Of a classifier's likelihood, in `LABELS`.
        """

    def gradients(self, group: Group, batch: Any) -> list[torch.Tensor]:
        """Gradients of the group's loss on a batch of `remember`, by `group.module.parameters()`; changes no `grad`."""

    def new_memory(self) -> TaskMemory:
        """An empty one."""

    def remember(self, memory: Any, count: int) -> Any:
        """A batch of a memory, each sample drawn uniformly among all, with replacement, anew for each step."""

    def rehearse(self, options: Any) -> TaskMemory | None:
        """Prepares training on earlier tasks again.

        Returns:
            An empty memory; None where the learner keeps the samples of all tasks itself.

        Raises:
            ConfigError: If there is no room for samples of all tasks.
        """
