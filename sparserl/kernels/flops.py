"""Floating-point operations, counted where they are done.

Every product of a network says how many it took; who wants to know opens a scope with a counter. A number that the
same work always gives is said again when an update is repeated (`sparserl.kernels.recording`). One multiplication and
one addition are two operations, and norms and levels that are added to sums take theirs (`sparserl.kernels.networks`);
biases, activations, optimizers and averaging are not counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sparserl.kernels.recording import each_time


class FlopCounter:
    """Adds up.

    Attributes:
        total: Operations so far.
    """

    def __init__(self) -> None:
        self.total = 0

    def add(self, flops: int) -> None:
        """Adds operations that are done."""
        self.total += flops


class _Present(threading.local):
    def __init__(self) -> None:
        self.counter: FlopCounter | None = None


_present = _Present()


@contextmanager
def counting(counter: FlopCounter | None) -> Iterator[None]:
    """Inside, what is multiplied on this thread is added to a counter, and to no other; to none if None.

    What is recorded inside is added to the same counter whenever it is repeated.
    """
    before, _present.counter = _present.counter, counter
    try:
        yield
    finally:
        _present.counter = before


def count(flops: int) -> None:
    """Says how many operations are being done."""
    counter = _present.counter
    if counter is not None:
        each_time(partial(counter.add, flops))


_measured: WeakKeyDictionary[Any, dict[Hashable, int]] = WeakKeyDictionary()
"""Of each owner the operations of its products by torch, by what was done."""


@contextmanager
def torch_products(owner: Any, what: Hashable) -> Iterator[None]:
    """Counts the products that torch does inside: measured the first time, the same number whenever it is repeated.

    Watching each operator of torch would slow down a dense update several times. Sparse layers inside count themselves.

    Args:
        owner: Whose work it is, e.g. a network whose dense layers never change their size.
        what: Names the work: the same name stands for the same products.
    """
    if _present.counter is None:
        yield
        return
    known = _measured.setdefault(owner, {})
    if what not in known:
        watch, measured = _watch()
        with watch:
            yield
        known[what] = measured.total
    else:
        yield
    count(known[what])


def _watch() -> tuple[Any, FlopCounter]:
    """A scope that counts the products of torch, forward and backward, and its counter."""
    # They take a while to load, and sparse agents seldom need them.
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    counter = FlopCounter()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            flops: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
            if flops is not None:
                counter.total += flops(*args, **(kwargs or {}), out_val=result)
            return result

    return Watch(), counter  # type: ignore[no-untyped-call]  # as above
