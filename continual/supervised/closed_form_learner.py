"""What learns a sequence of tasks by sums over samples, a batch at a time and each sample once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from sparserl.continual.strategies.closed_form import ClosedForm, Scores
from sparserl.continual.supervised.task_learner import TaskLearner
from sparserl.continual.supervised.tasks import Batch, Samples, TaskSequence

SAMPLES_A_STEP = 1000


class ClosedFormLearner(TaskLearner):
    """Shows a method each sample once.

    Args:
        sequence: The tasks.
        strategy: The method.
        seed: Root seed of what the method draws.

    Raises:
        ConfigError: If the method cannot learn this sequence.
    """

    strategy: ClosedForm

    def __init__(self, sequence: TaskSequence, strategy: ClosedForm, *, seed: int):
        super().__init__(sequence, strategy, SAMPLES_A_STEP, seed=seed)
        self._answer: Scores | None = None  # by all samples so far; None until it is asked for
        strategy.start(sequence, seed)

    def epochs_of(self, task: int) -> int:
        return 1

    def _order(self) -> np.ndarray:
        return np.arange(self._samples_of(self.task))

    def _step(self, batch: Batch) -> None:
        self._answer = None
        self.strategy.learn(batch.x.numpy().astype(np.float64), batch.y.numpy())

    def _end_task(self) -> None:
        self._answer = None
        self.strategy.end()

    def outputs_of_task(self, task: int, samples: Samples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        del task
        if self._answer is None:
            self._answer = self.strategy.answer()
        for x, y in self.parts_of(samples):
            yield torch.from_numpy(self._answer(x.numpy().astype(np.float64))), y

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._answer = None
        super().load_state_dict(state)

    # What is recorded of it.

    @property
    def about(self) -> str:
        return "no network is trained"

    def weights(self) -> Mapping[str, torch.Tensor]:
        return dict(_tensors("", self.strategy.state_dict()))

    @property
    def params_nonzero(self) -> int:
        return self.numbers_kept()

    def size(self) -> dict[str, Any]:
        arrays = self.weights().values()
        return {
            "params_dense": self.params_nonzero,
            "connections": 0,
            "connections_dense": 0,
            "layers": {},
            "bytes_parameters": sum(one.nbytes for one in arrays if one.is_floating_point()),
            "bytes_indices": sum(one.nbytes for one in arrays if not one.is_floating_point()),
            "bytes_optimizer": 0,
        }


def _tensors(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in tree.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(f"{prefix}{name}.", value)
