"""Programs: steps of compiled code that run one after the other in one call, on one thread or several.

A step is a compiled function and its arguments; it does its work in one or several *shares*. Steps that are added
inside `deferred()` wait until a result is looked at, or until the block ends, and then run in a single call: at the
sizes of an agent, going back and forth between Python and compiled code takes longer than the arithmetic.

Shares are dealt to threads in turn by tickets. A thread waits only for tickets that were drawn before its own, so a
program ends on whatever number of threads there are. What a share computes depends on its number alone.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparserl.kernels.compiled import compiled, compiled_callback
from sparserl.kernels.recording import add_act, is_acting, not_again
from sparserl.kernels.vector import read_int64

_I64 = ir.IntType(64)
_REAL: dict[np.dtype[Any], Any] = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}
_ZERO = {dtype: dtype.type(0) for dtype in _REAL}
_APART = 64
"""Bytes between two counters that several threads write: a cache line."""
_PATIENCE = 2000
"""Looks at a counter, a few microseconds, after which a thread offers its CPU to others."""


class StepFunction:
    """Compiled code of a kind of step, for each element type.

    Args:
        function: Of its share, the number of shares, the address of its int64 arguments, and 0 of the element type.
        options: Of Numba's compiler.
    """

    def __init__(self, function: Callable[[int, int, int, Any], None], **options: Any):
        self._function, self._options = function, options
        self.addresses: dict[np.dtype[Any], int] = {}

    def address(self, dtype: np.dtype[Any]) -> int:
        """Of the machine code, which the first call compiles or loads."""
        address = self.addresses.get(dtype)
        if address is None:
            signature: Any = types.void(types.int64, types.int64, types.int64, _REAL[dtype])
            address = self.addresses[dtype] = compiled_callback(self._function, signature, **self._options)
        return address


def step_function(**options: Any) -> Callable[[Callable[[int, int, int, Any], None]], StepFunction]:
    """Decorates the function of a step; options as of Numba's compiler."""
    return lambda function: StepFunction(function, **options)


class Step(NamedTuple):
    """Something that a program does.

    Attributes:
        row: Addresses of its code and of its arguments, and the number of shares.
        zero: 0 of the element type.
        kept: Whatever must not be freed before it has run.
    """

    row: tuple[int, int, int]
    zero: Any
    kept: object


def make_step(
    function: StepFunction, arguments: Sequence[int], dtype: np.dtype[Any], kept: object, shares: int = 1
) -> Step:
    """A step that can be added any number of times.

    Args:
        function: Its code.
        arguments: Whole numbers and addresses.
        dtype: Element type.
        kept: Owns the memory at the addresses.
        shares: Parts of its work that may be done at the same time.
    """
    block = array("q", arguments)
    return Step((function.address(dtype), block.buffer_info()[0], shares), _ZERO[dtype], (block, kept))


class _Waiting(threading.local):
    def __init__(self) -> None:
        self.rows: list[int] | None = None  # None where steps run at once
        self.kept: list[Step] = []
        self.stretch = self.block = 0


