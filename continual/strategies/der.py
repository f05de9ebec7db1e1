"""Dark experience replay: outputs on earlier samples stay near those that the network once gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from sparserl.continual.learner import Group, Kind, Learner
from sparserl.continual.strategies.memory import WithMemory
from sparserl.continual.strategies.options import Options
from sparserl.continual.supervised.memory import ReservoirMemory
from sparserl.continual.supervised.tasks import Batch
from sparserl.ranges import Count, NotNegative


@dataclass(frozen=True)
class DEROptions(Options):
    """What is kept, and how much it weighs.

    Defaults: as many samples as replay keeps, and alpha of the paper's code for 5,120 samples of split MNIST.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples: Count = 4400
    """Samples kept in all, with the outputs of the network on them; the paper has 200, 500 and 5,120."""
    alpha: NotNegative = 0.5
    """Weight of the mean squared distance from the kept outputs, >= 0, relative to the cross-entropy."""
    beta: NotNegative = 0.0
    """Weight of the cross-entropy of kept samples, >= 0: above 0 it is DER++, e.g. 0.5."""
    batch_size: Count = 128
    """Kept samples that each of the two is taken on at a step, drawn anew."""

    group: ClassVar[str] = "der"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"samples": 4400, "alpha": 0.5, "beta": 0.0, "batch_size": 128}
    }


class DER(WithMemory):
    """Dark experience replay, and DER++ with `beta` above 0.

    Samples enter a reservoir as they are learned from, with the outputs of that moment, so that nothing has to be known
    of where a task ends. All outputs count, those of classes that no task has had yet as well.

    Source:
        Buzzega et al. 2020, "Dark Experience for General Continual Learning", and its code. A sample that is learned
        from in several epochs counts as often for the reservoir, as there.
    """

    options: DEROptions
    kept: ReservoirMemory

    def attach(self, learner: Any) -> None:
        super().attach(learner)
        self.kept = ReservoirMemory(learner.sequence, self.options.samples, learner.seed)

    def loss(self, learner: Any, batch: Batch) -> torch.Tensor:
        """Cross-entropy of new samples, and how far outputs are from those that are kept."""
        new, size, beta = len(batch), self.options.batch_size, self.options.beta
        if len(self.kept):
            # Two draws in DER++, one for each term.
            old, targets = learner.remember(self.kept, 2 * size if beta else size)
            batch = Batch.joined([batch, old])
        outputs = learner.network(batch.x)
        self._learned = batch[torch.arange(new)], outputs[:new].detach()
        competing = outputs + learner.closed(batch)
        loss: torch.Tensor = functional.cross_entropy(competing[:new], batch.y[:new])
        if len(self.kept):
            loss = loss + self.options.alpha * functional.mse_loss(outputs[new : new + size], targets[:size])
            if beta:
                loss = loss + beta * functional.cross_entropy(competing[new + size :], batch.y[new + size :])
        return loss

    def after_step(self, learner: Learner, group: Group) -> None:
        """Offers the samples of the step to the reservoir."""
        self.kept.add(*self._learned)
