"""Adam in one call over all parameters of a network, and optimizer state as a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import unwrap
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import _global_optimizer_pre_hooks as _hooks_of_all

from sparserl.errors import TopologyError
from sparserl.kernels import program, tables
from sparserl.kernels.program import Step, make_step
from sparserl.kernels.recording import (
    each_time,
    is_recorded,
    not_again,
    relies_on,
    relies_on_gradients,
    relies_on_items,
    relies_on_tensors,
)
from sparserl.kernels.updates import adam_of_clocks_step, adam_step, tick_step

GRADIENT = 2
"""Column of a row that has the address of the gradient."""
CLOCKS = 4
"""Place of an entry's clocks among the arrays of a parameter, where it has its own."""
PARALLEL_FROM = 1 << 14
"""Parameters below which one thread is enough."""
VARIANTS = ("amsgrad", "maximize", "capturable", "differentiable")
"""Options of torch's Adam with which a step is left to torch."""


@dataclass
class _Batch:
    """What one call does: parameters of a group that have a gradient and have stepped equally often.

    Attributes:
        group: Place of their group.
        table: Rows of `adam_step`, or of `adam_of_clocks_step`.
        numbers: Numbers of `adam_step`.
        steps: The step, and that of the clock if it is shared.
        parameters: Those of the table.
        arrays: Of each of them, those whose addresses its row has; the steps keep them alive.
        given: The numbers as the group has them.
    """

    group: int
    table: np.ndarray
    numbers: np.ndarray
    steps: Sequence[Step]
    parameters: Sequence[torch.Tensor]
    arrays: list[tuple[torch.Tensor, ...]]
    given: tuple[float, ...]

    def take_gradients(self) -> bool:
        """Puts the present gradients in place of those before; False if they are not of the same kind."""
        for row, (parameter, arrays) in enumerate(zip(self.parameters, self.arrays, strict=True)):
            gradient = parameter.grad
            if gradient is None or not _fits(gradient, parameter, parameter.dtype):
                return False
            self.table[row, GRADIENT] = tables.address(gradient)
            self.arrays[row] = (parameter, gradient, *arrays[2:])
        return True


