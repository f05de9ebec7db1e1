"""Steps wait, run in their order, in as many shares as they have, on any number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from sparserl.kernels import program
from sparserl.kernels.program import Call, Step, add, at_once, deferred, make_step, run_waiting, step_function, stretch
from sparserl.kernels.vector import read_int64, read_real, write_real

SIZE = 1000


@step_function()
def plus_one(share: int, shares: int, arguments: int, zero: float) -> None:
    numbers = read_int64(arguments, 0)
    for entry in range(SIZE * share // shares, SIZE * (share + 1) // shares):
        write_real(numbers, entry, read_real(numbers, entry, zero) + 1, zero)


@step_function()
def mirror(share: int, shares: int, arguments: int, zero: float) -> None:
    """Of one array into another, so that every share reads what other shares of the step before have written."""
    source, target = read_int64(arguments, 0), read_int64(arguments, 1)
    for entry in range(SIZE * share // shares, SIZE * (share + 1) // shares):
        write_real(target, entry, 2 * read_real(source, SIZE - 1 - entry, zero), zero)


def step(function: program.StepFunction, *arrays: np.ndarray, shares: int = 1) -> Step:
    return make_step(function, [array.ctypes.data for array in arrays], arrays[0].dtype, arrays, shares)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_runs_at_once_where_nothing_is_deferred(dtype: type) -> None:
    numbers = np.zeros(SIZE, dtype)
    add(step(plus_one, numbers))
    assert (numbers == 1).all()
    assert stretch() is None


def test_steps_wait_and_run_in_one_call(calls: list[Call]) -> None:
    numbers = np.zeros(SIZE)
    with deferred():
        for _ in range(3):
            add(step(plus_one, numbers))
        assert (numbers == 0).all()
        first = stretch()
        run_waiting()
        assert (numbers == 3).all()
        assert stretch() != first
        add(step(plus_one, numbers))
        with deferred():  # is the same block
            add(step(plus_one, numbers))
        assert (numbers == 3).all()
    assert (numbers == 5).all()
    assert [len(call.steps) for call in calls] == [3, 2]


def test_at_once_runs_what_waits_first(calls: list[Call]) -> None:
    numbers, other = np.arange(SIZE, dtype=float), np.zeros(SIZE)
    with deferred():
        add(step(plus_one, numbers))
        with at_once():
            add(step(mirror, numbers, other))
            assert other[0] == 2 * SIZE
        add(step(plus_one, other))
        assert other[0] == 2 * SIZE
    assert other[0] == 2 * SIZE + 1
    assert [len(call.steps) for call in calls] == [1, 1, 1]


def test_what_waits_is_dropped_with_an_exception() -> None:
    numbers = np.zeros(SIZE)

    def fail() -> None:
        with deferred():
            add(step(plus_one, numbers))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (numbers == 0).all()
    assert stretch() is None
    add(step(plus_one, numbers))
    assert (numbers == 1).all()


def test_steps_of_another_element_type_run_after_those_before() -> None:
    single, double = np.zeros(SIZE, np.float32), np.zeros(SIZE)
    with deferred():
        add(step(plus_one, single))
        add(step(plus_one, double))
        assert (single == 1).all()
        assert (double == 0).all()
    assert (double == 1).all()


@pytest.mark.usefixtures("thread_counts")
@pytest.mark.parametrize("threads", [1, 2])
def test_shares_see_all_of_the_step_before(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one thread has to do all shares: it waits for no other."""
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = rng.random(SIZE)
        arrays = [start.copy(), np.zeros(SIZE)]
        with deferred():
            for turn in range(6):
                add(step(plus_one, arrays[turn % 2], shares=1 + turn % 2))
                add(step(mirror, arrays[turn % 2], arrays[1 - turn % 2], shares=3))
        expected = start
        for _ in range(6):
            expected = 2 * (expected + 1)[::-1]
        assert np.array_equal(arrays[0], expected)
