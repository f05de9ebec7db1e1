"""Continual metrics: the golden example, others worked by hand, invariants, and a reason for every NaN."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sparserl.errors import ConfigError
from sparserl.metrics.continual import (
    ContinualSummary,
    acc,
    acc_weighted,
    average_incremental_accuracy,
    bwt,
    forgetting_final,
    forgetting_max,
    fwt,
    intransigence,
    learning_accuracy,
    summary,
)

PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)
NAN = float("nan")
METRICS = [name for name in ContinualSummary.__dataclass_fields__ if name != "undefined"]


def square(elements: st.SearchStrategy[float], min_tasks: int = 1) -> st.SearchStrategy[np.ndarray]:
    return st.integers(min_tasks, 6).flatmap(lambda n: hnp.arrays(np.float64, (n, n), elements=elements))


VALUES = st.floats(-1000, 1000)
MEASURED = square(VALUES)
SEVERAL = square(VALUES, min_tasks=2)
WITH_GAPS = square(st.one_of(VALUES, st.just(NAN)))


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-9, nan_ok=True)


def complete(returns: np.ndarray) -> ContinualSummary:
    """The summary with every argument given."""
    n = len(returns)
    return summary(returns, baseline=np.full(n, 0.1), joint=np.full(n, 0.9), samples=np.arange(1, n + 1))


def values(found: ContinualSummary) -> dict[str, float]:
    return {name: getattr(found, name) for name in METRICS}


# --- worked by hand ---------------------------------------------------------------------------------


GOLDEN = np.array([[0.90, 0.10, 0.20], [0.70, 0.80, 0.30], [0.60, 0.75, 0.85]])


def test_the_golden_example() -> None:
    # continual.md 5.1. The mean of its lower triangle is .7667: average incremental accuracy is not that.
    assert round(acc(GOLDEN), 4) == 0.7333
    assert bwt(GOLDEN) == near(-0.175)
    assert fwt(GOLDEN, np.full(3, 0.1)) == near(0.10)  # (.10 - .1 + .30 - .1) / 2
    assert forgetting_max(GOLDEN) == near([0.30, 0.05])  # mean .175
    assert forgetting_final(GOLDEN) == near([0.30, 0.05])
    assert learning_accuracy(GOLDEN) == near(0.85)
    assert round(average_incremental_accuracy(GOLDEN), 4) == 0.7944  # (.90 + .75 + 2.20 / 3) / 3
    # Further, with joint models that reach .92, .78, .90, and 1, 2 and 5 samples.
    assert intransigence(GOLDEN, [0.92, 0.78, 0.90]) == near([0.02, -0.02, 0.05])
    assert acc_weighted(GOLDEN, [1, 2, 5]) == near((0.60 + 1.50 + 4.25) / 8)


def test_the_summary_of_the_golden_example() -> None:
    found = summary(GOLDEN, baseline=[0.1, 0.1, 0.1], joint=[0.92, 0.78, 0.90], samples=[1, 2, 5])
    assert asdict(found) == {
        "acc": near(2.20 / 3),
        "acc_weighted": near(6.35 / 8),
        "bwt": near(-0.175),
        "fwt": near(0.10),
        "forgetting_final": near(0.175),
        "forgetting_max": near(0.175),
        "learning_accuracy": near(0.85),
        "average_incremental_accuracy": near((0.90 + 0.75 + 2.20 / 3) / 3),
        "intransigence": near(0.05 / 3),
        "undefined": {},
    }


def test_a_task_that_became_better_and_then_worse() -> None:
    # Task 0: .5, .9, .7. Better than right after training, worse than at its best.
    returns = np.array([[0.5, 0.1, 0.1], [0.9, 0.6, 0.1], [0.7, 0.6, 0.8]])
    assert bwt(returns) == near(0.1)
    assert forgetting_final(returns) == near([-0.2, 0.0])
    assert forgetting_max(returns) == near([0.2, 0.0])
    assert learning_accuracy(returns) == near(1.9 / 3)
    assert average_incremental_accuracy(returns) == near((0.5 + 0.75 + 0.7) / 3)
    assert fwt(returns, [0.1, 0.1, 0.1]) == near(0.0)


def test_the_end_is_no_candidate_for_the_best() -> None:
    assert forgetting_max([[0.5, 0.1], [0.7, 0.8]]) == near([-0.2])
    assert forgetting_max([[0.5, 0.1, 0.1], [0.6, 0.6, 0.1], [0.9, 0.6, 0.8]]) == near([-0.3, 0.0])


def test_the_best_may_be_before_the_task_was_trained() -> None:
    returns = [[0.9, 0.8, 0.1], [0.9, 0.6, 0.1], [0.9, 0.5, 0.9]]
    assert forgetting_max(returns) == near([0.0, 0.3])
    assert forgetting_final(returns) == near([0.0, 0.1])


@pytest.mark.parametrize("future", [-90.0, NAN])
def test_negative_returns(future: float) -> None:
    # The best so far of task 0 is -50 and of task 1 is -40; with 0 in its place they would lose 60 and 45.
    returns = [[-50, future, future], [-70, -40, future], [-60, -45, -30]]
    assert acc(returns) == -45
    assert bwt(returns) == -7.5
    assert forgetting_final(returns).tolist() == [10, 5]
    assert forgetting_max(returns).tolist() == [10, 5]
    assert learning_accuracy(returns) == -40
    assert average_incremental_accuracy(returns) == -50  # -50, -55, -45
    assert intransigence(returns, [-40, -45, -30]).tolist() == [10, -5, 0]


def test_one_task() -> None:
    found = complete(np.array([[0.8]]))
    assert forgetting_final([[0.8]]).shape == forgetting_max([[0.8]]).shape == (0,)
    few = "needs at least 2 tasks"
    assert found.undefined == {"bwt": few, "fwt": few, "forgetting_final": few, "forgetting_max": few}
    assert values(found) == near(
        {
            "acc": 0.8,
            "acc_weighted": 0.8,
            "bwt": NAN,
            "fwt": NAN,
            "forgetting_final": NAN,
            "forgetting_max": NAN,
            "learning_accuracy": 0.8,
            "average_incremental_accuracy": 0.8,
            "intransigence": 0.1,
        }
    )


def test_nothing_forgotten_is_zero_without_a_sign() -> None:
    returns = [[0.9, 0.1], [0.9, 0.8]]
    zeros = [bwt(returns), *forgetting_final(returns), *forgetting_max(returns)]
    assert [str(float(value)) for value in zeros] == ["0.0"] * 3


def test_integers_and_single_precision_are_taken_as_numbers() -> None:
    assert forgetting_final(np.array([[3, 0], [1, 2]], dtype=np.uint8)).tolist() == [2]
    assert forgetting_final(np.array([[1, 0], [3, 2]], dtype=np.uint8)).tolist() == [-2]
    assert acc(GOLDEN.astype(np.float32)) == pytest.approx(2.20 / 3, abs=1e-7)


# --- what is undefined, and why ---------------------------------------------------------------------


OWN = {"learning_accuracy", "average_incremental_accuracy", "intransigence"}
OLD_OWN = {*OWN, "bwt", "forgetting_final"}
END = {"acc", "acc_weighted", "average_incremental_accuracy"}
OLD_END = {*END, "bwt", "forgetting_final", "forgetting_max"}


@pytest.mark.parametrize(
    ("cell", "without"),
    [
        ((0, 0), OLD_OWN),  # task 0 has another candidate for its best in row 1, so `forgetting_max` stays
        ((0, 1), {"fwt"}),
        ((0, 2), set()),
        ((1, 0), {"average_incremental_accuracy"}),
        ((1, 1), OLD_OWN),
        ((1, 2), {"fwt"}),
        ((2, 0), OLD_END),
        ((2, 1), OLD_END),
        ((2, 2), {*OWN, *END}),
    ],
)
def test_nan_reaches_what_needs_the_cell_and_nothing_else(cell: tuple[int, int], without: set[str]) -> None:
    returns = GOLDEN.copy()
    returns[cell] = NAN
    found = complete(returns)
    assert set(found.undefined) == without
    assert all(f"returns[{cell[0]}, {cell[1]}]" in reason for reason in found.undefined.values())
    whole = values(complete(GOLDEN))
    rest = [name for name in METRICS if name not in without and name != "forgetting_max"]
    assert {name: getattr(found, name) for name in rest} == near({name: whole[name] for name in rest})


def test_nan_stays_with_its_task() -> None:
    returns = GOLDEN.copy()
    returns[0, 0] = NAN
    assert forgetting_final(returns) == near([NAN, 0.05])
    assert forgetting_max(returns) == near([0.10, 0.05])  # the best measured of task 0 is now .70
    assert intransigence(returns, [0.9, 0.9, 0.9]) == near([NAN, 0.1, 0.05])


def test_nothing_measured_of_a_task_before_the_end() -> None:
    returns = GOLDEN.copy()
    returns[:2, 1] = NAN
    assert forgetting_max(returns) == near([0.30, NAN])
    found = complete(returns)
    assert np.isnan(found.forgetting_max)
    assert found.undefined["forgetting_max"] == "task 1 was not measured after task 1, returns[1, 1]"


def test_future_tasks_unmeasured() -> None:
    found = complete(np.where(np.tri(3, dtype=bool), GOLDEN, NAN))
    assert found.undefined == {
        "fwt": "future tasks were not measured, e.g. returns[0, 1]; "
        "outputs of unseen classes are untrained in the class-incremental scenario"
    }
    whole = values(complete(GOLDEN))
    assert values(found) == near({**whole, "fwt": NAN})


def test_arguments_not_given() -> None:
    found = summary(GOLDEN)
    assert found.undefined == {
        "acc_weighted": "no numbers of samples given (samples)",
        "fwt": "no performance at random initialisation given (baseline)",
        "intransigence": "no joint reference given (joint)",
    }
    assert np.isnan([found.acc_weighted, found.fwt, found.intransigence]).all()


def test_a_missing_cell_is_told_before_a_missing_argument() -> None:
    assert "future tasks" in summary(np.where(np.tri(3, dtype=bool), GOLDEN, NAN)).undefined["fwt"]
    assert summary([[0.8]]).undefined["fwt"] == "needs at least 2 tasks"


def test_arguments_unknown_for_a_task() -> None:
    found = summary(GOLDEN, baseline=[NAN, 0.1, NAN], joint=[0.9, NAN, 0.9], samples=[1, 1, 1])
    assert found.undefined == {
        "fwt": "the performance at random initialisation of task 2 is NaN, baseline[2]",
        "intransigence": "the joint reference of task 1 is NaN, joint[1]",
    }
    # The first task has no forward transfer, so its baseline is not needed.
    assert fwt(GOLDEN, [NAN, 0.1, 0.1]) == near(0.10)


@settings(PROFILE, max_examples=30)
@given(returns=WITH_GAPS)
def test_every_nan_has_a_reason_that_is_true(returns: np.ndarray) -> None:
    found = complete(returns)
    assert set(found.undefined) == {name for name, value in values(found).items() if np.isnan(value)}
    for name in found.undefined:
        # Measuring what the reason asks for, again and again, makes the metric defined or comes to too few tasks.
        mended, asked = returns.copy(), []
        while reason := complete(mended).undefined.get(name):
            assert "\n" not in reason
            cell = re.search(r"returns\[(\d+), (\d+)\]", reason)
            if cell is None:
                assert (reason, len(returns), asked) == ("needs at least 2 tasks", 1, [])
                break
            asked.append((int(cell[1]), int(cell[2])))
            assert np.isnan(mended[asked[-1]])
            mended[asked[-1]] = 0.5
        for one in asked:  # and nothing was asked for in vain
            mended[one] = NAN
            assert name in complete(mended).undefined
            mended[one] = 0.5


# --- invariants -------------------------------------------------------------------------------------


@PROFILE
@given(returns=SEVERAL)
def test_final_forgetting_is_minus_backward_transfer(returns: np.ndarray) -> None:
    assert forgetting_final(returns).mean() == near(-bwt(returns))


@PROFILE
@given(returns=MEASURED)
def test_the_best_is_at_least_what_came_right_after(returns: np.ndarray) -> None:
    assert (forgetting_max(returns) >= forgetting_final(returns)).all()


@PROFILE
@given(returns=SEVERAL, shift=VALUES)
def test_a_constant_added_everywhere(returns: np.ndarray, shift: float) -> None:
    n = len(returns)
    vector = np.linspace(-1, 1, n)
    before = summary(returns, baseline=vector, joint=vector, samples=np.arange(1, n + 1))
    after = summary(returns + shift, baseline=vector + shift, joint=vector + shift, samples=np.arange(1, n + 1))
    moved = {"acc", "acc_weighted", "learning_accuracy", "average_incremental_accuracy"}
    expected = {name: value + shift * (name in moved) for name, value in values(before).items()}
    assert values(after) == near(expected)


@PROFILE
@given(returns=SEVERAL, factor=st.floats(0, 10))
def test_another_unit(returns: np.ndarray, factor: float) -> None:
    n = len(returns)
    vector = np.linspace(-1, 1, n)
    before = summary(returns, baseline=vector, joint=vector, samples=np.ones(n))
    after = summary(returns * factor, baseline=vector * factor, joint=vector * factor, samples=np.ones(n))
    assert values(after) == near({name: value * factor for name, value in values(before).items()})


@PROFILE
@given(returns=SEVERAL, data=st.data())
def test_reordered_rows_and_columns(returns: np.ndarray, data: st.DataObject) -> None:
    n = len(returns)
    order = data.draw(st.permutations(range(n - 1)))
    # When the best was reached does not matter, nor which of the old tasks comes first.
    assert forgetting_max(returns[[*order, n - 1]]).tolist() == forgetting_max(returns).tolist()
    assert forgetting_max(returns[:, [*order, n - 1]]).tolist() == forgetting_max(returns)[order].tolist()
    assert acc(returns[:, [*order, n - 1]]) == near(acc(returns))
    # Old tasks renamed in rows and columns alike keep what each of them lost.
    both = returns[np.ix_([*order, n - 1], [*order, n - 1])]
    assert forgetting_final(both).tolist() == forgetting_final(returns)[order].tolist()
    assert learning_accuracy(both) == near(learning_accuracy(returns))


@PROFILE
@given(returns=MEASURED)
def test_equal_samples_weigh_equally(returns: np.ndarray) -> None:
    assert acc_weighted(returns, np.full(len(returns), 7)) == near(acc(returns))


@PROFILE
@given(returns=WITH_GAPS)
def test_arguments_are_not_modified(returns: np.ndarray) -> None:
    before = returns.copy()
    complete(returns)
    for lost in (forgetting_max(returns), forgetting_final(returns), intransigence(returns, np.ones(len(returns)))):
        lost[:] = 7.0  # nor does a result share memory with them
    assert np.array_equal(returns, before, equal_nan=True)


def test_read_only_arrays_are_taken() -> None:
    returns = GOLDEN.copy()
    returns.setflags(write=False)
    assert values(complete(returns)) == values(complete(GOLDEN))


# --- bad input --------------------------------------------------------------------------------------


ON_MATRIX = [acc, bwt, learning_accuracy, average_incremental_accuracy, forgetting_final, forgetting_max, summary]


@pytest.mark.parametrize("metric", ON_MATRIX)
@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (np.zeros((2, 3)), r"returns must be a (T, T) matrix with T >= 1, got shape (2, 3)"),
        (np.zeros(4), r"returns must be a (T, T) matrix with T >= 1, got shape (4,)"),
        (np.zeros((2, 2, 2)), r"returns must be a (T, T) matrix with T >= 1, got shape (2, 2, 2)"),
        (np.zeros((0, 0)), r"returns must be a (T, T) matrix with T >= 1, got shape (0, 0)"),
        (0.5, r"returns must be a (T, T) matrix with T >= 1, got shape ()"),
        (
            [[1.0, float("inf")], [1.0, 1.0]],
            "returns must be finite, or NaN where unknown, got infinity at returns[0, 1]",
        ),
        ([["good"]], "returns must be an array of numbers: could not convert string to float: 'good'"),
    ],
)
def test_bad_matrices(metric: Any, returns: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        metric(returns)
    assert str(error.value) == message


def test_ragged_rows_give_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^returns must be an array of numbers: [^\n]+$"):
        acc([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(("metric", "name"), [(fwt, "baseline"), (intransigence, "joint"), (acc_weighted, "samples")])
@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_bad_arguments(metric: Any, name: str, shape: tuple[int, ...]) -> None:
    message = f"^{name} must have one value per task, shape \\(3,\\), got shape {re.escape(str(shape))}$"
    with pytest.raises(ConfigError, match=message):
        metric(GOLDEN, np.ones(shape))
    with pytest.raises(ConfigError, match=message):
        summary(GOLDEN, **{name: np.ones(shape)})
    with pytest.raises(ConfigError, match=rf"^{name} must be finite, .* got infinity at {name}\[1\]$"):
        summary(GOLDEN, **{name: [1, float("-inf"), 1]})


@pytest.mark.parametrize("bad", [0, -1, NAN])
def test_samples_are_positive(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"^samples must be positive, got \[5.0, .*, 5.0\]$"):
        summary(GOLDEN, samples=[5, bad, 5])


def test_bad_arguments_are_refused_even_where_they_are_not_needed() -> None:
    with pytest.raises(ConfigError, match="baseline"):
        summary([[0.8]], baseline=[0.1, 0.1])
