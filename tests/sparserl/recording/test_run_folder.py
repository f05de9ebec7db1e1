"""The run folder and its CSV logs."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from support.runs import rows

from sparserl import __version__
from sparserl.errors import CheckpointError, ConfigError
from sparserl.experiment.recorded_run import folder_name
from sparserl.recording import run_folder as records
from sparserl.recording.run_folder import (
    CsvLog,
    RunFolder,
    check_is_of_run,
    full_checkpoints,
    remove_stale_checkpoints,
    step_in,
    step_name,
    versions,
    write_atomically,
)
from sparserl.recording.snapshots import snapshot_files, snapshot_step


def create(path: Path) -> RunFolder:
    return RunFolder.create(path, config_yaml="seed: 0\n", command="sparserl train", threads=1)


def test_a_log_is_a_csv_file_whose_rows_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    log = CsvLog(path, ["step", "name", "value"])
    assert path.read_text().strip() == "step,name,value"
    log.write([{"step": 1, "value": np.float64(0.1)}, {"step": 2, "name": 'a,"b"'}])
    assert rows(path) == [
        {"step": "1", "name": "", "value": "0.1"},
        {"step": "2", "name": 'a,"b"', "value": ""},
    ]
    log.write([])
    assert log.size_bytes == path.stat().st_size


def test_a_log_goes_on_where_it_was_and_can_be_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    CsvLog(path, ["step"]).write([{"step": 1}])
    log = CsvLog(path, ["step"])
    size = log.size_bytes
    log.write([{"step": 2}, {"step": 3}])
    log.truncate(size)
    log.write([{"step": 4}])
    assert [row["step"] for row in rows(path)] == ["1", "4"]


def test_a_file_of_before_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    CsvLog(path, ["step", "loss"]).write([{"step": 1, "loss": 0.5}])
    log = CsvLog(path, ["step", "norm", "loss"])
    assert log.columns == ["step", "loss"]
    log.write([{"step": 2, "loss": 0.25}])
    assert path.read_text().split() == ["step,loss", "1,0.5", "2,0.25"]


def test_an_unknown_column_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "x.csv", ["step"])
    before = log.size_bytes
    with pytest.raises(ValueError, match="spet"):
        log.write([{"step": 1}, {"spet": 2}])
    assert log.size_bytes == before


def test_a_new_folder_holds_what_defines_the_run(tmp_path: Path) -> None:
    folder = create(tmp_path / "a" / "b")
    assert (folder.path / "config.yaml").read_text() == "seed: 0\n"
    assert (folder.path / "command.txt").read_text() == "sparserl train\n"
    found = json.loads((folder.path / "versions.json").read_text())
    assert found["threads"] == 1
    assert {"python", "torch", "numpy", "gymnasium", "mujoco", "stable_baselines3", "numba", "cpu", "commit"} <= set(
        found
    )
    assert found["torch"] is not None
    assert all(part.is_dir() for part in (folder.checkpoints, folder.snapshots))
    assert not folder.is_done


def test_an_existing_folder_or_file_is_left_alone(tmp_path: Path) -> None:
    create(tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    for name in ("run", "file"):
        with pytest.raises(ConfigError, match=f"{name} exists; choose another --run-dir, or continue it with --resume"):
            create(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot create .*Not a directory"):
        create(tmp_path / "file" / "run")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot create .*: Permission denied"):
        create(tmp_path / "run")


def test_finish_writes_the_result_then_the_picture_and_then_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomically", lambda path, text: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            folder.finish({"a": 1}, Path.touch)
    assert not folder.is_done

    def draw(path: Path) -> None:
        assert (folder.path / "result.json").exists()
        assert not folder.is_done
        path.write_text("a picture")

    with pytest.raises(ZeroDivisionError):
        folder.finish({"a": 1}, lambda path: 1 / 0)
    assert not folder.is_done
    folder.finish({"a": 1}, draw)
    assert folder.is_done
    assert (folder.path / "plot.png").read_text() == "a picture"
    assert json.loads((folder.path / "result.json").read_text()) == {"a": 1}


def test_opening_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder at"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"is not a run folder: it has no config\.yaml"):
        RunFolder.open(tmp_path)
    assert RunFolder.open(create(tmp_path / "run").path).path == tmp_path / "run"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.CalledProcessError(128, "git")])
def test_without_git_the_commit_is_unknown(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    found = versions(2)
    assert (found["commit"], found["dirty"], found["threads"]) == (None, None, 2)


def test_the_commit_is_that_of_sparserl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of a checkout in which it is installed."""
    package = tmp_path / ".venv" / "lib" / "run_folder.py"
    package.parent.mkdir(parents=True)
    package.touch()
    own = ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "theirs"]
    for words in (["init", "-q"], own):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(records, "__file__", str(package))
    found = versions(2)
    assert (found["commit"], found["dirty"]) == (None, None)


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=importlib.metadata.PackageNotFoundError))
    found = versions(1)
    assert (found["sparserl"], found["torch"]) == (__version__, None)


def test_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    names = [step_name(step) for step in (0, 900, 1000, 20000)]
    for name in [*names, "best", f"{step_name(30000)}.tmp"]:
        (folder.checkpoints / name).mkdir()
    for _ in range(2):  # there may be nothing to do
        remove_stale_checkpoints(folder)
        assert [path.name for path in full_checkpoints(folder)] == names[-2:]
    assert len(list(folder.checkpoints.iterdir())) == 4


def test_a_checkpoint_of_another_run_is_refused() -> None:
    check_is_of_run({"run": {"seed": 1}}, {"seed": 1})
    for state in ({"run": {"seed": 2}}, {}):
        with pytest.raises(CheckpointError, match="belongs to another run"):
            check_is_of_run(state, {"seed": 1})


def test_checkpoints_and_snapshots_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    steps = [999_999_999, 1_000_000_000, 10_000_000_000]  # as text, the first comes last
    for step in steps:
        (folder.checkpoints / step_name(step)).mkdir()
        (folder.snapshots / f"{step_name(step)}.safetensors").touch()
    assert [step_in(path) for path in full_checkpoints(folder)] == steps
    assert [snapshot_step(path) for path in snapshot_files(folder.path)] == steps
    remove_stale_checkpoints(folder)
    assert [step_in(path) for path in full_checkpoints(folder)] == steps[1:]


def test_what_has_not_the_name_of_a_step_is_no_checkpoint(tmp_path: Path) -> None:
    folder = create(tmp_path / "run")
    for name in (
        "step-",
        "step-5",
        "step-x",
        "step--00000005",
        "step-00000000\u0665",
        f"step-{'9' * 5000}"[:200],
        "best",
    ):
        (folder.checkpoints / name).mkdir()
    (folder.snapshots / "step-x.safetensors").touch()
    assert full_checkpoints(folder) == []
    assert snapshot_files(folder.path) == []


def test_a_folder_that_cannot_be_filled_is_refused_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match=r"cannot write into .*run: No space left on device"):
        RunFolder.create(tmp_path / "run", config_yaml="", command="", threads=1)
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_folder_is_one_word_for_every_shell_and_for_windows() -> None:
    assert folder_name("mine.envs:Pole-v0__ds_td3__d0.1") == "mine.envs-Pole-v0__ds_td3__d0.1"
    assert folder_name("ALE/Pong-v5__dqn") == "ALE-Pong-v5__dqn"
    assert folder_name("a b\\c*?\"<>|$(x)'\n") == "a-b-c-x-"
