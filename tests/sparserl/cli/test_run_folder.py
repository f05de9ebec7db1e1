"""What holds for the folder of a run of any kind: one writer, what it goes on from, what it ends with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support.cut_runs import KINDS, command, cut_off, resume
from support.envs import FunctionEnv
from support.runs import fingerprint, last_state, leave_undrawn, logs
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.recording import checkpoint
from sparserl.recording.progress import RunProgress
from sparserl.recording.run_folder import RunFolder, full_checkpoints, step_in, step_name
from sparserl.recording.run_lock import LOCK, LockedError, only_writer
from sparserl.sweep.file import Job
from sparserl.sweep.process import JobProcess, TakenError

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")


@pytest.fixture(scope="module")
def cut_offs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every kind that died when all was learned; not to be changed."""
    folder = tmp_path_factory.mktemp("cut")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        return {kind: cut_off(kind, folder / kind / "run") for kind in KINDS}
    finally:
        gym.registry.pop("Tiny-v0")


@pytest.fixture(scope="module")
def straight(cut_offs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each of them resumed; not to be changed."""
    folder = tmp_path_factory.mktemp("straight")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_undrawn(patch)
            for kind, path in cut_offs.items():
                assert resume(kind, Path(shutil.copytree(path, folder / kind))) == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def cut(request: pytest.FixtureRequest, cut_offs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one of them."""
    return Path(shutil.copytree(cut_offs[request.node.callspec.params["kind"]], tmp_path / "copy"))


# One writer.


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_written_is_not_resumed(kind: str, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(cut)
    with only_writer(cut):
        capsys.readouterr()
        assert resume(kind, cut) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"sparserl: {cut} is being written by process ")
        assert error.count("\n") == 1
    assert fingerprint(cut) == before
    assert resume(kind, cut) == 0
    assert not (cut / LOCK).exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_run_that_is_trained_is_locked(
    kind: str, is_new: bool, cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []
    path = tmp_path / "new" / "run" if is_new else cut

    def close(self: RunProgress) -> None:
        with pytest.raises(LockedError), only_writer(path):
            pass
        refused.append(path)
        original(self)

    original = RunProgress.close
    monkeypatch.setattr(RunProgress, "close", close)
    assert (main(command(kind, path)) if is_new else resume(kind, path)) == 0
    assert refused
    assert not (path / LOCK).exists()


@pytest.mark.parametrize("kind", ["agent"])
def test_a_job_of_a_sweep_leaves_a_run_alone_that_is_trained_by_hand(
    kind: str, cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: Any = Job("train", "id", "name", 0, {}, {"threads": 1}, {})
    shutil.rmtree(cut / "checkpoints")  # it would begin anew
    before = fingerprint(cut)
    with only_writer(cut):
        with pytest.raises(TakenError, match="is being written by process"):
            JobProcess.start(job, cut)
        assert fingerprint(cut).keys() - before.keys() == {LOCK}


# A damaged checkpoint, and going back.

STEPS = {"agent": [90, 120], "classifier": [21, 24], "agent on tasks": [40, 60], "fit": [6, 8]}


def test_the_runs_have_two_checkpoints(cut_offs: dict[str, Path]) -> None:
    for kind, path in cut_offs.items():
        assert [step_in(one) for one in full_checkpoints(RunFolder(path))] == STEPS[kind]


def truncate(newest: Path) -> None:
    file = newest / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def empty(newest: Path) -> None:
    shutil.rmtree(newest)
    newest.mkdir()


def replace_by_a_file(newest: Path) -> None:
    shutil.rmtree(newest)
    newest.touch()


def replace_by_the_older_one(newest: Path) -> None:
    shutil.rmtree(newest)
    shutil.copytree(min(newest.parent.glob("step-*")), newest)


def shorten_a_log(newest: Path) -> None:
    log = newest.parents[1] / "progress.csv"
    log.write_bytes(log.read_bytes()[: checkpoint.load(newest)["recorder"]["csv_bytes"]["progress"] - 1])


DAMAGES = {
    truncate: "tensors.safetensors was truncated or edited",
    empty: "no checkpoint at",
    replace_by_a_file: "no checkpoint at",
    replace_by_the_older_one: "is a checkpoint of step",
    shorten_a_log: "progress.csv is shorter than when the checkpoint was written",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_refused_with_the_way_back(
    damage: Callable[[Path], None], kind: str, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = STEPS[kind]
    damage(cut / "checkpoints" / step_name(newest))
    before = fingerprint(cut)
    capsys.readouterr()
    assert resume(kind, cut) == 2
    error = capsys.readouterr().err
    assert DAMAGES[damage] in error
    assert error.endswith(f"; continue from step {older}, the newest whole one, by --from-step {older}\n")
    assert error.count("\n") == 1
    assert fingerprint(cut) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [truncate, replace_by_a_file, shorten_a_log, lambda newest: None])
def test_a_run_goes_back_when_told_and_loses_nothing(
    damage: Callable[[Path], None],
    kind: str,
    cut: Path,
    straight: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    older, newest = STEPS[kind]
    damage(cut / "checkpoints" / step_name(newest))
    snapshots = [path for path in (cut / "topology").glob("*") if (step_in(path) or 0) > older]
    (cut / "videos").mkdir()
    (cut / "videos" / f"{step_name(newest)}.mp4").touch()
    assert resume(kind, cut, "--from-step", str(older)) == 0
    aside = cut / "set_aside" / "1"
    assert f"what was saved after step {older} is in {aside}, and rows after it are cut" in capsys.readouterr().out
    expected = {f"checkpoints/{step_name(newest)}", f"videos/{step_name(newest)}.mp4"}
    expected |= {f"topology/{path.name}" for path in snapshots} | ({"checkpoints/final"} if kind == "agent" else set())
    assert {str(path.relative_to(aside)) for path in aside.glob("*/*")} == expected
    assert_same_end(straight[kind], cut)


def assert_same_end(left: Path, right: Path) -> None:
    """The two have the same rows and newest checkpoint, but for the clock."""
    states = [last_state(path) for path in (left, right)]
    assert_equal_trees(states[0], states[1])
    assert_equal_trees(logs(left), logs(right))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_without_a_checkpoint_is_refused(kind: str, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, (older, newest) = fingerprint(cut), STEPS[kind]
    capsys.readouterr()
    assert resume(kind, cut, "--from-step", "7") == 2
    said = f"sparserl: {cut} has no checkpoint of step 7; whole ones are of step: {older}, {newest}\n"
    assert capsys.readouterr().err == said
    truncate(cut / "checkpoints" / step_name(older))
    assert resume(kind, cut, "--from-step", str(older)) == 2
    assert f"continue from step {newest}, the newest whole one" in capsys.readouterr().err
    truncate(cut / "checkpoints" / step_name(newest))
    assert resume(kind, cut, "--from-step", "0") == 2
    assert capsys.readouterr().err.endswith("whole ones are of step: none\n")
    assert fingerprint(cut).keys() == before.keys()
    assert main([KINDS[kind][0], "--from-step", "7"]) == 2
    assert capsys.readouterr().err == "sparserl: --from-step is for a run that goes on: add --resume DIR\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_this_version_does_not_know_is_named_with_its_run(
    kind: str, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (cut / "config.yaml").open("a") as file:
        file.write("other: 1\n")
    capsys.readouterr()
    assert resume(kind, cut) == 2
    assert capsys.readouterr().err.startswith(f"sparserl: {cut}: unknown config key 'other'")


@pytest.mark.parametrize("kind", ["agent"])
def test_the_last_policy_of_a_run_with_a_damaged_checkpoint_says_what_else_there_is(
    kind: str, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(cut / "checkpoints" / "final", ignore_errors=True)
    truncate(cut / "checkpoints" / step_name(120))
    capsys.readouterr()
    assert main(["eval", "--run", str(cut), "--checkpoint", "last", "--episodes", "1"]) == 2
    error = capsys.readouterr().err
    ways = "try --checkpoint best; --resume with --from-step 90 goes back to one that is whole"
    assert error.endswith(f"truncated or edited: its checksum differs from the manifest; {ways}\n")


# The last policy.


def test_the_last_policy_of_a_finished_run_is_that_of_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command("agent", tmp_path / "run")
    assert main([*words, "--checkpoint-every-steps", "1000"]) == 0  # too short for a full checkpoint
    assert not full_checkpoints(RunFolder(tmp_path / "run"))
    capsys.readouterr()
    assert main(["eval", "--run", str(tmp_path / "run"), "--checkpoint", "last", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["global_step"] == 130


@pytest.mark.parametrize("kind", ["agent", "agent on tasks"])
def test_the_last_policy_after_an_interruption_is_that_of_the_end(
    kind: str, cut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume(kind, cut) == 0
    final = {"agent": 130, "agent on tasks": 60}[kind]
    capsys.readouterr()
    for name in ("eval", "export"):
        out = ("--episodes", "1", "--json") if name == "eval" else ("--out", str(cut / "p"), "--task", "0")
        assert main([name, "--run", str(cut), "--checkpoint", "last", *out]) == 0
        printed = capsys.readouterr().out
        assert (f'"global_step": {final}' if name == "eval" else f"step {final}") in printed
    assert not list((cut / "replay").iterdir())
