"""trackio, for real: what a run logs is read back by its own storage, once, also after a resume."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.cut_runs import cut_off
from support.runs import ALGOS, FAST, REWIRE, TINY, fingerprint, last_state, rows, train
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.experiment.recorded_run import trackers as trackers_of
from sparserl.extras import installer
from sparserl.recording.metrics_table import columns
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.trackio_tracker import ELSEWHERE, NAME_FILE, TrackioConfig, TrackioTracker

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")
TRACKED = ("--track", "trackio", "--trackio.project", "of tests")
OF_THE_MACHINE = ("time/", "cost/cpu_s", "cost/memory", "result/", "timestamp")


@pytest.fixture(scope="module")
def trackio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """trackio with a folder of its own, which it reads from the environment when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        for variable in ELSEWHERE:
            patch.delenv(variable, raising=False)
        trackio = pytest.importorskip("trackio")
        assert str(trackio.TRACKIO_DIR) == os.environ["TRACKIO_DIR"], "imported before"
        yield trackio


def logged(trackio: Any, folder: Path, project: str = "of tests") -> list[dict[str, Any]]:
    """What trackio has of a run."""
    found: list[dict[str, Any]] = trackio.SQLiteStorage.get_logs(project, (folder / NAME_FILE).read_text().strip())
    return found


def values(history: list[dict[str, Any]]) -> Counter[tuple[int, str, float]]:
    """How often each value of each step was logged, without what differs from run to run."""
    return Counter(
        (row["step"], name, value)
        for row in history
        for name, value in row.items()
        if name != "step" and not name.startswith(OF_THE_MACHINE)
    )


def test_a_run_is_read_back_under_the_names_of_the_table(trackio: Any, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert train(run, *FAST, *ALGOS["ds_td3"], *TRACKED) == 0
    said = capsys.readouterr().out
    assert "tracked as Tiny-v0__ds_td3__d0.5__s0: trackio show --project 'of tests'" in said
    assert "* " not in said
    history = logged(trackio, run)
    once = values(history)
    assert set(once.values()) == {1}
    progress = rows(run / "progress.csv")
    for row in progress:
        for name in columns("train")[1:]:
            if row[name] and not name.startswith(OF_THE_MACHINE):
                assert once[int(row["global_step"]), name, float(row[name])] == 1
    evaluated = {step: value for step, name, value in once if name == "eval/return_mean"}
    assert sorted(evaluated) == [0, 50, 100, 130]
    assert {name for _, name, _ in once} >= {"learning/actor/weight_norm", "topology/critic.qf0.0/density"}
    result = json.loads((run / "result.json").read_text())
    (last,) = [row for row in history if "result/return_last" in row]
    assert (last["step"], last["result/return_last"]) == (130, result["return_last"])
    (config,) = [one.config for one in trackio.Api().runs("of tests") if one.name == "Tiny-v0__ds_td3__d0.5__s0"]
    assert config["topology"]["update_interval"] == 20

    # The same command again is a run of its own, and learns as one that is not tracked.
    assert train(tmp_path / "again", *FAST, *ALGOS["ds_td3"], *TRACKED) == 0
    assert (tmp_path / "again" / NAME_FILE).read_text() == "Tiny-v0__ds_td3__d0.5__s0__2\n"
    assert values(logged(trackio, tmp_path / "again")) == once
    assert train(tmp_path / "plain", *FAST, *ALGOS["ds_td3"]) == 0
    states = [last_state(tmp_path / name) for name in ("plain", "again")]
    for state in states:
        state.pop("run")
    assert_equal_trees(*states)


@pytest.mark.parametrize("lost", [0, 60, 100])  # the checkpoint is of step 90: rows before it are not logged again
def test_a_resumed_run_is_appended_and_nothing_is_there_twice(lost: int, trackio: Any, tmp_path: Path) -> None:
    words = [*FAST, *REWIRE, *TRACKED]
    assert train(tmp_path / "whole", *words) == 0
    cut = cut_off("agent", tmp_path / "cut", ["train", *TINY, *words, "--run-dir", str(tmp_path / "cut")])
    trackio.finish()  # as if the process were gone
    name = (cut / NAME_FILE).read_text().strip()
    if lost:  # what was not on disk yet when it was killed
        with closing(sqlite3.connect(trackio.SQLiteStorage.get_project_db_path("of tests"))) as database, database:
            gone = database.execute("DELETE FROM metrics WHERE run_name = ? AND step > ?", (name, lost))
            assert gone.rowcount > 0
    assert main(["train", "--resume", str(cut), "--from-step", "90", "--no-progress"]) == 0
    assert (cut / NAME_FILE).read_text().strip() == name
    assert values(logged(trackio, cut)) == values(logged(trackio, tmp_path / "whole"))


def test_without_trackio_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert train(tmp_path / "run", *FAST, *TRACKED) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sparserl: trackio is not installed; {installer()} ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_stops_it_at_the_start_is_one_line(trackio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError("Read-only\n file system")

    monkeypatch.setattr(trackio, "init", refuse)
    with pytest.raises(ConfigError, match=r"^trackio did not start \(Read-only file system\); without --track trackio"):
        TrackioTracker(TrackioConfig("p"), folder=tmp_path, name="a", group="a", run_config={})
    assert not (tmp_path / NAME_FILE).exists()


def test_what_refuses_to_go_on_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, trackio: Any
) -> None:
    run = tmp_path / "run"
    assert train(run, "--algo", "td3", *FAST, *TRACKED) == 0
    before = fingerprint(run)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "trackio", None)
        assert main(["train", "--resume", str(run), "--total-steps", "160", "--no-progress"]) == 2
    assert "trackio is not installed" in capsys.readouterr().err
    assert fingerprint(run) == before
    assert main(["train", "--resume", str(run), "--total-steps", "160", "--no-progress"]) == 0


def test_runs_of_a_sweep_have_names_of_their_own_from_the_beginning(trackio: Any, tmp_path: Path) -> None:
    """Two that begin at the same time each find the name free: trackio knows one with its first row alone."""
    name = "E__m__s0"
    trackers = []
    for folder in (tmp_path / f"{name}__0123456789", tmp_path / f"{name}__9876543210"):
        folder.mkdir()
        config = SimpleNamespace(
            tensorboard=False, name="E__m", seed=0, tracked_at="trackio", trackio=TrackioConfig("together")
        )
        trackers += trackers_of(config, RunFolder(folder), run_config={}, job_type="train", resumed_at=None)
    for number, tracker in enumerate(trackers):
        tracker.log(1, {"a": float(number)})
        tracker.close({})
    assert set(trackio.SQLiteStorage.get_runs("together")) == {f"{name}__0123456789", f"{name}__9876543210"}
