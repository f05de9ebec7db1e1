"""`sparserl bench return`: what is a time, what is passed, and that a benchmark goes on where it was stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparserl.agents.evaluation import Evaluator
from sparserl.bench import return_run, returns
from sparserl.bench.contenders import Entry, said_missing
from sparserl.bench.figures import return_figure
from sparserl.bench.options import ReturnOptions, RunSettings
from sparserl.bench.return_agents import make_learner, preset_of
from sparserl.bench.return_run import WARM_UP, Run, Spent, Stopwatch, Task, compiling, learn, passed
from sparserl.bench.returns import extent, finished, outcome, runs_of, summary, train
from sparserl.bench.tables import return_tables
from sparserl.cli import main
from sparserl.cli.bench import BENCHMARKS
from sparserl.config import PRESETS, build, load_yaml, plain
from sparserl.envs import make_env
from sparserl.errors import ConfigError
from sparserl.json_text import json_text

SETTINGS = RunSettings("Pendulum-v1", 1, (-1900.0, -1e-9), 60.0, 90, 30, 1, 20)
SMALL = "--env Pendulum-v1 --threads 1 --returns -1900 -1e-9 --limit-s 60 --max-steps 90 --eval-every 30 --episodes 1"
GRID = f"{SMALL} --learning-starts 20 --only td3 ds_td3 --densities 0.5"

# --- worked by hand ---------------------------------------------------------------------------------


def test_a_return_is_passed_by_the_mean_of_three_in_a_row() -> None:
    evaluations = [9.0, 0.0, 0.0, 3.0, 6.0, 9.0, 0.0]  # means from the third on: 3, 1, 3, 6, 5
    assert passed(evaluations, 2.9) == 2
    assert passed(evaluations, 3.0) == 5, "passed is more than reached"
    assert passed(evaluations, 5.9) == 5
    assert passed(evaluations, 6.0) is None
    assert passed([100.0, 100.0], 1.0) is None, "two are not three"


def test_compiling_is_what_the_first_steps_took_beyond_the_following() -> None:
    steps = [7.0, 1.5, 0.5, 1.0, 2.0, 1.0, 50.0]
    assert compiling(steps, warm_up=3) == pytest.approx(9.0 - 3 * 1.0), "the median of 1, 2, 1; 50 is not among them"
    assert compiling(steps, 1, warm_up=3) == pytest.approx(6.0)
    assert compiling([7.0, 1.5, 0.5], warm_up=3) == pytest.approx(9.0 - 3 * 0.5), "nothing follows: the quickest"
    assert compiling([1.0, 1.0, 4.0], warm_up=2) == 0.0, "never negative"
    assert compiling([]) == 0.0


class Learner:
    """Stands in for an agent: steps cost time on a clock of its own, and learning begins after some of them."""

    def __init__(self, starts: int, cost: Callable[[int], float]) -> None:
        self.num_timesteps = self._n_updates = 0
        self.wall, self._starts, self._cost = 0.0, starts, cost

    def clock(self) -> Spent:
        return Spent(self.wall, 2 * self.wall)

    def learn(self, steps: int, watch: Stopwatch) -> None:
        watch.init_callback(self)  # type: ignore[arg-type]
        watch.on_training_start({}, {})
        for step in range(1, steps + 1):
            self.wall += 1.0
            self.num_timesteps = step
            if not watch.on_step():
                break
            if step > self._starts:
                self._n_updates += 1
                self.wall += self._cost(self._n_updates)
        watch.on_training_end()


def watched(returns: list[float], settings: RunSettings, steps: int) -> dict[str, Any]:
    """The record of a stand-in: 1 s a step, 2 s an update, the first of which take 100 s; evaluations take 1,000 s."""
    learner = Learner(starts=10, cost=lambda update: 100.0 if update <= 2 else 2.0)
    waiting = iter(returns)

    def evaluate(agent: Any) -> list[float]:
        assert agent is learner
        learner.wall += 1000.0
        value = next(waiting)
        return [value - 1.0, value + 1.0]

    watch = Stopwatch(settings, evaluate, clock=learner.clock)
    learner.learn(steps, watch)
    return watch.record()


def test_seconds_are_without_evaluations_and_compiling() -> None:
    settings = replace(SETTINGS, eval_every=12, returns=(15.0, 25.0, 99.0), limit_s=3600.0)
    record = watched([0.0, 10.0, 20.0, 30.0, 40.0], settings, 60)
    # Up to step 12: 12 steps and the update after step 11; each 12 steps more: 12 steps and 12 updates.
    assert [one["seconds"] for one in record["evaluations"]] == pytest.approx([14.0, 50.0, 86.0, 122.0, 158.0])
    assert [one["cpu_seconds"] for one in record["evaluations"]] == pytest.approx([28.0, 100.0, 172.0, 244.0, 316.0])
    assert [one["mean_of_three"] for one in record["evaluations"]] == [None, None, 10.0, 20.0, 30.0]
    assert record["evaluations"][1]["returns"] == [9.0, 11.0]
    first, second, third = record["reached"]
    assert first == {"return": 15.0, "step": 48, "seconds": pytest.approx(122.0), "cpu_seconds": pytest.approx(244.0)}
    assert (second["step"], second["seconds"]) == (60, pytest.approx(158.0))
    assert third == {"return": 99.0, "step": None, "seconds": None, "cpu_seconds": None}
    assert record["best_mean_of_three"] == 30.0
    assert (record["ended"], record["steps"], record["updates"]) == ("steps", 60, 50)
    assert record["seconds"] == pytest.approx(60 + 50 * 2), "with the update after the last step"
    assert record["compiling_in_first_updates_s"] == pytest.approx(2 * 98.0)
    assert record["evaluation_s"] == pytest.approx(5000.0)


def test_a_run_ends_when_the_highest_return_is_passed() -> None:
    record = watched([20.0] * 9, replace(SETTINGS, eval_every=12, returns=(5.0, 15.0), limit_s=3600.0), 200)
    assert (record["ended"], record["steps"]) == ("returns", 36)
    assert [one["step"] for one in record["reached"]] == [36, 36]


def test_a_run_ends_at_its_limit_of_training_seconds() -> None:
    record = watched([0.0] * 99, replace(SETTINGS, eval_every=12, returns=(5.0,), limit_s=200.0), 500)
    # Before step n there are n - 11 updates of 2 s: n + 2 (n - 11) >= 200 from step 74 on.
    assert (record["ended"], record["steps"]) == ("limit", 74)
    assert record["seconds"] == pytest.approx(200.0)
    assert record["reached"][0]["step"] is None
    assert record["best_mean_of_three"] == 0.0


def test_a_run_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    run = Run(Entry("td3", 1.0), 0, SETTINGS)
    task = Task(run, tmp_path / "run.json", parent=os.getppid() + 1, started_at=time.time(), say=False)
    assert return_run.main([json_text(plain(task))]) == 1
    assert not task.path.exists()


def test_the_extent_of_numbers_of_which_some_are_only_bounds() -> None:
    assert extent([30.0, 10.0, 20.0], []) == {"median": 20.0, "min": 10.0, "max": 30.0, "above": []}
    assert extent([30.0], [40.0, 50.0]) == {"median": 40.0, "min": 30.0, "max": 50.0, "above": ["median", "max"]}
    assert extent([10.0, 30.0], [20.0]) == {"median": 30.0, "min": 10.0, "max": 30.0, "above": ["max"]}
    assert extent([], [7.0, 9.0]) == {"median": 8.0, "min": 7.0, "max": 9.0, "above": ["median", "min", "max"]}
    assert extent([10.0], [20.0]) == {"median": 15.0, "min": 10.0, "max": 20.0, "above": ["median", "max"]}


def of_seed(seed: int, seconds: float | None, best: float = 4000.0, pairs: int = 1) -> dict[str, Any]:
    at = {"step": None if seconds is None else 50_000, "seconds": seconds}
    reached = [{"return": 3000.0, **at, "cpu_seconds": None if seconds is None else 2 * seconds}]
    whole = {"steps": 90_000, "seconds": 600.0, "cpu_seconds": 1200.0, "best_mean_of_three": best}
    return {"contender": "ds_td3", "density": 0.1, "pairs": pairs, "seed": seed, "reached": reached, **whole}


def test_who_did_not_get_there_is_not_dropped() -> None:
    records = [of_seed(0, 100.0), of_seed(1, None, best=2345.0), of_seed(2, 300.0)]
    (row,) = summary(records, [3000.0])
    assert (row["reached"], row["runs"], row["best_of_others"]) == (2, 3, [2345.0])
    assert row["seconds"] == {"median": 300.0, "min": 100.0, "max": 600.0, "above": ["max"]}
    assert row["cpu_seconds"] == {"median": 600.0, "min": 200.0, "max": 1200.0, "above": ["max"]}
    assert row["step"] == {"median": 50_000.0, "min": 50_000.0, "max": 90_000.0, "above": ["max"]}
    (table,) = return_tables({"summary": [row]})
    said = [list(column.cells) for column in table.columns]
    assert said == [
        ["ds_td3"],
        ["0.1"],
        ["2/3"],
        ["300 [100, >600]"],
        ["600 [200, >1200]"],
        ["50 [50, >90]"],
        ["2345"],
    ]
    rows = summary([*records, of_seed(0, 50.0, pairs=2)], [3000.0])
    assert [(row["pairs"], row["runs"]) for row in rows] == [(1, 3), (2, 1)]
    (table,) = return_tables({"summary": rows})
    assert list(table.columns[2].cells) == ["1", "2"]
    assert outcome(records[1]) == "3000 not in 600 s and 90,000 steps (best mean of three 2345)"
    assert outcome(records[0]).startswith("3000 after 100 s")


# --- agents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_dense_and_sparse_twins_learn_with_the_same_settings(algo: str) -> None:
    dense, ours = (
        load_yaml(PRESETS / f"{preset_of(name, 'HalfCheetah-v5')}.yaml")["agent"] for name in (algo, f"ds_{algo}")
    )
    assert dense == ours


def test_the_presets_of_the_env_come_first() -> None:
    assert preset_of("ds_td3", "HalfCheetah-v5") == "ds_td3/HalfCheetah-v5"
    assert preset_of("ds_sac", "HalfCheetah-v5") == "ds_sac/HalfCheetah-v5"
    assert [preset_of(algo, "Pendulum-v1") for algo in ("td3", "ds_sac")] == ["td3/default", "ds_sac/default"]


@pytest.mark.parametrize(
    ("contender", "density"), [("td3", 1.0), ("sac", 1.0), ("ds_td3", 0.3), ("ds_sac", 0.3), ("ds_crossq", 0.05)]
)
def test_an_evaluation_changes_nothing_that_is_learned(contender: str, density: float) -> None:
    def weights(eval_every: int) -> dict[str, torch.Tensor]:
        settings = replace(SETTINGS, eval_every=eval_every, max_steps=45)
        env = make_env(settings.env)
        agent, _ = make_learner(Entry(contender, density), env, 3, settings)
        evaluator = Evaluator(lambda: make_env(settings.env), 2, seed=5)
        watch = Stopwatch(settings, lambda model: evaluator(model).returns)
        agent.learn(45, callback=watch)
        evaluator.close()
        assert len(watch.evaluations) == 45 // eval_every
        return agent.policy.state_dict()

    often, never = weights(11), weights(46)
    assert all(torch.equal(often[name], never[name]) for name in never)
    assert often.keys() == never.keys()


def test_a_record_says_what_an_agent_was_built_with() -> None:
    agent, said = make_learner(
        Entry("ds_td3", 0.3, 2), make_env("Pendulum-v1"), 0, replace(SETTINGS, learning_starts=None)
    )
    assert (said["source"], said["batch_size"], said["learning_starts"]) == ("preset ds_td3/default", 100, 25_000)
    assert said["policy"] == {"net_arch": [256, 256], "optimizer_kwargs": {"weight_decay": 2e-4}}
    assert "sigma=[0.1]" in said["action_noise"]
    assert said["topology"]["density"] == agent.topology.density == 0.3  # type: ignore[attr-defined]
    assert said["topology"]["pairs"] == agent.topology.pairs == 2  # type: ignore[attr-defined]
    agent, said = make_learner(Entry("ds_td3", 1.0), make_env("Pendulum-v1"), 0, SETTINGS)
    assert (said["topology"]["method"], said["learning_starts"]) == ("dense", 20)
    _, said = make_learner(Entry("sac", 1.0), make_env("Pendulum-v1"), 0, SETTINGS)
    assert (said["source"], said["ent_coef"], said["action_noise"]) == ("preset sac/default", "auto", None)
    assert "topology" not in said


# --- from the command line --------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained, in this process."""
    names: list[str] = []

    def here(run: Run, folder: Path, say: bool) -> str:
        names.append(run.file_name)
        (folder / run.file_name).write_text(json_text({**learn(run, print, lambda: True), "importing_s": 1.0}))
        return ""

    monkeypatch.setattr(returns, "train", here)
    return names


