"""Arrays whose numbers a waiting step has yet to compute, and functions from arrays to such arrays.

Reading a `Deferred` array with NumPy runs the waiting steps (`sparserl.kernels.program`), so code that
knows nothing of steps sees numbers, never memory that is not filled yet.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

from sparserl.kernels import program, recording
from sparserl.kernels.program import Step, StepFunction, make_step

T = TypeVar("T")
Array = Any
"""`np.ndarray`, `torch.Tensor` on the CPU or `Deferred`: contiguous, of floats."""


class Deferred(NDArrayOperatorsMixin):
    """An array that is filled when waiting steps have run; NumPy's functions and operators take it as an array.

    A later stretch of steps may fill it anew, or of `filled` a later block. The same object stands for the same memory,
    so what was made for it once can be found by its `id`.

    Args:
        memory: Of the numbers.
    """

    __slots__ = ("_views", "address", "dtype", "memory", "shape")

    def __init__(self, memory: npt.NDArray[Any]):
        self.memory, self.address, self.shape, self.dtype = memory, memory.ctypes.data, memory.shape, memory.dtype
        self._views: dict[tuple[int, ...], Deferred] = {}

    def computed(self) -> npt.NDArray[Any]:
        """A copy of the numbers; runs what waits."""
        recording.not_again()
        program.run_waiting()
        return self.memory.copy()

    def reshaped(self, *shape: int) -> Deferred:
        """The same numbers in another shape, without looking at them."""
        view = self._views.get(shape)
        if view is None:
            view = self._views[shape] = Deferred(self.memory.reshape(shape))
        return view

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.computed()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*map(computed, inputs), **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a protocol that arrays have and this has not
            raise AttributeError(name)
        return getattr(self.computed(), name)

    def __getitem__(self, index: Any) -> Any:
        if index is None:
            return self.reshaped(1, *self.shape)
        if index == 0 and isinstance(index, int) and self.shape[0] == 1:
            return self.reshaped(*self.shape[1:])
        return self.computed()[index]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __float__(self) -> float:
        return float(self.computed().item())


def computed(array: Any) -> Any:
    """The numbers of a `Deferred` array; anything else as it is."""
    return array.computed() if isinstance(array, Deferred) else array


def contiguous(array: Array) -> Array:
    """The same as an array of NumPy with rows one after the other; one that waits as it is."""
    if isinstance(array, Deferred):
        return array
    return np.ascontiguousarray(array.detach().numpy() if isinstance(array, torch.Tensor) else array)


def address_of(array: Array) -> int:
    """Address of the first number of a `contiguous` array, which must be kept as long as it is used."""
    return int(array.address if isinstance(array, Deferred) else array.ctypes.data)


class Lease:
    """Says that something is in use, until it is gone itself.

    What was used in the present stretch of steps is not given out again before they have run: arguments that wait for
    their step would be overwritten.
    """

    __slots__ = ("_free", "item", "used")

    def __init__(self, item: Any, free: list[tuple[int | None, Any]]):
        self.item, self._free, self.used = item, free, program.stretch()

    def __del__(self) -> None:
        if hasattr(self, "_free"):  # a compiler of torch's makes one without calling `__init__`
            self._free.append((self.used, self.item))


def take(free: list[tuple[int | None, Any]]) -> Any:
    """Takes something out of a list that `Lease` fills; None if there is nothing that can be used now."""
    return _taken(free, program.stretch())


def _taken(free: list[tuple[int | None, Any]], now: int | None) -> Any:
    for index, (used, item) in enumerate(free):
        if used is None or used != now:
            del free[index]
            return item
    return None


def once_a_block(free: list[tuple[int | None, T]], make: Callable[[], T]) -> T:
    """Something that is used once until `deferred` ends: one of an earlier block, or made anew.

    Not of an earlier stretch: what was drawn for one step of an update may be read by another after steps have run.

    Args:
        free: What was made before; made things are put there, where steps wait.
        make: Makes one more.
    """
    now = program.block()
    if now is None:
        return make()
    item: T = _taken(free, now) or make()
    free.append((now, item))
    return item


class _Free(threading.local):
    """Arrays by shape; each thread's steps wait for themselves."""

    def __init__(self) -> None:
        self.by_shape: dict[tuple[int, ...], list[tuple[int | None, Deferred]]] = {}


