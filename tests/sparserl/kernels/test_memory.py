"""Memory that passes of wide networks lend to each other."""

from __future__ import annotations

import sys
from threading import Thread

import numpy as np
import pytest
import torch

from sparserl.kernels import cpu, memory
from sparserl.kernels.deferred import Deferred
from sparserl.kernels.memory import LARGE, LINE, POOL, Memory, Pool
from sparserl.kernels.program import deferred


def test_a_block_that_is_given_back_is_lent_again() -> None:
    pool = Pool()
    first, second = pool.take(100), pool.take(100)
    assert (pool.lent, pool.most, pool.idle()) == (200, 200, 0)
    assert first.memory is not second.memory
    kept = first.memory
    del first
    assert (pool.lent, pool.idle()) == (100, 100)
    third = pool.take(90)  # as it is, if not much larger
    assert third.memory is kept
    assert (pool.lent, pool.most, pool.idle()) == (200, 200, 0)


@pytest.mark.parametrize("size", [79, 101])
def test_a_block_of_another_size_does_not_serve(size: int) -> None:
    pool = Pool()
    del [pool.take(100)][0]
    block = pool.take(size)
    assert block.memory.size == size
    assert pool.lent == size
    assert pool.idle() == 0  # no more than was lent at the same time, so the other one is gone


def test_the_smallest_that_fits_is_lent() -> None:
    pool = Pool()
    blocks = [pool.take(size) for size in (124, 100, 110)]
    blocks.clear()
    assert pool.idle() == 334
    assert pool.take(100).memory.size == 100
    assert pool.take(101).memory.size == 110


def test_memory_that_is_large_is_lent_and_other_is_not() -> None:
    for count in (0, 7, LARGE // 4 - 1, LARGE // 4):
        held, before = Memory(count, np.float32), POOL.lent
        assert held.array.shape == (count,)
        assert held.array.dtype == np.float32
        assert count == 0 or held.array.ctypes.data % LINE == 0
        assert held.is_lent == (4 * count >= LARGE)
        lent = held.is_lent
        del held
        assert (POOL.lent < before) == lent


def chain(width: int) -> cpu.Networks:
    generator = torch.Generator().manual_seed(width)
    layers = []
    for n_in, n_out in ((3, width), (width, 2)):
        values = torch.randn(n_in * n_out, generator=generator)
        layers.append(cpu.Linear(cpu.CsrIndex.full(n_out, n_in), values, torch.zeros(n_out)))
    return cpu.Networks([layers])


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """The pool of this test alone, which lends memory of any size."""
    pool = Pool()
    monkeypatch.setattr(memory, "LARGE", 0)
    monkeypatch.setattr(memory, "POOL", pool)
    return pool


def test_networks_that_take_turns_use_the_same_memory(pool: Pool) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).numpy()
    alone, others = chain(60), chain(61)
    y, saved = cpu.forward(alone, [x], keep=True)
    in_use = pool.lent
    y_others, saved_others = cpu.forward(others, [x], keep=True)  # while the first is in use: memory of its own
    assert pool.lent > in_use
    request = cpu.GradientRequest(inputs=True)
    gradients = cpu.backward(alone, saved, np.ones_like(y), request)
    gradients_others = cpu.backward(others, saved_others, np.ones_like(y_others), request)
    del saved, saved_others
    assert pool.lent == 0
    most = pool.most
    for networks, expected, first in ((alone, gradients, y), (others, gradients_others, y_others)):
        again, kept = cpu.forward(networks, [x], keep=True)
        found = cpu.backward(networks, kept, np.ones_like(again), request)
        assert np.array_equal(again, first)
        assert np.array_equal(found.x, expected.x)
        del kept
    assert pool.most == most
    assert pool.idle() <= most


def test_passes_that_wait_keep_their_memory_until_they_have_run(pool: Pool) -> None:
    networks = chain(60)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).numpy()
    expected, saved = cpu.forward(networks, [x], keep=True)
    gradient = cpu.backward(networks, saved, np.ones_like(expected), cpu.GradientRequest(inputs=True)).x
    del saved
    inputs = Deferred(x)
    for _ in range(2):
        with deferred():
            found, saved = cpu.forward(networks, [inputs], keep=True)
            toward = cpu.backward(networks, saved, Deferred(np.ones_like(expected)), cpu.GradientRequest(inputs=True)).x
            del saved
            in_use = pool.lent
            other, _ = cpu.forward(networks, [inputs], keep=False)
            assert pool.lent > in_use > 0
        assert pool.lent == 0  # and none is kept for the next stretch of steps
        assert np.array_equal(np.asarray(found), expected)
        assert np.array_equal(np.asarray(other), expected)
        assert np.array_equal(np.asarray(toward), gradient)


def test_threads_never_get_the_same_block() -> None:
    """With switches after each microsecond, some of these takes gave out a block that was in use."""
    pool, lent, both = Pool(), set(), []

    def take() -> None:
        for _ in range(20_000):
            block = pool.take(1000)
            key = id(block.memory)
            if key in lent:
                both.append(key)
            lent.add(key)
            lent.discard(key)
            del block

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert not both
    assert pool.lent == 0
