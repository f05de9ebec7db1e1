"""Interleaved timing on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sparserl.bench.timing import Contender, measure, speed_up, spread


class Clock:
    """Seconds that pass only when something is said to take time."""

    def __init__(self) -> None:
        self.now, self.slowness = 0.0, 1.0
        self.tape: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float, *, first: float = 0.0) -> Callable[[int], None]:
        """Work that takes `seconds` a repetition, and `first` more when it is done for the first time."""
        todo = [first]

        def run(n: int) -> None:
            self.tape.append(f"{name}{n}")
            self.now += self.slowness * n * seconds + (todo.pop() if todo else 0.0)

        return run


def test_a_chunk_lasts_as_long_as_asked_and_the_seconds_are_of_one_unit() -> None:
    clock = Clock()
    contenders = {"a": Contender(clock.work("a", 0.01)), "b": Contender(clock.work("b", 0.04), units=10)}
    timings = measure(contenders, rounds=3, chunk_s=0.2, clock=clock)
    assert timings["a"].units == 20
    assert timings["a"].seconds == pytest.approx([0.01] * 3)
    assert timings["b"].units == 5 * 10
    assert timings["b"].seconds == pytest.approx([0.004] * 3)
    assert speed_up(timings["b"], timings["a"]) == pytest.approx([2.5] * 3)


def test_work_that_is_longer_than_a_chunk_is_done_once() -> None:
    clock = Clock()
    timings = measure({"a": Contender(clock.work("a", 7.0))}, rounds=2, chunk_s=0.2, clock=clock)
    assert timings["a"].units == 1
    assert timings["a"].seconds == pytest.approx([7.0, 7.0])


def test_contenders_take_turns_and_the_order_rotates() -> None:
    clock = Clock()
    contenders = {name: Contender(clock.work(name, 1.0)) for name in "abc"}
    measure(contenders, rounds=4, chunk_s=2.0, clock=clock)
    timed = [entry[0] for entry in clock.tape if entry.endswith("2")]
    assert "".join(timed) == "abc" + "bca" + "cab" + "abc"
    assert clock.tape[-2:] == ["c1", "c2"], "each chunk begins with one repetition that does not count"


def test_warm_up_is_recorded_and_in_no_other_number() -> None:
    clock = Clock()
    contenders = {"a": Contender(clock.work("a", 0.1, first=60.0)), "b": Contender(clock.work("b", 0.1))}
    timings = measure(contenders, rounds=2, chunk_s=0.1, clock=clock)
    assert timings["a"].seconds == pytest.approx([0.1, 0.1])
    assert timings["a"].units == 1
    assert timings["a"].warm_up_s == pytest.approx(60.2)
    assert timings["b"].warm_up_s == pytest.approx(0.2)


def test_a_slow_round_hits_both_and_not_their_ratio() -> None:
    clock = Clock()
    calls = 0

    def slower(run: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(n: int) -> None:
            nonlocal calls
            calls += 1
            clock.slowness = 3.0 if calls > 8 else 1.0  # 4 calls of warm-up, 4 of the first round
            run(n)

        return wrapped

    contenders = {
        "a": Contender(slower(clock.work("a", 1.0))),
        "b": Contender(slower(clock.work("b", 2.0))),
    }
    timings = measure(contenders, rounds=2, chunk_s=0.1, clock=clock)
    assert timings["a"].seconds == pytest.approx([1.0, 3.0])
    assert speed_up(timings["a"], timings["b"]) == pytest.approx([2.0, 2.0])


def test_a_setting_holds_for_a_chunk_and_costs_no_time() -> None:
    clock = Clock()

    @contextmanager
    def setting() -> Iterator[None]:
        clock.tape.append("(")
        clock.now += 100.0
        yield
        clock.tape.append(")")
        clock.now += 100.0

    timings = measure({"a": Contender(clock.work("a", 1.0), setting=setting)}, rounds=2, chunk_s=1.0, clock=clock)
    assert "".join(clock.tape) == "(a1a1)" * 3
    assert timings["a"].seconds == pytest.approx([1.0, 1.0])


def test_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == {"median": 3.0, "q25": 2.0, "q75": 4.0}
