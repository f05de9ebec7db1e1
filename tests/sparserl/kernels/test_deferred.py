"""Arrays that wait are computed when somebody looks, and nobody's numbers are overwritten."""

from __future__ import annotations

import numpy as np
import pytest

from sparserl.kernels.deferred import Deferred, Memo, address_of, computed, filled
from sparserl.kernels.formulas import smoothed, squared_errors, tanh
from sparserl.kernels.program import deferred, run_waiting, stretch


def waiting(*numbers: float) -> Deferred:
    return Deferred(np.array([numbers], np.float32))


def test_looking_computes_whatever_the_way() -> None:
    looks = {
        "operator": lambda y: y + 1,
        "from the right": lambda y: 1 + y,
        "function": lambda y: np.maximum(y, 0) + 1,
        "array": lambda y: np.asarray(y) + 1,
        "method": lambda y: y.clip(-9, 9) + 1,
        "item": lambda y: y[:, 0:] + 1,
    }
    for name, look in looks.items():
        with deferred():
            assert look(tanh(waiting(0.5))) == pytest.approx(np.tanh(0.5) + 1), name
    with deferred():
        assert float(tanh(waiting(0.5))) == pytest.approx(np.tanh(0.5))


def test_what_was_looked_at_is_a_copy() -> None:
    with deferred():
        x = waiting(0.5)
        first = computed(tanh(x))
        x.memory[:] = 0.25
        second = computed(tanh(x))
    assert first == pytest.approx(np.tanh(0.5))
    assert second == pytest.approx(np.tanh(0.25))


def test_a_formula_finds_its_memory_again_in_the_next_stretch_only() -> None:
    x = waiting(0.5)
    with deferred():
        first, second = tanh(x), tanh(x)
        assert first.address != second.address  # the first may still be needed
        run_waiting()
        assert tanh(x) is first


def test_what_python_filled_stays_until_the_block_ends_although_steps_have_run() -> None:
    addresses = []
    for _ in range(3):
        with deferred():
            first = filled((3, 7, 1), lambda memory: memory.fill(1.0))
            run_waiting()
            second = filled((3, 7, 1), lambda memory: memory.fill(2.0))
            run_waiting()
            assert (computed(first) == 1.0).all()
            assert (computed(second) == 2.0).all()
        addresses.append({first.address, second.address})
    assert addresses[1] == addresses[2]  # memory of earlier blocks comes again


def test_the_number_of_a_formula_is_that_of_its_call() -> None:
    q_values, targets = np.ones((1, 1, 1), np.float32), np.zeros((1, 1), np.float32)
    with deferred():
        given = Deferred(q_values), Deferred(targets)
        losses = [squared_errors(*given, number=number)[0] for number in (1.0, 3.0)]
        assert [float(loss) for loss in losses] == [1.0, 3.0]


def test_parts_of_a_batch_of_one_network_need_no_look() -> None:
    with deferred():
        y = tanh(Deferred(np.ones((1, 2, 3), np.float32)))
        before = stretch()
        assert y[0].shape == (2, 3)
        assert y[0] is y[0]
        assert y[0][None].shape == (1, 2, 3)
        assert stretch() == before
        assert y[0, 1].shape == (3,)
        assert stretch() != before


def test_other_element_types_are_refused() -> None:
    with pytest.raises(ValueError, match="element types differ: float32, float64"):
        smoothed(np.zeros((2, 1), np.float32), np.zeros((2, 1)))


def test_arrays_that_lie_in_no_row_are_copied() -> None:
    x = np.arange(6.0).reshape(2, 3)[:, ::2]
    np.testing.assert_allclose(tanh(x), np.tanh(x), rtol=1e-6)


def test_a_memo_forgets_all_beyond_its_limit_and_keeps_what_its_keys_are_of() -> None:
    memo = Memo(limit=2)
    with deferred():
        arrays = [waiting(float(place)) for place in range(3)]
        for place, array in enumerate(arrays):
            memo.keep(place, [array])
        run_waiting()
        assert [memo.find([array]) for array in arrays] == [None, None, 2]
        assert memo.find([arrays[2]]) is None  # once a stretch
        run_waiting()
        assert memo.find([arrays[2]], "for something else") is None
        memo.keep("no", [np.zeros(1)])
        assert address_of(arrays[0]) == arrays[0].memory.ctypes.data
    memo.keep("no", [arrays[1]])  # outside, nothing comes again
    with deferred():
        assert memo.find([arrays[1]]) is None
