"""What a continual method may do around ordinary training: seams that do nothing unless a method fills them.

The learner calls them; a method sees the learner's network and batches, never its loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sparserl.continual.supervised.tasks import Batch, TaskSequence
from sparserl.layers import SparseMLP
from sparserl.metrics.cost import layer_costs
from sparserl.topology.evolver import TopologyEvolver

if TYPE_CHECKING:
    from sparserl.continual.supervised.learner import LearnerConfig, SupervisedLearner


SHARED = "shared"
"""Owner of connections that all tasks use and change."""


@dataclass(frozen=True)
class LayerUse:
    """Who uses one layer after a task.

    Attributes:
        layer: Full name, e.g. `network.0`.
        owned: Connections that belong to each task so far.
        frozen: Connections that later tasks cannot change.
        size: Connections of the dense layer.
        neurons: Output neurons of the layer.
        reserved: Output neurons that later tasks cannot connect to.
        shared: Connections that all tasks use and change.
    """

    layer: str
    owned: tuple[int, ...]
    frozen: int
    size: int
    neurons: int
    reserved: int
    shared: int = 0

    @property
    def owners(self) -> dict[str, int]:
        """Task, or `SHARED`, -> connections that are its."""
        return {str(task): count for task, count in enumerate(self.owned)} or {SHARED: self.shared}

    @property
    def used(self) -> int:
        """Connections that belong to somebody."""
        return sum(self.owned) + self.shared

    @property
    def free(self) -> int:
        """Connections that do not exist, or that nobody has kept."""
        return self.size - self.used


class Strategy:
    """Plain fine-tuning. A method overrides the seams it needs.

    Attributes:
        evolver: What rewires the network; None for a method that does not.

    Args:
        sequence: What will be learned.
        options: The method's own, of the type that its class says; None for a method without any.
        seed: Root seed of everything random.
    """

    evolver: TopologyEvolver | None = None

    def __init__(self, sequence: TaskSequence, options: Any = None, *, seed: int):
        self.sequence, self.options, self.seed = sequence, options, seed

    # Before anything is trained.

    def check(self, config: LearnerConfig) -> None:
        """Raises ConfigError, with the numbers, if the method cannot learn this sequence with this network."""

    def make_network(self, sizes: Sequence[int], config: LearnerConfig) -> SparseMLP:
        """The network before the first task.

        Args:
            sizes: Neurons of each layer, the input first.
            config: Gives the density.
        """
        densities = [config.density] * (len(sizes) - 2) + [1.0]
        return SparseMLP.random(sizes, densities, seed=self.seed, name="network")

    # Around a task.

    def epochs(self, task: int, epochs: int) -> int:
        """Epochs of a task, given those of ordinary training."""
        del task
        return epochs

    def trained_tasks(self, task: int) -> Sequence[int]:
        """Tasks whose training samples are used while `task` is learned."""
        return [task]

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Before the first step of `learner.task`; the optimizer is made or reset afterwards."""

    def end_epoch(self, learner: SupervisedLearner) -> None:
        """After the last step of epoch `learner.epoch`, counted from 0."""

    def end_task(self, learner: SupervisedLearner) -> None:
        """After the last epoch of `learner.task`, before it is evaluated."""

    # Around a gradient step.

    def loss(self, learner: SupervisedLearner, batch: Batch) -> torch.Tensor:
        """What is differentiated, a scalar."""
        return learner.cross_entropy(batch)

    def before_step(self, learner: SupervisedLearner) -> None:
        """After the gradients are formed; may change them."""

    def after_step(self, learner: SupervisedLearner) -> None:
        """After the optimizer's step."""

    # What it leaves behind.

    def answering(self, learner: SupervisedLearner, task: int) -> torch.nn.Module:
        """The network that answers for `task`, (B, F) to (B, n_outputs)."""
        del task
        return learner.network

    def uses(self, learner: SupervisedLearner) -> list[LayerUse]:
        """Who uses each layer now; by default all connections are shared by all tasks and none is frozen."""
        return [
            LayerUse(f"network.{place}", (), 0, cost.weights_dense, cost.biases, 0, shared=cost.weights)
            for place, cost in enumerate(layer_costs(learner.network))
        ]

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: what is kept of earlier tasks, clocks, generators.

        Tensors, arrays, numbers and strings; the size of `memory` below is part of what is reported.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""

    def memory(self) -> dict[str, int]:
        """Bytes kept between tasks beside the network, by what they are for (anchors, importances, stored samples)."""
        return {}
