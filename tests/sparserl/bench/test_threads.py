"""Limits of threads: they hold inside, and nothing is left of them."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import pytest
import torch

from sparserl.bench.threads import CAN_BIND, available_cpus, check_threads, limit_threads
from sparserl.errors import ConfigError

needs_binding = pytest.mark.skipif(not CAN_BIND, reason="the platform cannot bind threads to CPUs")


def affinities() -> list[set[int]]:
    return [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]


def test_torch_has_that_many_threads_inside() -> None:
    most = len(available_cpus())
    assert torch.get_num_threads() == 1
    with limit_threads(most):
        assert torch.get_num_threads() == most
    assert torch.get_num_threads() == 1


@needs_binding
def test_without_binding_every_task_keeps_its_cpus() -> None:
    before = affinities()
    with limit_threads(1):
        assert affinities() == before


@needs_binding
def test_binding_holds_every_task_and_is_undone_even_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    stop = threading.Event()
    sleepers = [threading.Thread(target=stop.wait) for _ in range(2)]
    sleepers[0].start()
    try:
        with suppress(ZeroDivisionError), limit_threads(1, bind=True):
            sleepers[1].start()  # born inside
            inside = affinities()
            raise ZeroDivisionError
        assert {len(cpus) for cpus in inside} == {1}
        assert len(inside) >= 3
        assert all(cpus == before for cpus in affinities())
    finally:
        stop.set()


def test_more_threads_than_cpus_are_refused() -> None:
    most = len(available_cpus())
    with pytest.raises(ConfigError, match=f"between 1 and {most}, the CPUs available; got {most + 1}"):
        check_threads(most + 1)
    with pytest.raises(ConfigError, match="got 0"), limit_threads(0):
        pass