class FusedAdam(torch.optim.Adam):
    """torch's `Adam`: the same arguments, state and result, with less time spent outside arithmetic.

    With `decoupled_weight_decay` it is AdamW. Whatever else is not plain Adam on float32 or float64 parameters of the
    CPU, or has hooks, is left to torch.

    The state `step` of a parameter may have the parameter's shape: each entry then has a clock of its own, which counts
    since it was put to 0 and corrects the bias of its own moments.
    """

    has_clocks_of_entries = True
    """Whether `step` may have the shape of a parameter; torch's Adam takes a single number alone."""

    # torch's own, without what hides them from `torch.compile`: that takes 2 s to import at the first call.
    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)

    # Of the class, because a copy of an optimizer has nothing but its state.
    _batches: list[_Batch] | None = None
    _key: Sequence[Any] = ()
    _gradients: Sequence[Any] = ()

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, as `torch.optim.Adam.step`; waits with others inside `sparserl.kernels.program.deferred`."""
        batches = None if closure is not None or not self._is_plain() else self._described()
        if batches is not None and _hooks_of_all:
            not_again()
            program.run_waiting()
            for hook in list(_hooks_of_all.values()):
                hook(self, (), {})
            batches = self._described()  # a hook may have replaced tensors
        if batches is None:
            not_again()
            program.run_waiting()
            if any("step" in state and state["step"].ndim for state in self.state.values()):
                raise TopologyError(
                    "moments 'fresh' need Adam as it is in the paper, on the CPU and without hooks; use moments 'zero'"
                )
            self._separate_clocks()
            return _torch_step(self, closure)
        if tables.CHECKED:
            tables.check(
                "Adam", [batch.table for batch in batches], [self._table(batch.parameters) for batch in batches]
            )
        if is_recorded():
            self._say_what_holds()
        for batch in batches:
            each_time(partial(self._read_numbers, batch))
            program.add(*batch.steps)
        return None

    # torch wraps every step in a profiler record unless this says that it has: more time than the step itself takes.
    step.hooked = True  # type: ignore[attr-defined]

    def _say_what_holds(self) -> None:
        """Tells a recording what a step relies on."""
        states = list(self.state.values())
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]

        def is_same_step() -> bool:
            same = len(self.state) == len(states) and not _hooks_of_all and self._is_plain()
            same &= sum(len(group["params"]) for group in self.param_groups) == len(parameters)
            return same and all(map(is_, self.state.values(), states))

        relies_on(self, is_same_step)
        relies_on_items(vars(self), ["state", "param_groups"])
        relies_on_gradients(parameters)
        relies_on_tensors(parameters)
        relies_on_tensors(parameter.grad for parameter in parameters if parameter.grad is not None)
        for state in states:
            relies_on_items(state, state)
            relies_on_tensors(state.values())

    def _read_numbers(self, batch: _Batch) -> None:
        """Learning rate and the like, which a schedule may have changed."""
        numbers = self._given(batch.group)
        if numbers != batch.given:
            program.run_waiting()
            batch.given = numbers
            batch.numbers[:] = numbers

    def _given(self, index: int) -> tuple[float, ...]:
        group = self.param_groups[index]
        decay, rate = group["weight_decay"], group["lr"]
        if group["decoupled_weight_decay"]:
            return (*group["betas"], group["eps"], 0.0, rate, 1.0 - rate * decay)
        return (*group["betas"], group["eps"], decay, rate, 1.0)

    def state_dict(self) -> dict[str, Any]:
        program.run_waiting()
        self._separate_clocks()
        state: dict[str, Any] = _torch_state_dict(self)
        return state

    def _is_plain(self) -> bool:
        """Whether no option or hook makes a step another than the one of the paper."""
        if self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks:
            return False
        return all(isinstance(group["lr"], float | int) and not any(_variants(group)) for group in self.param_groups)

    def _separate_clocks(self) -> None:
        """Gives each parameter a clock of its own, as torch has it: there a shared one would tick for each of them."""
        for state in self.state.values():
            if "step" in state:
                state["step"] = state["step"].clone()

    def _described(self) -> list[_Batch] | None:
        """What a step does, described anew whenever a tensor was replaced; None if the step is torch's."""
        key, gradients = self._indices()
        if key == self._key and gradients == self._gradients:
            return self._batches
        not_again()  # the next step waits with others, and is worth recording
        program.run_waiting()  # clocks are read, and tables changed
        # Autograd makes gradients anew in each pass: that alone is no reason to describe everything else again.
        kept = self._batches if key == self._key else None
        if kept is None or not all(batch.take_gradients() for batch in kept):
            self._batches = self._describe()
            key, _ = self._indices()
        self._key, self._gradients = key, gradients
        return self._batches

    def _indices(self) -> tuple[list[Any], list[Any]]:
        """Whatever was replaced since the last time changes one of these: the second, gradients alone."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        gradients = [_NONE if gradient is None else gradient for gradient in map(_gradient, parameters)]
        arrays = list(parameters)
        key = [*map(id, parameters), *map(_dtype, parameters)]
        key += [gradient is _NONE for gradient in gradients]
        # Looking the state of a tensor up takes longer than reading all of its addresses: it hashes in Python.
        for parameter, state in self.state.items():
            key.append(id(parameter))
            arrays += state.values()
        return [torch.get_num_threads(), *key, *tables.key(arrays)], tables.key(gradients)

    def _describe(self) -> list[_Batch] | None:
        batches: list[_Batch] = []
        for index, group in enumerate(self.param_groups):
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            by_clock: dict[float, list[torch.Tensor]] = {}
            with_clocks: list[torch.Tensor] = []
            for parameter in trained:
                if parameter.dtype not in (torch.float32, torch.float64):
                    return None
                for place, array in enumerate(self._arrays_of(parameter)):
                    if not _fits(array, parameter, torch.float32 if place == CLOCKS else trained[0].dtype):
                        return None
                step = self._state_of(parameter)["step"]
                if step.ndim:
                    with_clocks.append(parameter)
                else:
                    by_clock.setdefault(step.item(), []).append(parameter)
            if with_clocks:
                batches.append(self._batch(index, with_clocks, None))
            for together in by_clock.values():
                # Parameters that do not step now may share the old one.
                clock = self._state_of(together[0])["step"].clone()
                for parameter in together:
                    self._state_of(parameter)["step"] = clock
                batches.append(self._batch(index, together, clock))
        return batches

    def _batch(self, group: int, parameters: Sequence[torch.Tensor], clock: torch.Tensor | None) -> _Batch:
        """What one call does; without a clock for all, each entry has its own."""
        table, given = self._table(parameters), self._given(group)
        numbers = np.array(given)
        arguments = [table.ctypes.data, len(table), numbers.ctypes.data]
        arrays = [self._arrays_of(parameter) for parameter in parameters]
        kept = table, numbers, clock, arrays
        dtype = torch.empty(0, dtype=parameters[0].dtype).numpy().dtype
        threads = torch.get_num_threads() if table[:, 0].sum() >= PARALLEL_FROM else 1
        if clock is None:
            steps = [make_step(adam_of_clocks_step, arguments, dtype, kept, threads)]
        else:
            arguments.append(clock.data_ptr())
            steps = [make_step(adam_step, arguments, dtype, kept, threads)]
            steps.append(make_step(tick_step, arguments, dtype, kept))
        return _Batch(group, table, numbers, steps, parameters, arrays, given)

    def _table(self, parameters: Sequence[torch.Tensor]) -> np.ndarray:
        """Rows for `adam_step`, or for `adam_of_clocks_step`."""
        rows = [(parameter.numel(), *map(tables.address, self._arrays_of(parameter))) for parameter in parameters]
        return np.array(rows, np.int64)

    def _arrays_of(self, parameter: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = self._state_of(parameter)
        assert parameter.grad is not None
        clocks = [state["step"]] if state["step"].ndim else []
        return parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"], *clocks

    def _state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state


def _fits(array: torch.Tensor, parameter: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels can go through an array beside its parameter."""
    return array.dtype == dtype and array.shape == parameter.shape and array.is_cpu and array.is_contiguous()


_gradient, _dtype, _variants = attrgetter("grad"), attrgetter("dtype"), itemgetter(*VARIANTS)
_NONE = torch.empty(0)
_torch_step = torch.optim.Optimizer.profile_hook_step(torch.optim.Adam.step)
_torch_state_dict = unwrap(torch.optim.Adam.state_dict)


def state_tree(state: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict` of an optimizer with string keys throughout, as `sparserl.recording.checkpoint` needs."""
    return {**state, "state": {str(parameter): slots for parameter, slots in state["state"].items()}}


def state_from_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `state_tree`."""
    return {**tree, "state": {int(parameter): slots for parameter, slots in tree["state"].items()}}


def check_slots(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError unless the state of each parameter has its shape, or is a single number, as clocks are."""
    for parameter, slots in optimizer.state.items():
        for name, slot in slots.items():
            if isinstance(slot, torch.Tensor) and slot.ndim and slot.shape != parameter.shape:
                raise ValueError(f"{name!r} has shape {tuple(slot.shape)}, its parameter {tuple(parameter.shape)}")
