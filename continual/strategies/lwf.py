"""Learning without forgetting: the network before a task teaches the one that learns it, on the new samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from sparserl.continual.learner import Kind, Learner
from sparserl.continual.shared.teacher import Teacher
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import Strategy
from sparserl.ranges import NotNegative, Positive


@dataclass(frozen=True)
class LwFOptions(Options):
    """How the old network teaches.

    Raises:
        ConfigError: If a value is out of range.
    """

    alpha: NotNegative = 0.5
    """Weight of what the old network teaches for each earlier task, >= 0, relative to the cross-entropy. Default: the
    best of those tried on class-incremental split MNIST (seed 0: 0.125 gives 25 % accuracy, 0.5 33 %, 1 21 %; Hsu et
    al. report 24 %). Task-incremental, they are equally good."""
    temperature: Positive = 2.0
    """Divides logits before their softmax, > 0. Default: the paper."""

    group: ClassVar[str] = "lwf"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"alpha": 0.5, "temperature": 2.0}}


class LwF(Strategy):
    """Learning without forgetting: the old network answers, for each earlier task, which class a new sample is of.

    It chooses among the outputs that competed for that task so far; where more compete by now (class-incremental), it
    gives them probability 0, so that a new class has to win against the old ones.

    Source:
        Li and Hoiem 2016, eqs. 2 and 3; Hinton et al. 2015 for the factor temperature^2. Probability 0, and a weight
        that grows with the number of earlier tasks, as in the code of van de Ven and Tolias 2019, used by Hsu et al.
    """

    options: LwFOptions

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self._old = Teacher(learner.networks[0].of_task(0))

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        """Cross-entropy, and how far the outputs are from what the old network makes of the samples."""
        if learner.task == 0:
            return super().loss(learner, batch)
        logits, old = learner.network(batch.x), self._old(batch.x)
        loss: torch.Tensor = functional.cross_entropy(logits + learner.closed(batch), batch.y)
        for (known, competing), tasks in _questions(learner.sequence, learner.task).items():
            taught = distillation(
                logits[:, competing], old[:, known], _indices(known, competing), self.options.temperature
            )
            loss = loss + self.options.alpha * tasks * taught
        return loss

    def end_task(self, learner: Learner) -> None:
        """The network becomes the old one."""
        self._old.take(learner.networks[0].of_task(learner.task))

    def state_dict(self) -> dict[str, Any]:
        return {"old": self._old.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._old.load_state_dict(state["old"])

    def memory(self) -> dict[str, int]:
        return self._old.sizes()


def _questions(sequence: Any, task: int) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each earlier task: outputs that the old network chooses among, and those that compete from now on."""
    competing = sequence.competing
    return Counter((competing(earlier, task - 1), competing(earlier, task)) for earlier in range(task))


def distillation(logits: torch.Tensor, target: torch.Tensor, indices: list[int], temperature: float) -> torch.Tensor:
    """temperature^2 times the mean cross-entropy between the teacher's and the learner's softened class probabilities.

    Args:
        logits: (B, n) of the learner.
        target: (B, k) of the teacher, k <= n.
        indices: (k,) which of the n classes the teacher knows; it gives the others probability 0.
        temperature: Divides both before their softmax.
    """
    log_probabilities = (logits / temperature).log_softmax(dim=1)[:, indices]
    probabilities = (target / temperature).softmax(dim=1)
    return -(temperature**2) * (probabilities * log_probabilities).sum(dim=1).mean()


def _indices(known: tuple[int, ...], competing: tuple[int, ...]) -> list[int]:
    return [competing.index(unit) for unit in known]
