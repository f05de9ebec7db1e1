"""What a learning curve says, which runs are compared, and what their records hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.train_runs import write_train_run

from sparserl.config import load_yaml
from sparserl.errors import ConfigError
from sparserl.report.comparison import comparison_record, comparison_section
from sparserl.report.document import IntervalChart, LineChart, ScatterChart
from sparserl.report.trained import (
    OVER_ENVS,
    Comparison,
    TrainedRun,
    area,
    comparisons,
    final,
    last_10,
    read_trained_run,
)

Make = Callable[..., TrainedRun]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Writes a run and reads it."""

    def make(*returns: float, **settings: Any) -> TrainedRun:
        path = write_train_run(tmp_path / f"run{len(list(tmp_path.iterdir()))}", returns, **settings)
        config = load_yaml(path / "config.yaml")
        return read_trained_run(path, config["algo"], config)

    return make


def compared(*runs: TrainedRun, baseline: str | None = None, allow_mixed: bool = False) -> list[Comparison]:
    return comparisons(runs, baseline, allow_mixed)


# --- one run ----------------------------------------------------------------------------------------


def test_three_numbers_of_a_curve_by_hand() -> None:
    steps, returns = np.array([0.0, 10.0, 30.0]), np.array([0.0, 4.0, 8.0])
    assert final(steps, returns) == 8
    assert last_10(steps, returns) == 6  # without step 0, where nothing has been learned
    assert last_10(np.arange(10.0), np.arange(10.0)) == 5  # 1 to 9
    assert last_10(np.arange(12.0), np.arange(12.0)) == 6.5  # 2 to 11
    assert last_10(steps[:1], np.array([5.0])) == 5
    assert area(steps, returns) == pytest.approx((10 * 2 + 20 * 6) / 30)
    assert area(steps[:1], np.array([5.0])) == 5


def test_a_run_is_what_its_files_say(made: Make) -> None:
    run = made(1.0, 2.0, 4.0, seed=3, versions={"mujoco": "3.3.0"})
    assert (run.name, run.env, run.seed) == ("ds_td3", "Hopper-v5", 3)
    assert (run.steps.tolist(), run.returns.tolist()) == ([0, 10, 20], [1, 2, 4])
    assert run.result["params_nonzero"] == 103
    assert run.versions == {"mujoco": "3.3.0"}


def test_an_environment_with_other_arguments_is_another_one(made: Make) -> None:
    plain = [made(0.0, 9.0 + seed, seed=seed) for seed in (0, 1)]
    free = [made(0.0, 5.0 + seed, seed=seed, env_kwargs={"ctrl_cost_weight": 0.0}) for seed in (0, 1)]
    *of_each, over = compared(*plain, *free)
    assert [found.title for found in of_each] == ["Hopper-v5", "Hopper-v5__ctrl_cost_weight=0.0"]
    assert all([len(group.runs[0]) for group in found.groups] in ([2], [1]) for found in of_each)
    assert not any("env_kwargs" in note for note in over.notes)


def test_a_return_that_is_no_number_is_refused(made: Make) -> None:
    with pytest.raises(ConfigError, match=r"run0/eval\.csv has a return that is no finite number at step 10$"):
        made(1.0, math.nan, 2.0)


# --- groups and comparisons -------------------------------------------------------------------------


def test_groups_of_one_environment(made: Make) -> None:
    runs = [made(0, 5, seed=1), made(0, 3, seed=0), made(0, 7, algo="td3", result={"density": 1.0})]
    (comparison,) = compared(*runs)
    assert (comparison.title, comparison.normalised) == ("Hopper-v5", False)
    assert [(group.label, group.seeds) for group in comparison.groups] == [("ds_td3", [0, 1]), ("td3", [0])]
    assert comparison.groups[0].scores("final").tolist() == [[3], [5]]
    assert comparison.groups[0].of_results("params_nonzero") == [100, 101]
    assert comparison.baseline is comparison.groups[1]  # the densest


