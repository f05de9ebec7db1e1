"""Exemplars of each class: the old network teaches on them, and the nearest mean of a class of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sparserl.continual.learner import Kind, Learner
from sparserl.continual.shared.herding import herd
from sparserl.continual.shared.numbers import count_numbers
from sparserl.continual.shared.teacher import Teacher
from sparserl.continual.strategies.memory import WithMemory
from sparserl.continual.strategies.options import Options
from sparserl.continual.supervised.memory import SampleMemory, samples_at
from sparserl.continual.supervised.tasks import Batch
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.activity import features
from sparserl.layers.linear import linear
from sparserl.ranges import Count


@dataclass(frozen=True)
class ICaRLOptions(Options):
    """What is kept.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples: Count = 2000
    """Exemplars in all, equally many of each class so far. Default: the paper, for 100 classes."""

    group: ClassVar[str] = "icarl"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"samples": 2000}}


class ICaRL(WithMemory):
    """Incremental classifier and representation learning: the network makes features, and exemplars of classes answer.

    A class is answered by its nearest mean: of the features of its exemplars, by the network as it is now, all of
    length 1. That is one more linear layer, so what answers is a network. A task of which nothing is kept yet is
    answered by the network's own outputs.

    Outputs are trained each by itself (sigmoid): those of the present task toward labels, those of earlier tasks toward
    what the network before the task gives.

    Source:
        Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning", algorithms 1 to 5.

    Known differences:
        - Each batch is joined by as many exemplars, as in `replay`; there, exemplars are mixed once into the samples of
          a task.
        - In herding, the mean of those chosen is not scaled to length 1; the means that answer are.
        - Task-incremental, which the paper does not have, exemplars train no outputs of the present task.
    """

    options: ICaRLOptions
    kept: SampleMemory

    def attach(self, learner: Any) -> None:
        """Keeps nothing yet.

        Raises:
            ConfigError: If tasks share classes, or there is no room for an exemplar of each class.
        """
        super().attach(learner)
        self._sequence = learner.sequence
        if self._sequence.scenario == "domain":
            raise ConfigError(
                "icarl keeps exemplars of each class, and domains share theirs: use --scenario class or --scenario "
                "task, not domain"
            )
        classes = sum(len(task.outputs) for task in self._sequence.tasks)
        if self.options.samples < classes:
            least = f"icarl.samples must be at least {classes}, one for each class"
            raise ConfigError(f"{least}, got {self.options.samples}")
        self.kept = learner.new_memory()
        self._old = Teacher(learner.networks[0].of_task(0))

    def loss(self, learner: Any, batch: Batch) -> torch.Tensor:
        """Binary cross-entropies of the outputs that are trained, added up; the mean over samples."""
        if len(self.kept):
            batch = batch.joined([batch, learner.remember(self.kept, len(batch))])
        trained = (learner.closed(batch) == 0.0).to(batch.x.dtype)
        targets = functional.one_hot(batch.y, trained.shape[1]).to(batch.x.dtype)
        known = [unit for task in self._sequence.tasks[: learner.task] for unit in task.outputs]
        if known:
            targets[:, known] = self._old(batch.x)[:, known].sigmoid()
            trained[:, known] = 1.0
        outputs = learner.network(batch.x)
        total = functional.binary_cross_entropy_with_logits(outputs, targets, trained, reduction="sum")
        return total / len(batch)

    def end_task(self, learner: Any) -> None:
        """The network becomes the old one, and chooses exemplars of the classes that it has learned."""
        network, task = learner.networks[0].of_task(learner.task), self._sequence.tasks[learner.task]
        self._old.take(network)
        count = self.options.samples // (len(self.kept.indices) + len(task.outputs))
        exemplars = []
        for unit in task.outputs:
            indices = np.flatnonzero(task.train.labels == unit)
            of_class = replace(task.train, rows=task.train.rows[indices], labels=task.train.labels[indices])
            parts = [of_unit_length(features(network, x)).double() for x, _ in learner.parts_of(of_class)]
            exemplars.append(indices[herd(torch.cat(parts).numpy(), count)] if parts else indices)
        self.kept.keep_first(task.index, exemplars, count)

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """Its hidden layers, and outputs that rank classes by how near their means are."""
        network = super().network_for_task(learner, task)
        if task not in self.kept.tasks:
            return network
        n_out, n_in = linear(network[-1]).shape
        nearest = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu").requires_grad_(False)  # draws nothing
        nn.init.zeros_(nearest.bias)
        nearest.weight.copy_(self._means(network, n_out, n_in))
        return network.with_layers([*list(network)[:-1], nearest])

    def _means(self, network: SparseMLP, n_out: int, n_in: int) -> torch.Tensor:
        """(n_out, n_in) mean features of the exemplars of each class, of length 1; 0 of a class without any."""
        means = torch.zeros(n_out, n_in)
        for task, indices in zip(self.kept.tasks, self.kept.indices, strict=True):
            if indices.size:
                batch = samples_at(self._sequence, np.full_like(indices, task), indices)
                means[batch.y[0]] = of_unit_length(features(network, batch.x)).mean(dim=0)
        return of_unit_length(means)

    def numbers_kept(self) -> int:
        return super().numbers_kept() + count_numbers(self._old.state_dict())

    def memory(self) -> dict[str, int]:
        return {**super().memory(), **self._old.sizes()}

    def state_dict(self) -> dict[str, Any]:
        return {"memory": super().state_dict(), "old": self._old.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["memory"])
        self._old.load_state_dict(state["old"])


def of_unit_length(vectors: torch.Tensor) -> torch.Tensor:
    """(B, n) vectors of length 1; those that are 0 stay."""
    return functional.normalize(vectors)
