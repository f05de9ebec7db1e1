"""Holding a measurement to some of the CPUs, whatever thread pools the process has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

from sparserl.errors import ConfigError

CAN_BIND = hasattr(os, "sched_setaffinity")


def available_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0)) if CAN_BIND else list(range(os.cpu_count() or 1))


def check_threads(threads: int) -> None:
    """Raises ConfigError unless there are that many CPUs."""
    available = len(available_cpus())
    if not 1 <= threads <= available:
        raise ConfigError(f"--threads must be between 1 and {available}, the CPUs available; got {threads}")


@contextmanager
def limit_threads(threads: int, *, bind: bool = False) -> Iterator[None]:
    """Inside, torch and the sparse kernels use `threads` threads. What was before is restored.

    Args:
        threads: How many, >= 1.
        bind: Also leave every task of the process only as many CPUs, where the platform can: for a library whose pool
            of threads has a fixed size, as JAX's has. Not for others: two threads that come from one CPU may share it
            for another 10 ms.

    Raises:
        ConfigError: If there are fewer CPUs.
    """
    import torch  # here: options, which ask for CPUs, are read before anything heavy is imported

    check_threads(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    cpus = available_cpus()
    bound = {task: os.sched_getaffinity(task) for task in _tasks()} if bind and CAN_BIND else {}
    for task in bound:
        _bind(task, set(cpus[:threads]))
    try:
        yield
    finally:
        for task in _tasks() if bound else ():  # those that were born inside as well
            _bind(task, bound.get(task, set(cpus)))
        torch.set_num_threads(before)


def _tasks() -> list[int]:
    return [int(task) for task in os.listdir("/proc/self/task")]


def _bind(task: int, cpus: Set[int]) -> None:
    with suppress(ProcessLookupError):  # it may have ended meanwhile
        os.sched_setaffinity(task, cpus)