def test_a_baseline_of_ones_own(made: Make) -> None:
    runs = [made(0, 3), made(0, 7, algo="td3", result={"density": 1.0})]
    (comparison,) = compared(*runs, baseline="ds_td3")
    assert comparison.baseline is comparison.groups[0]
    with pytest.raises(ConfigError, match=r"unknown group for --baseline 'ds_td4'; did you mean 'ds_td3'\?"):
        compared(*runs, baseline="ds_td4")


def test_the_baseline_is_on_as_many_environments_as_can_be_had(made: Make) -> None:
    runs = [made(0, 7, algo="td3", result={"density": 1.0}), made(0, 3), made(0, 3, env="Walker2d-v5")]
    runs += [made(0, 3, algo="ds_sac", result={"density": None}), made(0, 3, algo="ds_sac", env="Walker2d-v5")]
    assert [one.baseline and one.baseline.label for one in compared(*runs)] == ["ds_td3"] * 3


def test_curves_are_where_all_runs_were_evaluated(made: Make) -> None:
    (comparison,) = compared(made(0, 1, 2, 3, 4, seed=0), made(0, 20, 40, seed=1, every=20))
    steps, curves = comparison.groups[0].curves()
    assert steps.tolist() == [0, 20, 40]
    assert curves.tolist() == [[[0], [0]], [[2], [20]], [[4], [40]]]


def test_over_environments_scores_are_normalised_by_the_baseline(made: Make) -> None:
    dense = {"algo": "td3", "result": {"density": 1.0}}
    runs = [made(0, 20, **dense), made(0, 30, seed=1, **dense), made(5, 50), made(5, 75, seed=1)]
    runs += [made(0, 1000, env="Walker2d-v5", seed=seed, **dense) for seed in range(2)]
    runs += [made(0, 500, env="Walker2d-v5", seed=seed) for seed in range(2)]
    hopper, walker, both = compared(*runs)
    assert (hopper.title, walker.title, both.title) == ("Hopper-v5", "Walker2d-v5", OVER_ENVS)
    td3, ds_td3 = both.groups
    assert td3.scores("final").tolist() == [[0.8, 1], [1.2, 1]]
    assert ds_td3.scores("final").tolist() == [[2, 0.5], [3, 0.5]]
    assert ds_td3.curves()[1].tolist() == [[[0.2, 0], [0.2, 0]], [[2, 0.5], [3, 0.5]]]
    assert both.normalised
    assert both.baseline is td3
    assert "Hopper-v5: 1 is a return of 25" in both.notes
    record = comparison_record(both)["groups"][1]["measures"]["final"]
    assert record["mean"]["value"] == pytest.approx(1.5)
    assert record["optimality_gap"]["value"] == pytest.approx(0.25)
    assert record["probability_of_improvement"]["value"] == 0.5


def test_seeds_that_are_not_on_every_environment_are_left_out_and_said(made: Make) -> None:
    dense = {"algo": "td3", "result": {"density": 1.0}}
    runs = [made(0, 10, env=env, **dense) for env in ("Hopper-v5", "Walker2d-v5")]
    runs += [made(0, 9, seed=seed) for seed in range(3)]
    runs += [made(0, 9, env="Walker2d-v5", seed=seed, agent={"gamma": 0.5}) for seed in range(1, 4)]
    runs += [made(0, 9, algo="ds_sac")]
    *_, both = compared(*runs)
    assert [(group.label, group.seeds) for group in both.groups] == [("td3", [0]), ("ds_td3", [1, 2])]
    assert "ds_td3: left out, as not finished on every environment: seed 0, 3" in both.notes
    assert "ds_sac: left out, as no seed is finished on every environment" in both.notes
    assert "settings of a group that depend on the environment: agent.gamma" in both.notes


