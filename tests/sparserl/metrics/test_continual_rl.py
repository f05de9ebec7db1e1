"""Metrics of continual RL: worked by hand, Continual World's own example, invariants, a reason for every NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sparserl.errors import ConfigError
from sparserl.metrics.continual_rl import (
    METRICS,
    Reference,
    RLSummary,
    Scores,
    forgetting,
    forward_transfer,
    forward_transfer_difference,
    normalise,
    performance_curves,
    scores,
    summary,
)
from sparserl.seeding import stream

PROFILE = settings(max_examples=20, deadline=None, derandomize=True, database=None)
NAN = math.nan

STEPS = [0, 2, 4, 5, 6, 8, 10]
TASK_STEPS = [4, 2, 4]
CURVES = [
    [0.00, 0.0, 1.00],
    [0.50, 0.0, 0.00],
    [1.00, 0.5, 0.00],  # end of task 0
    [0.75, 0.5, 0.00],
    [0.50, 1.0, 0.00],  # end of task 1
    [0.50, 0.5, 0.50],
    [0.25, 0.5, 0.75],  # end of task 2, and of the run
]


def near(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-9, nan_ok=True)


def array(*values: float) -> np.ndarray:
    return np.array(values)


def seeds_of(end: Any, own: Any = None, auc: Any = None) -> Scores:
    """Scores of seeds, (S, T); what is not given is as at the end."""
    return Scores(*(np.array(end if values is None else values, dtype=float) for values in (end, own, auc)))


def found(seeds: Scores, reference: Reference | None = None) -> RLSummary:
    return summary(seeds, reference, stream(0, "test"))


def values(of: RLSummary) -> dict[str, float]:
    return {name: getattr(of, name).value for name in METRICS}


def interval_of(estimate: Any) -> tuple[float, float]:
    return estimate.low, estimate.high


# --- worked by hand ---------------------------------------------------------------------------------


def test_curves_are_means_over_the_episodes_of_a_task() -> None:
    steps, tasks = [5, 5, 0, 5, 10], [1, 1, 0, 0, 1]
    curves = performance_curves([0, 5, 10], steps, tasks, [1.0, 4.0, 7.0, 8.0, NAN], n_tasks=2)
    assert curves == near(np.array([[7.0, NAN], [8.0, 2.5], [NAN, NAN]]))
    with pytest.raises(ConfigError, match="tasks are 0 to 1, got 2"):
        performance_curves([0], [0], [2], [0.0], n_tasks=2)


def test_scores_of_the_golden_curves() -> None:
    of_run = scores(STEPS, CURVES, TASK_STEPS)
    assert of_run.end == near([0.25, 0.5, 0.75])
    assert of_run.own == near([1.0, 1.0, 0.75])
    # (.5 + 1) / 2, (.5 + 1) / 2, (.5 + .75) / 2: the end belongs to an interval, its beginning does not.
    assert of_run.auc == near([0.75, 0.75, 0.625])


def test_at_the_end_may_be_a_mean_of_the_last_evaluations() -> None:
    of_run = scores(STEPS, CURVES, TASK_STEPS, last=2)
    assert of_run.end == near([0.375, 0.5, 0.625])
    assert of_run.own == near([0.75, 0.75, 0.625])
    assert forgetting(of_run.own, of_run.end) == near([0.375, 0.25, 0.0])
    with pytest.raises(ConfigError, match=r"task 0 has 2 evaluations in its own interval, .* the last 3"):
        scores(STEPS, CURVES, TASK_STEPS, last=3)


def test_forgetting_counts_the_last_task() -> None:
    of_run = scores(STEPS, CURVES, TASK_STEPS)
    assert forgetting(of_run.own, of_run.end) == near([0.75, 0.5, 0.0])
    of_seeds = found(of_run.map(lambda part: part[np.newaxis]))
    assert of_seeds.performance.value == near(0.5)
    assert of_seeds.forgetting.value == near(1.25 / 3)


def test_forward_transfer_by_hand() -> None:
    auc, scratch = array(0.75, 0.75, 0.625), array(0.5, 0.5, 0.625)
    assert forward_transfer(auc, scratch) == near([0.5, 0.5, 0.0])
    assert forward_transfer_difference(auc, scratch) == near([0.25, 0.25, 0.0])


def test_forward_transfer_explodes_as_continual_world_says() -> None:
    assert forward_transfer(array(0.3), array(0.9)) == near([-6.0])
    assert forward_transfer_difference(array(0.3), array(0.9)) == near([-0.6])


def test_aucs_are_averaged_before_the_ratio() -> None:
    # .5 against .7; seed by seed it would be the mean of -.6 and -1.
    reference = Reference(seeds_of([[0.5], [0.9]]))
    assert found(seeds_of([[0.2], [0.8]]), reference).forward_transfer.value == near(-0.2 / 0.3)


def test_returns_are_normalised_by_random_and_by_scratch_at_the_end_of_a_task() -> None:
    assert normalise(array(150.0, 400.0, -60.0), array(-50.0, 0.0, -50.0), array(350.0, 200.0, -40.0)) == near(
        [0.5, 2.0, -1.0]
    )


def test_the_summary_of_returns() -> None:
    seeds = seeds_of(end=[[10.0, 80.0], [30.0, 120.0]], own=[[110.0, 80.0], [90.0, 120.0]], auc=[[50.0, 70.0]] * 2)
    scratch = seeds_of(end=[[7.0, 7.0]] * 2, own=[[90.0, 150.0], [110.0, 250.0]], auc=[[60.0, 90.0]] * 2)
    of_seeds = found(seeds, Reference(scratch, random=np.array([[-20.0, 5.0], [20.0, -5.0]])))
    # Random actions have 0, scratch has 100 and 200.
    assert of_seeds.per_task["performance"] == near([0.2, 0.5])
    assert of_seeds.per_task["own"] == near([1.0, 0.5])
    assert of_seeds.per_task["auc"] == near([0.5, 0.35])
    assert of_seeds.per_task["auc_scratch"] == near([0.6, 0.45])
    assert values(of_seeds) == near(
        {
            "performance": 0.35,
            "performance_iqm": 0.35,  # of .1 .3 .4 .6
            "forgetting": 0.4,
            "forward_transfer": NAN,
            "forward_transfer_difference": -0.1,
        }
    )
    assert list(of_seeds.undefined) == ["forward_transfer"]


def test_the_interquartile_mean_is_over_seeds_and_tasks() -> None:
    assert found(seeds_of([[0.0, 0.5], [0.75, 1.0]])).performance_iqm.value == near(0.625)


# --- intervals --------------------------------------------------------------------------------------


def test_seeds_of_method_and_reference_are_resampled_each_by_themselves() -> None:
    # Two seeds: each pair of resampled means at the ends has a chance of 1/16, more than the 5 % outside.
    of_seeds = found(seeds_of([[0.0], [1.0]]), Reference(seeds_of([[0.0], [0.5]])))
    assert interval_of(of_seeds.forward_transfer_difference) == near((-0.5, 1.0))
    assert interval_of(of_seeds.performance) == near((0.0, 1.0))


def test_tasks_of_a_seed_stay_together() -> None:
    # One seed gains on a task what it loses on the other, so the mean over tasks never changes.
    of_seeds = found(seeds_of([[0.0, 1.0], [1.0, 0.0], [0.25, 0.75]]))
    assert interval_of(of_seeds.performance) == near((0.5, 0.5))
    assert of_seeds.performance_iqm.low < 0.4 < 0.6 < of_seeds.performance_iqm.high  # stratified: by themselves


def test_what_normalises_is_resampled_too() -> None:
    seeds = seeds_of([[50.0], [50.0]])
    of_seeds = found(seeds, Reference(seeds_of([[100.0], [200.0]]), random=np.zeros((2, 1))))
    assert of_seeds.performance.value == near(1 / 3)
    assert interval_of(of_seeds.performance) == near((0.25, 0.5))
    assert interval_of(of_seeds.performance_iqm) == near((0.25, 0.5))


def test_one_run_has_no_interval() -> None:
    one, two = seeds_of([[0.5, 0.75]]), seeds_of([[0.5, 0.75], [0.25, 0.5]])
    alone = found(one, Reference(two))
    assert alone.undefined == {f"{name} interval": "one run" for name in METRICS}
    assert all(math.isnan(getattr(alone, name).low) for name in METRICS)
    against_one = found(two, Reference(one))
    transfers = ("forward_transfer", "forward_transfer_difference")
    assert against_one.undefined == {f"{name} interval": "one run from scratch" for name in transfers}
    assert against_one.performance.low < against_one.performance.high
    normalised = found(two, Reference(one, random=np.zeros((1, 2))))
    assert normalised.undefined["performance interval"] == "one run from scratch"


def test_resamples_without_a_value_leave_no_interval() -> None:
    # From scratch 30 on average, but one of the two seeds is worse than random actions.
    of_seeds = found(seeds_of([[1.0], [2.0]]), Reference(seeds_of([[-40.0], [100.0]]), random=np.zeros((2, 1))))
    assert of_seeds.performance.value == near(0.05)
    assert of_seeds.undefined["performance interval"] == "undefined in some resamples of the runs"


def test_a_summary_repeats() -> None:
    seeds = Scores(*stream(1, "test").random((3, 4, 2)))
    first, second = (summary(seeds, Reference(seeds), stream(0, "a")) for _ in range(2))
    other = summary(seeds, Reference(seeds), stream(0, "b"))
    assert [getattr(first, name) for name in METRICS] == [getattr(second, name) for name in METRICS]
    assert first.performance != other.performance


# --- invariants -------------------------------------------------------------------------------------

RATES = hnp.arrays(np.float64, (3, 3, 4), elements=st.integers(0, 9).map(lambda tenths: tenths / 10))


@PROFILE
@given(RATES, RATES)
def test_reference_against_itself_transfers_nothing(method: np.ndarray, scratch: np.ndarray) -> None:
    same = found(Scores(*scratch), Reference(Scores(*scratch)))
    assert same.forward_transfer.value == near(0.0)
    assert same.forward_transfer_difference.value == near(0.0)
    other = found(Scores(*method), Reference(Scores(*scratch)))
    # Never more than all there was room for, and of the same sign as the difference, task by task.
    assert other.forward_transfer.value <= 1 + 1e-9
    ratio, difference = (other.per_task[name] for name in ("forward_transfer", "forward_transfer_difference"))
    assert (np.sign(ratio) == np.sign(difference)).all()
    assert (np.abs(ratio) >= np.abs(difference)).all()


@PROFILE
@given(RATES, RATES, st.integers(-50, 50), st.integers(1, 20))
def test_units_of_returns_do_not_matter(method: np.ndarray, scratch: np.ndarray, shift: int, factor: int) -> None:
    scratch = scratch + 1.0  # better than random actions
    random = np.zeros((3, 4))
    plain = found(Scores(*method), Reference(Scores(*scratch), random))
    scaled = found(
        Scores(*(shift + factor * method)),
        Reference(Scores(*(shift + factor * scratch)), shift + factor * random),
    )
    assert values(scaled) == near(values(plain))


@PROFILE
@given(RATES, RATES, st.permutations(range(4)))
def test_order_of_seeds_and_tasks_does_not_matter(method: np.ndarray, scratch: np.ndarray, order: list[int]) -> None:
    plain = found(Scores(*method), Reference(Scores(*scratch)))
    moved = found(Scores(*method[:, ::-1, order]), Reference(Scores(*scratch[:, ::-1, order])))
    assert values(moved) == near(values(plain))


@PROFILE
@given(RATES)
def test_a_value_lies_in_its_interval(method: np.ndarray) -> None:
    of_seeds = found(Scores(*method))
    for name in ("performance", "forgetting"):
        estimate = getattr(of_seeds, name)
        assert estimate.low <= estimate.value + 1e-9
        assert estimate.value <= estimate.high + 1e-9


# --- undefined is NaN, with a reason ----------------------------------------------------------------

TWO = seeds_of([[0.5, 0.25], [0.75, 0.5]])
RANDOM = np.zeros((2, 2))


def gap(whole: Scores, part: str, task: int) -> Scores:
    """The same where one run has not measured a task."""
    holed = np.array(getattr(whole, part))
    holed[1, task] = NAN
    return replace(whole, **{part: holed})


@pytest.mark.parametrize(
    ("seeds", "reference", "reasons"),
    [
        (TWO, None, {"forward_transfer": "no runs from scratch to compare with"}),
        (gap(TWO, "end", 1), Reference(TWO), {"performance": "task 1 was not measured at the end"}),
        (gap(TWO, "end", 1), Reference(TWO), {"performance_iqm": "task 1 was not measured at the end"}),
        (
            gap(TWO, "own", 0),
            Reference(TWO),
            {"forgetting": "task 0 was not measured at the end of its own training"},
        ),
        (
            gap(TWO, "auc", 0),
            Reference(TWO),
            {"forward_transfer": "task 0 was not measured throughout its own interval"},
        ),
        (
            TWO,
            Reference(gap(TWO, "auc", 1)),
            {"forward_transfer_difference": "task 1 was not measured throughout its own interval from scratch"},
        ),
        (
            TWO,
            Reference(gap(TWO, "own", 1), RANDOM),
            {"performance": "task 1 was not measured at the end of its own training from scratch"},
        ),
        (
            TWO,
            Reference(TWO, np.array([[0, 0], [NAN, 0]])),
            {"forgetting": "random actions were not measured on task 0"},
        ),
        (
            TWO,
            Reference(TWO, np.array([[0, 1.0], [0, 1.0]])),
            {"performance": "from scratch is not better than random actions on task 1: 0.375 and 1"},
        ),
        (TWO, Reference(seeds_of([[0.0, 1.0]] * 2)), {"forward_transfer": "the AUC from scratch is 1 on task 1"}),
        (TWO, Reference(TWO, RANDOM), {"forward_transfer": "returns can exceed 1"}),
        (TWO, Reference(TWO, rates=False), {"forward_transfer": "returns can exceed 1"}),
    ],
)
def test_a_reason_for_every_nan(seeds: Scores, reference: Reference | None, reasons: dict[str, str]) -> None:
    of_seeds = found(seeds, reference)
    for name, reason in reasons.items():
        assert of_seeds.undefined[name].startswith(reason)
        assert math.isnan(getattr(of_seeds, name).value)
    undefined = {name for name, value in values(of_seeds).items() if math.isnan(value)}
    assert undefined == {name for name in of_seeds.undefined if not name.endswith("interval")}


def test_a_gap_reaches_what_needs_it_alone() -> None:
    of_seeds = found(gap(TWO, "own", 0), Reference(TWO))
    assert set(of_seeds.undefined) == {"forgetting"}
    # An AUC of 1 from scratch leaves no room for a ratio, and a difference of -.625 / 2 all the same.
    of_seeds = found(TWO, Reference(seeds_of([[0.625, 1.0]] * 2)))
    assert set(of_seeds.undefined) == {"forward_transfer"}
    assert of_seeds.forward_transfer_difference.value == near(-0.3125)


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"performance": [[0.0]] * 7}, r"performance must have shape \(7, 3\), got \(7, 1\)"),
        ({"steps": STEPS[:-1]}, r"performance must have shape \(6, 3\), got \(7, 3\)"),
        ({"last": 0}, "last must be at least 1, got 0"),
        ({"task_steps": [4, 2, 1]}, "task 2 has 0 evaluations in its own interval"),
        ({"task_steps": [4, 3, 3]}, "no evaluation at the end of task 1, at env step 7"),
    ],
)
def test_refuses_curves(arguments: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"steps": STEPS, "performance": CURVES, "task_steps": TASK_STEPS} | arguments
    with pytest.raises(ConfigError, match=message):
        scores(**whole)


def test_refuses_returns_without_those_of_random_actions() -> None:
    with pytest.raises(ConfigError, match=r"success rates are in \[0, 1\]"):
        Reference(seeds_of([[0.5, 3.0]]))


def test_refuses_another_number_of_tasks() -> None:
    with pytest.raises(ConfigError, match="the reference has 1 tasks, not 2"):
        found(TWO, Reference(seeds_of([[0.5]])))
