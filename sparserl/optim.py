"""Adam in one call over all parameters of a network, and optimizer state as a tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
        self._described: dict[int, tuple[list[int], np.ndarray | None]] = {}

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, as `torch.optim.Adam.step`."""
        tables = None if closure is not None or self._has_hooks() else self._tables()
        if tables is None:
            self._separate_clocks()
            return _torch_step(self, closure)
        for group, table in zip(self.param_groups, tables, strict=True):
            if len(table):
                self._step_group(group, table)
        return None

    # torch wraps every step in a profiler record unless this says that it has: more time than the step itself takes.
    step.hooked = True  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """As torch's."""
        self._separate_clocks()
        return super().state_dict()

    def _has_hooks(self) -> bool:
        return bool(self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks)

    def _separate_clocks(self) -> None:
        """Gives each parameter a clock of its own, as torch has it: there a shared one would tick for each of them."""
        for state in self.state.values():
            if "step" in state:
                state["step"] = state["step"].clone()

    def _tables(self) -> list[np.ndarray] | None:
        """Rows for the kernel, of each group; None if the step is torch's."""
        tables = [self._table(place) for place in range(len(self.param_groups))]
        return None if any(table is None for table in tables) else tables  # type: ignore[return-value]

    def _table(self, place: int) -> np.ndarray | None:
        group = self.param_groups[place]
        if any(group[option] for option in VARIANTS) or not isinstance(group["lr"], float | int):
            return None
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
        if place not in self._described or key != self._described[place][0] or len(clocks) > 1:
            self._described[place] = key, self._describe(arrays)
        return self._described[place][1]

    def _describe(self, arrays: list[torch.Tensor]) -> np.ndarray | None:
        """The table of these arrays, four for each parameter; also gives their parameters one clock."""
        states = [self.state[parameter] for parameter in arrays[::4]]
        if any(state["step"].item() != states[0]["step"].item() for state in states):
            return None
        rows = []
        for at in range(0, len(arrays), 4):
            parameter, *others = arrays[at : at + 4]
            if parameter.dtype not in (torch.float32, torch.float64) or parameter.dtype != arrays[0].dtype:
                return None
            for array in (parameter, *others):
                same = array.dtype == parameter.dtype and array.shape == parameter.shape
                if not (same and array.is_cpu and array.is_contiguous()):
                    return None
            rows.append((parameter.numel(), *(array.data_ptr() for array in (parameter, *others))))
        if states:
            clock = states[0]["step"].clone()  # parameters that do not step now may share the old one
            for state in states:
                state["step"] = clock
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


def state_tree(state: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of an optimizer with string keys throughout, as `sparserl.checkpoint` needs."""
    return {**state, "state": {str(parameter): slots for parameter, slots in state["state"].items()}}


def state_from_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `state_tree`."""
    return {**tree, "state": {int(parameter): slots for parameter, slots in tree["state"].items()}}
