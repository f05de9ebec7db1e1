"""Adam in one call over all parameters of a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparserl.kernels.updates import adam

VARIANTS = ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay")
"""Options of torch's Adam with which a step is not the one of the paper."""


class FusedAdam(torch.optim.Adam):
    """torch's `Adam`: the same arguments, state and result, with less time spent outside arithmetic.

    Whatever is not plain Adam on float32 or float64 parameters of the CPU, or has hooks, is left to torch.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._described: list[tuple[list[int], np.ndarray | None]] = [([], None)] * len(self.param_groups)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, as `torch.optim.Adam.step`."""
        hooked = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        tables = (
            [self._table(place) for place in range(len(self.param_groups))] if closure is None and not hooked else []
        )
        if not tables or any(table is None for table in tables):
            for state in self.state.values():
                if "step" in state:
                    state["step"] = state["step"].clone()  # one clock for all would tick once for each
            return _torch_step(self, closure)
        for group, table in zip(self.param_groups, tables, strict=True):
            if table is not None and len(table):
                self._step_group(group, table)
        return None

    # torch wraps every step in a profiler record unless this says that it has: more time than the step itself takes.
    step.hooked = True  # type: ignore[attr-defined]

    def _table(self, place: int) -> np.ndarray | None:
        """Rows for the kernel; None if a step of this group is torch's."""
        group = self.param_groups[place]
        arrays, clocks = [], set()
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            clocks.add(id(state["step"]))
            arrays += [parameter, gradient, state["exp_avg"], state["exp_avg_sq"]]
        key = [array.data_ptr() for array in arrays]
        if key != self._described[place][0] or len(clocks) > 1:
            self._described = list(self._described)
            self._described[place] = key, self._describe(group, arrays)
        return self._described[place][1]

    def _describe(self, group: dict[str, Any], arrays: list[torch.Tensor]) -> np.ndarray | None:
        """The table of these arrays, four for each parameter; also makes one clock of equal ones."""
        states = [self.state[parameter] for parameter in arrays[::4]]
        if any(group[option] for option in VARIANTS) or not isinstance(group["lr"], float | int):
            return None
        if any(state["step"].item() != states[0]["step"].item() for state in states):
            return None
        for at, parameter in enumerate(arrays[::4]):
            if parameter.dtype not in (torch.float32, torch.float64):
                return None
            for array in arrays[4 * at : 4 * at + 4]:
                same = array.dtype == arrays[0].dtype and array.shape == parameter.shape
                if not (same and array.is_cpu and array.is_contiguous()):
                    return None
        for state in states:
            state["step"] = states[0]["step"]
        rows = [
            (arrays[at].numel(), *(array.data_ptr() for array in arrays[at : at + 4]))
            for at in range(0, len(arrays), 4)
        ]
        return np.array(rows, np.int64).reshape(-1, 5)

    def _step_group(self, group: dict[str, Any], table: np.ndarray) -> None:
        parameter = next(parameter for parameter in group["params"] if parameter.grad is not None)
        clock = self.state[parameter]["step"]
        clock += 1
        step = clock.item()
        beta1, beta2 = group["betas"]
        step_size, root = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
        dtype = np.float32 if parameter.dtype == torch.float32 else np.float64
        adam(table, np.array([beta1, beta2, group["eps"], group["weight_decay"], step_size, root], dtype))


_torch_step = torch.optim.Optimizer.profile_hook_step(torch.optim.Adam.step)