_waiting = _Waiting()


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, steps wait until `run_waiting` is called, which reading a result does, or until the end.

    After an exception what still waits is dropped.
    """
    if _waiting.rows is not None:
        yield
        return
    _waiting.rows = []
    _waiting.block += 1
    try:
        yield
        run_waiting()
    finally:
        _waiting.rows = None
        _waiting.kept.clear()


@contextmanager
def at_once() -> Iterator[None]:
    """Inside, steps run when they are added, after all that waited."""
    not_again()
    run_waiting()
    before, _waiting.rows = _waiting.rows, None
    try:
        yield
    finally:
        _waiting.rows = before


def add(*steps: Step) -> None:
    """Runs steps of one element type, at once or later."""
    rows = _waiting.rows
    if rows is not None and is_acting():  # which will do it again itself
        run_waiting()
        rows = None
    if rows is None:
        Call([word for step in steps for word in step.row], steps)()
        return
    if _waiting.kept and _waiting.kept[0].zero is not steps[0].zero:
        run_waiting()
        assert _waiting.rows is not None
        rows = _waiting.rows
    for step in steps:
        rows.extend(step.row)
    _waiting.kept.extend(steps)


def run_waiting() -> None:
    """Runs what waits; what was looked up before may have changed afterwards."""
    rows, kept = _waiting.rows, _waiting.kept
    if rows is None:
        return
    _waiting.stretch += 1
    if rows:
        _waiting.rows, _waiting.kept = [], []
        call = Call(rows, kept)
        call()
        add_act(call)


def stretch() -> int | None:
    """A number that stays the same as long as nothing but waiting steps comes between; None where steps do not wait."""
    return None if _waiting.rows is None else _waiting.stretch


def block() -> int | None:
    """A number that stays the same until `deferred` ends, however often steps are run inside; None as for `stretch`."""
    return None if _waiting.rows is None else _waiting.block


class Call:
    """Waiting steps that run in one call, as often as it is called.

    Args:
        rows: Of all steps, one after the other.
        steps: At least one, of one element type.

    Attributes:
        steps: The steps.
        shares: Of the one that has the most.
    """

    __slots__ = ("_table", "_zero", "shares", "steps")

    def __init__(self, rows: list[int], steps: Sequence[Step]):
        self._table, self._zero = array("q", rows), steps[0].zero
        self.steps, self.shares = steps, max(rows[2::3])

    def __call__(self) -> None:
        """Runs them."""
        rows = self._table.buffer_info()[0]
        if self.shares == 1:
            _run_alone(len(self.steps), rows, self._zero)
        else:
            threads = min(self.shares, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]  # set at run time
            before = torch.get_num_threads()
            numba.set_num_threads(threads)
            if torch.get_num_threads() != before:  # Numba's threads have just begun, which sets the number of OpenMP's
                torch.set_num_threads(before)
            counters = array("q", [0] * (2 * _APART // 8))
            _run_together(threads, len(self.steps), rows, counters.buffer_info()[0], self._zero)


def _call_code(typing_context: Any, function: Any, share: Any, shares: Any, arguments: Any, zero: Any) -> Any:
    """Calls the code at an address."""
    del typing_context, function, share, shares, arguments

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, _I64, context.get_value_type(signature.args[4])])
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), given[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, zero), generate


def _draw_code(typing_context: Any, counter: Any) -> Any:
    """Adds 1 to the number at an address and returns what was there; what other threads wrote before is seen after."""
    del typing_context, counter

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address = builder.inttoptr(given[0], _I64.as_pointer())
        return builder.atomic_rmw("add", address, ir.Constant(_I64, 1), "acq_rel")

    return types.int64(types.int64), generate


def _look_code(typing_context: Any, counter: Any) -> Any:
    """The number at an address; what its writer wrote before is seen after."""
    del typing_context, counter

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(given[0], _I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


def _pass_on_code(typing_context: Any) -> Any:
    """Lets another thread have this CPU, if one waits for it (POSIX)."""
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        yields = cgutils.get_or_insert_function(builder.module, kind, "sched_yield")  # type: ignore[no-untyped-call]  # Numba's
        builder.call(yields, [])
        return context.get_dummy_value()

    return types.void(), generate


# Typed by hand: an intrinsic's own annotation counts the typing context among its arguments.
_call: Any = intrinsic(_call_code)
_draw: Any = intrinsic(_draw_code)
_look: Any = intrinsic(_look_code)
_pass_on: Any = intrinsic(_pass_on_code)


@compiled()
def _run_alone(steps: int, rows: int, zero: Any) -> None:
    for step in range(steps):
        _call(read_int64(rows, 3 * step), 0, 1, read_int64(rows, 3 * step + 1), zero)


@compiled()
def _run_tickets(steps: int, rows: int, drawn: int, zero: Any) -> None:
    """Draws tickets, one for each share of each step in order, and does what they are for, until there are none.

    Args:
        steps: How many.
        rows: Address of (steps, 3) function, arguments, shares.
        drawn: Address of the number of tickets drawn, and one cache line on of the number that are done.
        zero: 0 of the element type.
    """
    done = drawn + _APART
    step, first, following = -1, 0, 0  # the step of the ticket, its first ticket, and that of the next step
    while True:
        ticket = _draw(drawn)
        while ticket >= following:
            step += 1
            if step == steps:
                return
            first, following = following, following + read_int64(rows, 3 * step + 2)
        looks = 0
        while _look(done) < first:
            looks += 1
            if looks % _PATIENCE == 0:
                _pass_on()
        row = 3 * step
        _call(read_int64(rows, row), ticket - first, following - first, read_int64(rows, row + 1), zero)
        _draw(done)


@compiled(parallel=True)
def _run_together(threads: int, steps: int, rows: int, counters: int, zero: Any) -> None:
    for _ in numba.prange(threads):
        _run_tickets(steps, rows, counters, zero)
