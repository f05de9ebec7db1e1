"""What a continual method may do around ordinary training: seams that do nothing unless a method fills them.

The learner, a classifier or an agent, calls them; a method sees its groups of networks, never its loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from sparserl.continual.learner import Group, Kind, Learner
from sparserl.continual.shared.numbers import count_numbers
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.options import Options
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.topology.config import TopologyConfig

Answer = Callable[[torch.Tensor], torch.Tensor]
"""(B, F) features of samples -> (B, n_outputs), without gradients."""


class Strategy:
    """Plain fine-tuning. A method overrides the seams it needs.

    Args:
        options: The method's own, of the type that its class says; None for a method without any.

    Attributes:
        begins_anew: Whether each task has a network of its own, which learns nothing else.
        has_network: Whether it has a network that is trained.
        takes_convolutions: Whether that network may have convolutions.
        of_one_task: Keys of `state_dict`, at any depth, of what each task makes anew.
    """

    Options: ClassVar[type[Options] | None] = None
    """Of a method outside of sparserl: the type of its options, if it has some."""
    has_network: ClassVar[bool] = True
    takes_convolutions: ClassVar[bool] = True
    begins_anew: ClassVar[bool] = False
    of_one_task: tuple[str, ...] = ()

    def __init__(self, options: Any = None):
        self.options = options

    # Before anything is trained.

    def densities(self, kind: Kind, hidden: int, n_tasks: int) -> Mapping[str, tuple[float, ...]]:
        """Densities that layers must begin with, by group, hidden ones first; empty if any will do.

        Args:
            kind: What learns.
            hidden: Number of hidden layers.
            n_tasks: Tasks that will be learned.
        """
        del kind, hidden, n_tasks
        return {}

    def check_topology(self, kind: Kind, topology: TopologyConfig) -> None:
        """Raises ConfigError if networks of a kind of learner cannot have a topology under this method."""

    def connections(self, sizes: Sequence[int], n_tasks: int) -> int | None:
        """Connections that it gives a classifier in all, about; None if the topology says how many there are.

        Args:
            sizes: Neurons of each layer, the input first.
            n_tasks: Tasks that will be learned.
        """
        del sizes, n_tasks
        return None

    def attach(self, learner: Learner) -> None:
        """Gets to know the learner, which has learned nothing yet (or will be restored).

        Raises:
            ConfigError: If the method cannot learn this sequence with this learner.
        """
        if self.options is not None:
            self.options = self.options.of_kind(learner.kind)

    # Around a task.

    def trained_tasks(self, task: int) -> Sequence[int]:
        """Tasks whose training samples are used while `task` is learned; agents have those of the present one alone."""
        return [task]

    def begin_task(self, learner: Learner) -> None:
        """Before the first step of `learner.task`, after what happens at a border."""

    def end_epoch(self, learner: Learner) -> None:
        """After each epoch of a classifier's training but the last."""

    def begin_consolidation(self, learner: Learner) -> None:
        """After the last step of training on `learner.task`."""

    def consolidation(self, task: int, n_tasks: int) -> int:
        """Epochs of a classifier, or updates of an agent, that then follow."""
        del task, n_tasks
        return 0

    def end_task(self, learner: Learner) -> None:
        """After `learner.task`, before it is evaluated; its samples are still there."""

    # Around an optimizer's step.

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        """What a classifier differentiates, a scalar."""
        loss: torch.Tensor = learner.cross_entropy(batch)
        return loss

    def before_step(self, learner: Learner, group: Group) -> None:
        """After the gradients of `group` are formed; may change them."""

    def after_step(self, learner: Learner, group: Group) -> None:
        """After the optimizer's step, before a topology event."""

    # What it leaves behind.

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """The network that answers for a task."""
        return learner.networks[0].of_task(task)

    def answer_for_task(self, learner: Any, task: int) -> Answer:
        """What a classifier answers by for samples of a task: of the outputs that compete, the highest."""
        return self.network_for_task(learner, task).outputs_in_use

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        """Which tasks use the connections of each layer of a network now."""
        return network.usage(learner.task)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors, arrays, numbers and strings."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; the learner's networks are loaded before."""

    def numbers_kept(self) -> int:
        """Numbers of it that are needed to answer, or to learn the next task.

        What a task makes anew is not, nor is the clock of a topology: what it knows of connections that have been is
        for reports.
        """
        return count_numbers(self.state_dict(), without=(*self.of_one_task, "evolver"))

    def memory(self) -> dict[str, int]:
        """Bytes kept between tasks beside the networks, by what they are for."""
        return {}


class BringsConnections(Strategy):
    """A method that gives a classifier its connections, which come with the tasks: the topology is its own.

    Attributes:
        counted_by: Its option that says how many there are.
    """

    takes_convolutions = False
    counted_by: ClassVar[str]

    def densities(self, kind: Kind, hidden: int, n_tasks: int) -> Mapping[str, tuple[float, ...]]:
        """None: there are no connections yet."""
        return {"network": (0.0,) * (hidden + 1)}

    def check_topology(self, kind: Kind, topology: TopologyConfig) -> None:
        """Refuses all."""
        refuse_topology(topology, self.counted_by)


def refuse_topology(topology: TopologyConfig, option: str) -> None:
    """Raises ConfigError unless a topology is the default, for a method that gives a classifier its connections.

    Args:
        topology: What is wished.
        option: Of the method, which says how many there are.
    """
    if not topology.base.dense:
        raise ConfigError(
            f"the method counts connections itself ({option}) and says where they go: leave --topology.method "
            f"{topology.method} and its options (density {topology.density}) out, or use --method naive"
        )
