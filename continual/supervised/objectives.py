"""What a network is trained for on a table: the outputs it has, the loss it learns by, and how good it is.

Independent of networks and of how they are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from sparserl.continual.supervised.losses import Reals, cross_entropy, squared_error
from sparserl.continual.supervised.tasks import Batch, TaskSequence


@dataclass(frozen=True)
class Score:
    """How good a network is on some samples.

    Attributes:
        accuracy: Share that is classified correctly; None where nothing is classified.
        loss: Mean cross-entropy in nats, or squared error of a feature; every sample weighs the same.
    """

    accuracy: float | None
    loss: float

    @property
    def merit(self) -> float:
        """The larger, the better."""
        return -self.loss if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Objective:
    """What a network is trained for.

    Attributes:
        outputs: (table) -> outputs of the network.
        has_classes: Whether samples have labels, and outputs are logits of classes.
        loss: (outputs (B, n), batch, weights of classes or None) -> mean loss.
        by_hand: The same of arrays, with its gradient by the outputs.
        correct: (outputs, batch) -> how many samples are classified correctly.
        summed: (outputs, batch) -> sum over samples of their losses, without weights.
    """

    outputs: Callable[[TaskSequence], int]
    has_classes: bool
    loss: Callable[[torch.Tensor, Batch, torch.Tensor | None], torch.Tensor]
    by_hand: Callable[[Reals, Batch, Reals | None], tuple[float, Reals]]
    correct: Callable[[torch.Tensor, Batch], int]
    summed: Callable[[torch.Tensor, Batch], float]

    def score(self, correct: int, loss: float, samples: int) -> Score:
        """Of sums over samples."""
        return Score(correct / samples if self.has_classes else None, loss / samples)


def _error(outputs: torch.Tensor, batch: Batch, weights: torch.Tensor | None = None) -> torch.Tensor:
    del weights
    return functional.mse_loss(outputs, batch.x)


def _error_by_hand(outputs: Reals, batch: Batch, weights: Reals | None) -> tuple[float, Reals]:
    del weights
    return squared_error(outputs, batch.x.numpy())


CLASSIFY = Objective(
    lambda table: table.n_outputs,
    has_classes=True,
    loss=lambda outputs, batch, weights: functional.cross_entropy(outputs, batch.y, weight=weights),
    by_hand=lambda outputs, batch, weights: cross_entropy(outputs, batch.y.numpy(), weights),
    correct=lambda outputs, batch: int((outputs.argmax(dim=1) == batch.y).sum()),
    summed=lambda outputs, batch: float(functional.cross_entropy(outputs, batch.y, reduction="sum")),
)
"""Logits of classes, by cross-entropy."""
RECONSTRUCT = Objective(
    lambda table: table.n_features,
    has_classes=False,
    loss=_error,
    by_hand=_error_by_hand,
    correct=lambda outputs, batch: 0,
    summed=lambda outputs, batch: float(np.float64(_error(outputs, batch).item()) * len(batch)),
)
"""The input itself, by mean squared error; with noise in the input, that without it (a denoising autoencoder).

Source:
    Vincent et al. 2008; Atashgahi et al. 2022 (QuickSelection) and Sokar et al. 2022 (WAST), which train sparse ones.
"""