@pytest.mark.parametrize(
    ("walker", "why"),
    [
        ({"algo": "ds_td3"}, "the baseline, td3, has no finished run on Walker2d-v5"),
        ({"algo": "td3"}, "the mean final return of td3 on Walker2d-v5 is -8, which nothing is divided by"),
        (
            {"algo": "td3", "returns": (0.5, 1.5)},  # with episodes 1 beside these means, two standard errors are 2
            "td3 learned nothing on Walker2d-v5: its return is 1.5 at the end and 0.5 before, not 2.83 apart, two "
            "standard errors",
        ),
    ],
)
def test_what_cannot_be_normalised_is_not_averaged(made: Make, walker: dict[str, Any], why: str) -> None:
    returns = walker.pop("returns", (0, -8))
    *_, both = compared(made(0, 10, algo="td3"), made(*returns, env="Walker2d-v5", **walker), baseline="td3")
    assert (both.groups, both.notes) == ((), (f"nothing is averaged over environments: {why}",))
    assert comparison_section(comparison_record(both)).tables == ()


# --- mixtures ---------------------------------------------------------------------------------------

MIXED: list[tuple[dict[str, Any], str, str]] = [
    ({"env": "Hopper-v4"}, "run0 has env Hopper-v5, .*run1 has Hopper-v4", "env=Hopper-v5"),
    ({"total_steps": 2000}, "run0 has total_steps 1000, .*run1 has 2000", "total_steps=1000"),
    ({"versions": {"mujoco": "3.2.0"}}, r"run0 has mujoco 3\.3\.0, .*run1 has 3\.2\.0", r"mujoco=3\.3\.0"),
    ({"versions": {"gymnasium": "0.29"}}, r"run0 has gymnasium 1\.4\.0, .*run1 has 0\.29", r"gymnasium=1\.4\.0"),
]


@pytest.mark.parametrize(("other", "message", "filter_"), MIXED)
def test_versions_and_budgets_are_not_mixed_in_silence(
    made: Make, other: dict[str, Any], message: str, filter_: str
) -> None:
    runs = [made(0, 3, versions={"mujoco": "3.3.0", "gymnasium": "1.4.0"}), made(0, 4, seed=1, **other)]
    with pytest.raises(
        ConfigError, match=f"{message}; leave one out, by --where {filter_}, or compare them with --allow-mixed$"
    ):
        compared(*runs)
    notes = [note for one in compared(*runs, allow_mixed=True) for note in one.notes]
    assert any(note.startswith("compared all the same: ") for note in notes)


def test_what_is_not_known_is_not_mixed_nor_are_two_environments(made: Make) -> None:
    runs = [made(0, 3, versions={"mujoco": "3.3.0", "gymnasium": None}), made(0, 4, seed=1)]
    runs += [made(0, 3, env="Walker2d-v5", total_steps=5000, versions={"mujoco": "3.2.0"})]
    assert [note for one in compared(*runs)[:2] for note in one.notes] == []


# --- records and sections ---------------------------------------------------------------------------


def test_a_mean_of_fewer_than_ten_evaluations_says_of_how_many(made: Make) -> None:
    short, long = made(0, 4, 6, seed=0), made(*range(12), seed=1)

    def heads(*runs: TrainedRun) -> list[str]:
        (table, *_) = comparison_section(comparison_record(compared(*runs)[0])).tables
        return [row[0].strip() for row in table.rows if row and row[0].strip().startswith("mean of")]

    assert heads(short) == ["mean of the last 2"]
    assert heads(long) == ["mean of the last 10"]
    assert heads(short, long) == ["mean of the last 2 to 10"]


