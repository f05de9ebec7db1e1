"""What is recorded is done again, as long as what it relied on holds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.calls import watch_calls

from sparserl.kernels import recording
from sparserl.kernels.deferred import Array, filled
from sparserl.kernels.formulas import policy_loss, tanh
from sparserl.kernels.program import at_once, deferred, run_waiting
from sparserl.kernels.recording import Repeated, each_time, not_again, only_if, relies_on


class Work:
    """Something that is done over and over.

    Attributes:
        drawn: The numbers that Python fills in, one for each time.
        in_python: How often Python found out what there is to do.
    """

    def __init__(self, more: Callable[[Array], object] = lambda given: None):
        self.repeated: Repeated[Array] = Repeated(besides=frozenset({"drawn", "in_python"}))
        self.drawn = iter(range(1, 100))
        self.in_python = 0
        self.more = more

    def __call__(self, *settings: object) -> Any:
        return self.repeated(self.do, vars(self), *settings)

    def do(self) -> Array:
        self.in_python += 1
        with deferred():
            given = filled((1, 2), lambda memory: memory.fill(next(self.drawn)))
            self.more(given)
            return policy_loss(given.reshaped(1, 2, 1))[0]


def test_what_python_does_each_time_is_done_again() -> None:
    work = Work()
    assert [float(work()) for _ in range(4)] == [-1, -2, -3, -4]
    assert work.in_python == 1


def test_a_repetition_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = watch_calls(monkeypatch)
    work = Work(tanh)
    for _ in range(3):
        calls.clear()
        work()
        assert [len(call.steps) for call in calls] == [2]


def look(given: Array) -> None:
    assert np.asarray(given).shape == (1, 2)


def run_at_once(given: Array) -> None:
    with at_once():
        tanh(given)


def use_an_array_of_its_own(given: Array) -> None:
    tanh(np.float32([[1.0]]))


@pytest.mark.parametrize("more", [look, run_at_once, use_an_array_of_its_own, lambda given: not_again()])
def test_what_may_depend_on_numbers_is_not_repeated(more: Callable[[Array], object]) -> None:
    work = Work(more)
    assert [float(work()) for _ in range(3)] == [-1, -2, -3]
    assert work.in_python == 3


def test_what_is_done_each_time_may_look_at_numbers_and_compute() -> None:
    seen: list[float] = []

    def more(given: Array) -> None:
        doubled = tanh(given)
        each_time(lambda: seen.append(float(np.asarray(doubled)[0, 0])))
        each_time(lambda: tanh(given))  # waits for nothing: it is Python that does it

    work = Work(more)
    assert [float(work()) for _ in range(3)] == [-1, -2, -3]
    np.testing.assert_allclose(seen, np.tanh([1, 2, 3]), rtol=1e-6)
    assert work.in_python == 1


def test_one_act_within_another_is_done_once() -> None:
    count: list[str] = []
    work = Work(lambda given: each_time(lambda: each_time(lambda: count.append("inner"))))
    for done in (1, 2, 3):
        work()
        assert len(count) == done


def test_turns_have_recordings_of_their_own() -> None:
    turn = 0

    def more(given: Array) -> None:
        now = turn % 3 == 0
        only_if(lambda: (turn % 3 == 0) == now)
        if now:
            each_time(lambda: seen.append(turn))

    seen: list[int] = []
    work = Work(more)
    for turn in range(9):  # noqa: B007  # the closure reads it
        work()
    assert seen == [0, 3, 6]
    assert work.in_python == 2


def test_at_most_so_many_are_kept() -> None:
    turn = 0

    def more(given: Array) -> None:
        now = turn
        only_if(lambda: turn == now)

    work = Work(more)
    for turn in range(3 * recording.MOST):  # noqa: B007  # the closure reads it
        work()
    assert 0 < len(work.repeated._recordings) <= recording.MOST


CONDITIONS: dict[str, tuple[Callable[[dict[str, Any]], object], Callable[[dict[str, Any]], object]]] = {
    "a condition": (lambda on: relies_on("it", lambda: on["number"] == 1), lambda on: on.update(number=2)),
    "an object": (lambda on: recording.relies_on_items(on, ["object"]), lambda on: on.update(object=object())),
    "an object that is gone": (lambda on: recording.relies_on_items(on, ["object"]), lambda on: on.pop("object")),
    "memory": (
        lambda on: recording.relies_on_tensors([on["tensor"]]),
        lambda on: setattr(on["tensor"], "data", on["tensor"].data.clone()),
    ),
    "a length": (
        lambda on: recording.relies_on_tensors([on["tensor"]]),
        lambda on: setattr(on["tensor"], "data", on["tensor"].data[:2]),
    ),
    "a gradient": (
        lambda on: recording.relies_on_gradients([on["tensor"]]),
        lambda on: setattr(on["tensor"], "grad", torch.ones(3)),
    ),
    "what is trained": (
        lambda on: recording.relies_on_gradients([on["tensor"]]),
        lambda on: on["tensor"].requires_grad_(False),
    ),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_once_something_is_another_way_all_is_found_out_anew(condition: str) -> None:
    say, change = CONDITIONS[condition]
    on = {"number": 1, "object": object(), "tensor": torch.nn.Parameter(torch.ones(3))}
    kept = on["tensor"].data  # as steps keep what they work on
    work = Work(lambda given: say(on))
    for _ in range(3):
        work()
    assert work.in_python == 1
    change(on)
    if condition in ("a condition", "an object that is gone"):
        work.more = lambda given: None
    for _ in range(3):
        work()
    assert work.in_python == 2
    assert kept.sum() == 3


def test_settings_are_the_very_same_objects() -> None:
    work = Work()
    one, same = [1], [1]
    for settings in ([one], [one], [same], [same], [same, 1], []):
        work(*settings)
    assert work.in_python == 4


def test_so_are_attributes_but_for_some() -> None:
    work: Any = Work()
    for number in (1000, 1000, 2000, 2000):
        work.drawn = iter([1])
        work.number = number
        work()
    assert work.in_python == 2
    del work.number
    work.other = 2000
    work.drawn = iter([1])
    work()
    assert work.in_python == 3


def test_a_failure_leaves_no_recording_and_no_act() -> None:
    def fail(given: Array) -> None:
        each_time(lambda: 1 / 0)

    work = Work(fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            work()
    work.more = lambda given: None
    assert [float(work()) for _ in range(2)] == [-3, -4]


def test_a_copy_has_no_recordings() -> None:
    work = Work()
    work()
    assert len(work.repeated._recordings) == 1
    assert len(copy.deepcopy(work.repeated)._recordings) == 0


def test_outside_a_recording_acts_are_done_and_conditions_are_nothing() -> None:
    done: list[int] = []
    each_time(lambda: done.append(1))
    relies_on("it", lambda: False)
    only_if(lambda: False)
    not_again()
    run_waiting()
    assert done == [1]
