"""Which task an observation is of, and the output layers that answer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sparserl.agents.replay.batch import FloatArray
from sparserl.agents.replay.buffer import IntArray
from sparserl.errors import ConfigError
from sparserl.layers import SparseEnsemble


@dataclass(frozen=True)
class TaskHeads:
    """Networks with an output layer for each task; observations end with a one-hot task id.

    Raises:
        ConfigError: If there is no task.
    """

    n_tasks: int
    """Length of the id."""
    visible: bool = False
    """Whether hidden layers read the id as well, or heads alone are chosen by it."""

    def __post_init__(self) -> None:
        if self.n_tasks < 1:
            raise ConfigError(f"a network needs at least 1 head, got {self.n_tasks}")

    def features(self, width: int) -> int:
        """How many features of an observation hidden layers read.

        Args:
            width: Features of an observation, the id included.
        """
        return width if self.visible else width - self.n_tasks

    def split(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) observations to what hidden layers read, and the (B,) int64 task of each."""
        return observations[:, : self.features(observations.shape[1])], observations[:, -self.n_tasks :].argmax(dim=1)

    def split_array(self, observations: FloatArray) -> tuple[FloatArray, IntArray]:
        """As `split`, for arrays."""
        return observations[:, : self.features(observations.shape[1])], observations[:, -self.n_tasks :].argmax(axis=1)


@dataclass(frozen=True)
class HeadEnsembles:
    """Networks with heads, as one ensemble for each task.

    Attributes:
        heads: Tells tasks apart.
        by_task: Of each task the networks, in one kernel call.
        parameters: Of all networks, heads of all tasks included.
    """

    heads: TaskHeads
    by_task: Sequence[SparseEnsemble]
    parameters: Sequence[nn.Parameter]

    def parts(self, inputs: Sequence[FloatArray]) -> list[tuple[int, IntArray, list[FloatArray]]]:
        """Splits a batch by task.

        Args:
            inputs: (B, width) observations, then what else is read beside them.

        Returns:
            Of each task that occurs: its index, its rows, and what its networks read.
        """
        features, tasks = self.heads.split_array(inputs[0])
        whole = [features, *inputs[1:]]
        if (tasks == tasks[0]).all():
            return [(int(tasks[0]), np.arange(len(tasks)), whole)]
        rows = ((task, np.flatnonzero(tasks == task)) for task in range(self.heads.n_tasks))
        return [(task, entries, [array[entries] for array in whole]) for task, entries in rows if entries.size]