def test_a_record_by_hand(made: Make) -> None:
    runs = [made(0, 4, seed=0), made(0, 8, seed=1), made(0, 6, algo="td3", result={"density": 1.0})]
    record = comparison_record(compared(*runs)[0])
    group, dense = record["groups"]
    assert (record["baseline"], record["envs"]) == ("td3", ["Hopper-v5"])
    assert (group["seeds"], group["runs"]) == ([0, 1], [[str(runs[0].path)], [str(runs[1].path)]])
    measures = group["measures"]
    assert measures["final"]["scores"] == [[4], [8]]
    assert measures["final"]["mean"] == {"value": 6, "low": 4, "high": 8}
    assert measures["final"]["median"]["value"] == measures["final"]["iqm"]["value"] == 6
    assert measures["area"]["mean"]["value"] == 3
    assert measures["last_10"]["mean"]["value"] == 6
    assert measures["last_10"]["evaluations"] == (1, 1)
    assert measures["final"]["probability_of_improvement"] == {"value": 0.5, "low": None, "high": None}
    assert dense["measures"]["final"]["probability_of_improvement"] is None
    assert "optimality_gap" not in measures["final"]
    assert group["sample_efficiency"] == {"global_step": [0, 10], "value": [0, 6], "low": [0, 4], "high": [0, 8]}
    assert (group["profile"]["value"][0], group["profile"]["value"][-1]) == (1, 0)
    assert group["cost"]["params_nonzero"] == [100, 101]
    assert group["cost"]["cpu_s"] == [None, None]
    assert comparison_record(compared(*runs)[0]) == record  # repeats exactly


def test_a_section_says_why_an_interval_is_missing_and_draws_the_rest(made: Make) -> None:
    runs = [made(0, 4, seed=0), made(0, 8, seed=1), made(0, 6, algo="td3", result={"density": 1.0})]
    section = comparison_section(comparison_record(compared(*runs)[0]))
    assert "no interval (td3): one run" in section.notes
    assert "no interval of P(better): one run of the baseline" in section.notes
    assert any("probability that a run beats one of the baseline, td3" in note for note in section.notes)
    assert any(note.startswith("fewer than 5 runs (ds_td3)") for note in section.notes)
    scores, cost = section.tables
    assert scores.columns == ["group", "mean", "median", "IQM", "P(better)"]
    assert scores.rows[:2] == [
        ["ds_td3 (2 seeds)", "", "", "", ""],
        ["  final return", *["6.00\n[4.00, 8.00]"] * 3, "0.50"],
    ]
    assert scores.rows[4:6] == [[], ["td3 (1 seed)", "", "", "", ""]]
    assert cost.columns == ["group", "density", "non-zero\nparameters", "FLOPs of\ntraining", "wall time (s)"]
    assert cost.rows[1] == ["td3 (1 seed)", "1.000", "100", "1M", "10"]
    kinds = [type(chart.drawing) for chart in section.charts]
    assert kinds == [LineChart, LineChart, IntervalChart, IntervalChart, ScatterChart, ScatterChart]
    curves, _, finals, improved, sizes, _ = (chart.drawing for chart in section.charts)
    assert isinstance(curves, LineChart)
    assert [(line.label, list(line.y), line.low) for line in curves.lines][1] == ("td3", [0, 6], None)
    assert isinstance(finals, IntervalChart)
    assert [(row.label, row.value, row.low, row.high) for row in finals.rows] == [
        ("ds_td3", 6, 4, 8),
        ("td3", 6, None, None),
    ]
    assert isinstance(improved, IntervalChart)
    assert [row.label for row in improved.rows] == ["ds_td3"]
    assert isinstance(sizes, ScatterChart)
    assert [(point.x, point.y) for point in sizes.points] == [(100.5, 6), (100, 6)]


def test_one_group_is_compared_with_nothing(made: Make) -> None:
    section = comparison_section(comparison_record(compared(made(0, 4))[0]))
    assert section.tables[0].columns == ["group", "mean", "median", "IQM"]
    assert "no interval: one run" in section.notes
    assert not any("P(better)" in note for note in section.notes)


def test_a_cost_that_was_not_recorded_is_left_out(made: Make) -> None:
    runs = [made(0, 4, seed=0, result={"flops_train": None}), made(0, 4, seed=1)]
    section = comparison_section(comparison_record(compared(*runs)[0]))
    assert section.tables[1].rows[0][3] == "-"
    assert [chart.title for chart in section.charts][-1] == "Return against non-zero parameters"