def test_return(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder, found, picture = tmp_path / "runs" / "x", tmp_path / "found.json", tmp_path / "found.png"
    words = ["bench", "return", *GRID.split(), "--folder", str(folder), "--json", str(found), "--plot", str(picture)]
    assert main([*words, "--seeds", "0"]) == 0
    assert trained == ["td3-s0.json", "ds_td3-d0.5-s0.json"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    record = json.loads(found.read_text())
    assert [(run["contender"], run["density"], run["seed"]) for run in record["runs"]] == [
        ("td3", 1.0, 0),
        ("ds_td3", 0.5, 0),
    ]
    for run in record["runs"]:
        assert {"hyper_parameters", "versions", "installed", "importing_s", "compiling_before_s"} <= set(run)
        assert [one["step"] for one in run["evaluations"]] == [30, 60, 90]
        assert (run["ended"], run["steps"], run["updates"]) == ("steps", 90, 70)
        assert run["reached"][0]["step"] == 90, "no policy is as bad as -1,900"
        assert run["reached"][1]["step"] is None
        assert 0 < run["reached"][0]["seconds"] <= run["seconds"]
    assert len(record["summary"]) == 4
    printed = capsys.readouterr().out
    assert "…" not in printed, "tables are whole however narrow the terminal is"
    assert "-1900 after" in printed
    assert "until the mean of three evaluations passes -1900" in printed

    first = (folder / "td3-s0.json").read_bytes()
    (folder / "ds_td3-d0.5-s0.json").unlink()  # as if it had been killed halfway
    trained.clear()
    assert main([*words, "--seeds", "0", "1"]) == 0
    assert trained == ["ds_td3-d0.5-s0.json", "td3-s1.json", "ds_td3-d0.5-s1.json"]
    assert (folder / "td3-s0.json").read_bytes() == first, "a finished run is not repeated"
    assert len(json.loads(found.read_text())["runs"]) == 4
    assert f"td3, seed 0: is in {folder}" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == sorted(["td3-s0.json", *trained]), "the lock is gone"

    assert main([*words, "--seeds", "0", "--eval-every", "20"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1
    assert "td3-s0.json is of a run with --eval-every 30, not 20; choose another --folder" in refusal
    assert main([*words, "--seeds", "0", "--returns", "-1900", "5"]) == 2
    assert "--returns -1900.0 -1e-09, not -1900.0 5.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("x", "column", "label"),
    [
        ("seconds", "seconds", "seconds of training"),
        ("cpu", "cpu_seconds", "CPU seconds"),
        ("steps", "step", "env steps"),
    ],
)
def test_the_picture_is_drawn_over_what_is_asked_for(
    x: str, column: str, label: str, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    entry = replace(BENCHMARKS["return"], figure=lambda record: drawn.append(record) or return_figure(record))
    monkeypatch.setitem(BENCHMARKS, "return", entry)
    words = [*GRID.split(), "--only", "td3", "--seeds", "0", "--folder", str(tmp_path / "runs"), "--x", x]
    assert main(["bench", "return", *words, "--plot", str(tmp_path / "found.png")]) == 0
    (axis,) = return_figure(drawn[0]).axes
    (line, *_) = axis.get_lines()
    evaluations = drawn[0]["runs"][0]["evaluations"]
    assert list(line.get_xdata()) == [one[column] for one in evaluations if one["mean_of_three"] is not None]
    assert axis.get_xlabel().startswith(label)


def test_without_a_picture_it_is_drawn_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "return", "--x", "cpu", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "sparserl: --x cpu has no effect without --plot\n"


def test_runs_that_fail_are_said_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here = returns.train
    monkeypatch.setattr(returns, "train", lambda run, *rest: "killed" if run.seed == 0 else here(run, *rest))
    words = ["bench", "return", *GRID.split(), "--only", "td3", "--seeds", "0", "1", "--folder", str(tmp_path)]
    assert main([*words, "--json", str(tmp_path / "found")]) == 1
    assert trained == ["td3-s1.json"]
    record = json.loads((tmp_path / "found").read_text())
    assert record["failed"] == ["td3, seed 0: killed"]
    assert [run["seed"] for run in record["runs"]] == [1]
    assert "td3, seed 0: killed; no numbers" in capsys.readouterr().out


def test_ctrl_c_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here = returns.train

    def second_is_interrupted(run: Run, *rest: Any) -> str:
        if trained:
            raise KeyboardInterrupt
        return here(run, *rest)

    monkeypatch.setattr(returns, "train", second_is_interrupted)
    words = ["bench", "return", *GRID.split(), "--only", "td3", "--folder", str(tmp_path)]
    assert main(words) == 130
    assert f"interrupted; 1 of 3 runs are in {tmp_path}, and the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_has_a_process_of_its_own(tmp_path: Path) -> None:
    run = Run(Entry("td3", 1.0), 0, SETTINGS)
    assert train(run, tmp_path, say=False) == ""
    record = finished(tmp_path, run)
    assert record is not None
    assert record["steps"] == 90
    assert record["importing_s"] > 0
    assert record["versions"]["threads"] == 1


def test_why_a_process_has_failed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns.sys, "executable", "false")
    run = Run(Entry("td3", 1.0), 0, SETTINGS)
    assert train(run, tmp_path, say=False) == "exit status 1"
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho first >&2\necho 'unknown environment' >&2\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setattr(returns.sys, "executable", str(failing))
    assert train(run, tmp_path, say=False) == "unknown environment"
    assert not (tmp_path / run.file_name).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"contender": "td3", "density": 1.0, "pairs": 1, "seed": 7}', '{"contender": "td3"']
)
def test_a_file_that_is_no_record_of_the_run_is_refused(text: str, tmp_path: Path) -> None:
    run = Run(Entry("td3", 1.0), 0, SETTINGS)
    (tmp_path / run.file_name).write_text(text)
    with pytest.raises(ConfigError, match=r"td3-s0\.json"):
        finished(tmp_path, run)


def test_without_sbx_the_others_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(returns, "is_missing", lambda name: name.startswith("sbx_"))
    runs, notes = runs_of(ReturnOptions(seeds=(4, 2)))
    assert notes == [said_missing("sbx_td3"), said_missing("sbx_crossq")]
    assert "pip install" in notes[1]
    ours = [f"{name} {density}" for name in ("ds_td3", "ds_sac", "ds_crossq") for density in (0.5, 0.1, 0.05)]
    labels = ["td3", "sac", *ours]
    assert [(run.seed, run.entry.label) for run in runs] == [(seed, label) for seed in (4, 2) for label in labels]
    assert len({run.file_name for run in runs}) == len(runs)
    paired, _ = runs_of(ReturnOptions(only=("ds_td3",), densities=(1.0, 0.1), pairs=(1, 4), seeds=(0,)))
    assert [run.title for run in paired] == ["ds_td3 1.0, seed 0", "ds_td3 0.1, seed 0", "ds_td3 0.1, pairs 4, seed 0"]
    assert [run.file_name for run in paired] == ["ds_td3-d1.0-s0.json", "ds_td3-d0.1-s0.json", "ds_td3-d0.1-p4-s0.json"]
    with pytest.raises(ConfigError, match="sbx_crossq: sbx is not installed"):
        runs_of(ReturnOptions(only=("sbx_crossq",)))


def test_returns_are_sorted_and_tasks_survive_json(tmp_path: Path) -> None:
    options = ReturnOptions(returns=(7000.0, 3000.0), folder=tmp_path)
    assert options.returns == (3000.0, 7000.0)
    task = Task(Run(Entry("ds_sac", 0.05, 2), 3, options.settings), tmp_path / "x.json", 1, 2.0, True)
    assert build(Task, json.loads(json_text(plain(task)))) == task


def test_the_warm_up_covers_a_period_of_every_agent() -> None:
    assert WARM_UP >= 2 * 3, "SBX compiles CrossQ anew for each of three places in the delay of the policy"


def test_an_env_without_bounded_actions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "return", "--env", "CartPole-v1", "--folder", str(tmp_path / "x")]) == 2
    assert "CartPole-v1" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