_free = _Free()


def filled(shape: tuple[int, ...], fill: Callable[[npt.NDArray[np.float32]], object]) -> Array:
    """An array of float32 that Python fills, each time that an update is repeated (`sparserl.kernels.recording`).

    Args:
        shape: Of the array.
        fill: Writes the numbers into memory that it is given.
    """
    array = once_a_block(_free.by_shape.setdefault(shape, []), lambda: Deferred(np.empty(shape, np.float32)))
    recording.each_time(partial(fill, array.memory))
    return array.memory if program.stretch() is None else array


class Memo:
    """What was made for arrays that wait, to be used once in each stretch of steps.

    Args:
        limit: Entries beyond which all are forgotten.
    """

    def __init__(self, limit: int = 32):
        self._limit = limit
        self._entries: dict[Any, Any] = {}

    def find(self, inputs: Sequence[Array], more: object = None) -> Any:
        """The entry for these very arrays, if it is there and was not found in this stretch before."""
        entry = self._entries.get((*map(id, inputs), more))
        now = program.stretch()
        if entry is None or entry[0] == now:
            return None
        entry[0] = now
        return entry[1]

    def keep(self, made: Any, inputs: Sequence[Array], more: object = None) -> None:
        """Keeps something for the next stretches, if all arrays are such that come again."""
        now = program.stretch()
        if now is None or not all(isinstance(array, Deferred) for array in inputs):
            recording.not_again()
            return
        key = (*map(id, inputs), more)
        if key not in self._entries:
            if len(self._entries) >= self._limit:
                self._entries.clear()
            self._entries[key] = [now, made, inputs]  # which keeps their ids from being given to others


Shape = tuple[int, ...]


class Formula:
    """A function from arrays to new arrays that is a step.

    Args:
        function: Its arguments are the address of the numbers, then address, rows and columns of each input and each
            result; see `sparserl.kernels.formulas`.
        shapes: Of the results, by those of the inputs.
    """

    def __init__(self, function: StepFunction, shapes: Callable[..., Sequence[Shape]]):
        self.function, self._shapes = function, shapes
        self._memo = Memo()

    def __call__(self, *inputs: Array, number: float = 0.0) -> Any:
        """The result, or a tuple of them.

        Args:
            inputs: Arrays of one element type.
            number: A further argument.

        Raises:
            ValueError: If element types differ.
        """
        bound: _Bound | None = self._memo.find(inputs)
        if bound is None:
            shapes = self._shapes(*(array.shape for array in inputs))
            bound = _Bound(self.function, [contiguous(array) for array in inputs], shapes)
            self._memo.keep(bound, inputs)
        recording.each_time(partial(bound.number.__setitem__, 0, number))
        program.add(bound.step)
        return bound.results


def formula(shapes: Callable[..., Sequence[Shape]]) -> Callable[[Callable[[int, int, int, Any], None]], Formula]:
    """Decorates the function of a `Formula`."""
    return lambda function: Formula(StepFunction(function), shapes)


class _Bound:
    """A step of a formula with its inputs.

    Attributes:
        results: What the formula gives: waiting arrays where steps wait.
    """

    def __init__(self, function: StepFunction, inputs: Sequence[Array], shapes: Sequence[Shape]):
        dtype = inputs[0].dtype
        if any(array.dtype != dtype for array in inputs):
            raise ValueError(f"element types differ: {', '.join(str(array.dtype) for array in inputs)}")
        self.number = np.zeros(1)
        results = [np.empty(shape, dtype) for shape in shapes]
        block = [self.number.ctypes.data]
        for array in (*inputs, *results):
            block += [address_of(array), *_folded(array.shape)]
        memories = [array.memory if isinstance(array, Deferred) else array for array in inputs]
        self.step: Step = make_step(function, block, dtype, (self.number, results, memories))
        given = results if program.stretch() is None else list(map(Deferred, results))
        self.results: Any = given[0] if len(given) == 1 else tuple(given)


def _folded(shape: Shape) -> tuple[int, int]:
    """As a matrix: the first dimension, and all others together."""
    return shape[0], math.prod(shape[1:])
