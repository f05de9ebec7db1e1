"""Continual runs of classifiers: what is read, grouped and averaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparserl.errors import ConfigError
from sparserl.metrics.continual import summary
from sparserl.report.document import IntervalChart, LineChart, Point, ScatterChart
from sparserl.report.supervised import SupervisedRun, read_supervised_run, supervised_records, supervised_section

Make = Callable[..., SupervisedRun]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Writes the result of a run on two tasks, and reads it."""

    def make(first: float, end: float, *, scenario: str = "class", without: str = "", **config: Any) -> SupervisedRun:
        path = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        found = summary([[first, 0.25], [end, 0.75]], samples=[10, 30], baseline=None)
        metrics = ("acc", "acc_weighted", "bwt", "forgetting_final", "forgetting_max", "learning_accuracy")
        result = {
            **{name: getattr(found, name) for name in (*metrics, "average_incremental_accuracy")},
            "fwt": None,
            "undefined": {"fwt": found.undefined["fwt"]},
            "params_nonzero_per_task": [30, 60],
            "wall_s": 10.0,
            **({} if config.get("method") == "ewc" else {"numbers_kept": 70}),
        }
        result.pop(without, None)
        (path / "result.json").write_text(json.dumps(result))
        measured = f"9,0,0,{first},10\n9,0,1,,30\n18,1,0,{end},10\n18,1,1,0.75,30\n"
        (path / "eval.csv").write_text("global_step,after_task,task,accuracy,samples\n" + measured)
        settings = {"sequence": "split_made_up", "method": "naive", "seed": 0, **config}
        return read_supervised_run(path, settings["sequence"], scenario, settings["method"], settings)

    return make


def test_groups_of_seeds_by_hand(made: Make) -> None:
    runs = [made(0.8, 0.25, seed=1), made(1.0, 0.75, seed=0), made(1.0, 0.75, method="ewc", seed=4)]
    (record,) = supervised_records(runs)
    naive, ewc = record["groups"]
    assert record["protocol"] == "split_made_up, class-incremental: 2 tasks"
    assert (naive["label"], naive["seeds"], naive["runs"]) == ("naive", [0, 1], [str(runs[1].path), str(runs[0].path)])
    acc = naive["metrics"]["acc"]
    assert acc["values"] == [0.75, 0.5]
    assert acc["mean"] == acc["median"] == acc["iqm"] == {"value": 0.625, "low": 0.5, "high": 0.75}
    assert naive["metrics"]["bwt"]["mean"]["value"] == pytest.approx(-0.4)
    assert naive["metrics"]["forgetting_final"]["mean"]["value"] == pytest.approx(0.4)
    assert naive["metrics"]["fwt"] is None
    assert [one["value"] for one in naive["accuracy_seen"]] == pytest.approx([0.9, 0.625])
    assert ewc["metrics"]["acc"]["mean"] == {"value": 0.75, "low": None, "high": None}
    assert supervised_records(runs) == [record]  # repeats exactly


def test_scenarios_are_not_compared(made: Make) -> None:
    runs = [made(1.0, 0.5, scenario=scenario) for scenario in ("class", "task")]
    assert [len(record["groups"]) for record in supervised_records(runs)] == [1, 1]


def test_a_section_shows_means_and_says_what_is_missing(made: Make) -> None:
    runs = [made(0.8, 0.25, seed=1), made(1.0, 0.75, seed=0), made(1.0, 0.75, method="ewc")]
    section = supervised_section(supervised_records(runs)[0])
    (table,) = section.tables
    assert table.columns[:4] == ["method", "ACC", "BWT", "FWT"]
    assert table.rows[0][:4] == ["naive (2 seeds)", "0.625\n[0.500, 0.750]", "-0.400\n[-0.550, -0.250]", "-"]
    assert table.rows[1][:3] == ["ewc (1 seed)", "0.750", "-0.250"]
    assert table.rows[0][-3:] == ["30 .. 60", "70", "10"]
    assert table.rows[1][-3:] == ["30 .. 60", "-", "10"]  # a run of before numbers were counted
    assert "no interval (ewc): one run" in section.notes
    assert any(
        note.startswith("no FWT (naive; ewc): no performance at random initialisation") for note in section.notes
    )
    seen, frontier, acc, forgetting = (chart.drawing for chart in section.charts)
    assert isinstance(acc, IntervalChart)
    assert isinstance(forgetting, IntervalChart)
    assert isinstance(seen, LineChart)
    assert [(row.label, row.value) for row in acc.rows] == [("naive", 0.625), ("ewc", 0.75)]
    assert isinstance(frontier, ScatterChart)
    assert frontier.points == [Point("naive", 70.0, 0.625, 0.5, 0.75)]
    assert [list(line.x) for line in seen.lines] == [[1, 2], [1, 2]]
    assert seen.lines[0].low == pytest.approx([0.8, 0.5])
    assert seen.lines[1].low is None


def test_bad_input(made: Make) -> None:
    with pytest.raises(ConfigError, match=r"run0/result\.json has no bwt$"):
        made(1.0, 0.5, without="bwt")
    with pytest.raises(ConfigError, match="are both seed 0 of naive"):
        supervised_records([made(1.0, 0.5), made(1.0, 0.5)])
