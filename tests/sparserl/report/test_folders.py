"""Which folders a report is of, and what is said of each run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.train_runs import write_train_run

from sparserl.errors import ConfigError
from sparserl.recording.run_folder import RunFolder
from sparserl.report.folders import find_runs, is_finished, read_result, run_line, runs_where


def test_a_folder_that_holds_runs_stands_for_them(tmp_path: Path) -> None:
    for name in ("sweep/b", "sweep/a", "sweep/deeper/c", "alone"):
        write_train_run(tmp_path / name, [1])
    tracker = tmp_path / "sweep" / "a" / "wandb" / "files"
    tracker.mkdir(parents=True)
    (tracker / "config.yaml").write_text("wandb_version: 1\n")
    (tmp_path / "sweep" / "logs").mkdir()
    found = find_runs([tmp_path / "alone", tmp_path / "sweep"])
    assert [str(folder.path.relative_to(tmp_path)) for folder in found] == [
        "alone",
        "sweep/a",
        "sweep/b",
        "sweep/deeper/c",
    ]


def test_links_to_runs_count_once(tmp_path: Path) -> None:
    write_train_run(tmp_path / "elsewhere" / "b", [1])
    write_train_run(tmp_path / "all" / "a", [1])
    for name, place in {"b": "elsewhere/b", "again": "elsewhere/b", "circle": "all"}.items():
        (tmp_path / "all" / name).symlink_to(tmp_path / place)
    found = [folder.path.resolve() for folder in find_runs([tmp_path / "all"])]
    assert sorted(found) == [tmp_path / "all" / "a", tmp_path / "elsewhere" / "b"]


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"empty is not a run folder, and holds none: there is no config\.yaml$"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(ConfigError, match=r"no run folder at .*nowhere$"):
        find_runs([tmp_path / "nowhere"])


def test_a_line_of_a_finished_and_of_an_unfinished_run(tmp_path: Path) -> None:
    done = write_train_run(tmp_path / "done", [1, 2, 3], versions={"mujoco": "3.3.0"})
    (done / "progress.csv").write_text("global_step,time/sps\n15,1\n25,1\n")
    line = run_line(RunFolder(done), "td3", 7)
    assert (line.path, line.label, line.seed, line.status, line.step) == (done, "td3", 7, "done", 25)
    assert (line.command, line.versions) == ("sparserl train --seed 0", {"mujoco": "3.3.0"})
    begun = write_train_run(tmp_path / "begun", [1, 2], done=False)
    assert (run_line(RunFolder(begun), "", 0).status, run_line(RunFolder(begun), "", 0).step) == ("unfinished", 10)
    for name in ("eval.csv", "command.txt"):
        (begun / name).unlink()
    line = run_line(RunFolder(begun), "", 0)
    assert (line.step, line.command, line.versions) == (0, "", {})


def test_a_kept_result_is_finished_without_its_marker(tmp_path: Path) -> None:
    run = write_train_run(tmp_path / "run", [1])
    (run / "DONE").unlink()
    assert is_finished(RunFolder(run))
    (run / "result.json").unlink()
    assert not is_finished(RunFolder(run))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"cannot read .*result\.json"), ("[1]", r"result\.json must hold keys and values, got list")],
)
def test_a_broken_result_is_named(tmp_path: Path, text: str, message: str) -> None:
    run = write_train_run(tmp_path / "run", [1])
    (run / "result.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        read_result(run)
    assert "\n" not in str(refusal.value)


# --- filters ----------------------------------------------------------------------------------------


def test_runs_where_something_is_so(tmp_path: Path) -> None:
    for name, steps, mujoco in (("a", 1000, "3.3.0"), ("b", 2000, "3.3.0"), ("c", 2000, "3.2.0")):
        write_train_run(tmp_path / name, [1, 2], total_steps=steps, agent={"gamma": 0.9}, versions={"mujoco": mujoco})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.yaml").write_text("a: [")
    folders = find_runs([tmp_path])

    def found(*wanted: str) -> str:
        return " ".join(folder.path.name for folder in runs_where(folders, wanted))

    assert found() == "a b c damaged"
    assert found("total_steps=2e3") == "b c"
    assert found("total_steps=2000", "mujoco=3.3.0") == "b"
    assert found("agent.gamma=0.90", "env=Hopper-v5") == "a b c"
    for wanted, message in (
        (["total_steps"], "--where takes key=value, as in total_steps=100000, got 'total_steps'"),
        (["total_step=3"], "unknown key for --where 'total_step'; did you mean 'total_steps'?"),
        (["total_steps=3000"], "no run has total_steps '3000'; there are 1000, 2000"),
        (["total_steps=1000", "mujoco=3.2.0"], "no run has mujoco '3.2.0'; there are 3.3.0"),
    ):
        with pytest.raises(ConfigError) as refusal:
            runs_where(folders, wanted)
        assert str(refusal.value) == message
