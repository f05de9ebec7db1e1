"""Gradients scaled down to a norm that they have together, in one step that waits with those around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from sparserl.kernels import program, tables
from sparserl.kernels.program import Step, make_step
from sparserl.kernels.recording import each_time, relies_on_gradients, relies_on_tensors
from sparserl.kernels.updates import clip_step


class GradientNorm:
    """Bounds the Euclidean norm that the gradients of some parameters have together.

    Args:
        parameters: On the CPU, of one element type; those without a gradient do not count.

    Source:
        Pascanu et al. 2013, Algorithm 1, with the operations of torch's `clip_grad_norm_`.
    """

    def __init__(self, parameters: Iterable[torch.Tensor]):
        self._parameters = list(parameters)
        self._key: list[object] = []
        self._numbers = np.zeros(1)
        self._table = np.empty((0, 2), np.int64)
        self._step: Step | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The table holds addresses of the original's gradients.
        return {**vars(self), "_key": [], "_step": None}

    def clip(self, most: float) -> None:
        """Scales all gradients so that their norm is at most `most`; what is not a number makes all of them so."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if not gradients:
            return
        key = tables.key(gradients)
        if key != self._key:
            self._key, self._table = key, _table(gradients)
            arguments = [self._table.ctypes.data, len(self._table), self._numbers.ctypes.data]
            element = torch.empty(0, dtype=gradients[0].dtype).numpy().dtype
            memory = [gradient.data for gradient in gradients]
            self._step = make_step(clip_step, arguments, element, (self._table, self._numbers, memory))
        if tables.CHECKED:
            tables.check("gradient norm", [self._table], [_table(gradients)])
        relies_on_gradients(self._parameters)
        relies_on_tensors(gradients)
        each_time(lambda: self._give(most))
        assert self._step is not None
        program.add(self._step)

    def _give(self, most: float) -> None:
        if self._numbers[0] != most:
            program.run_waiting()
            self._numbers[0] = most


def _table(gradients: list[torch.Tensor]) -> np.ndarray:
    return np.array([(gradient.numel(), tables.address(gradient)) for gradient in gradients], np.int64)
