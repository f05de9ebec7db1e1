"""What holds for the folder of a run of any kind: one writer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support.cut_runs import KINDS, command, cut_off, resume
from support.envs import FunctionEnv
from support.runs import fingerprint

from sparserl.cli import main
from sparserl.cli.job_process import JobProcess, TakenError
from sparserl.cli.sweep_file import Job
from sparserl.progress import RunProgress
from sparserl.run_lock import LOCK, LockedError, only_writer

pytestmark = pytest.mark.usefixtures("tiny_env")


@pytest.fixture(scope="module")
def cut_offs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every kind that died when all was learned; not to be changed."""
    folder = tmp_path_factory.mktemp("cut")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        return {kind: cut_off(kind, folder / kind / "run") for kind in KINDS}
    finally:
        gym.registry.pop("Tiny-v0")


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
    job: Any = Job("train", "id", "name", 0, {}, {"threads": 1})
    shutil.rmtree(cut / "checkpoints")  # it would begin anew
    before = fingerprint(cut)
    with only_writer(cut):
        with pytest.raises(TakenError, match="is being written by process"):
            JobProcess.start(job, cut)
        assert fingerprint(cut).keys() - before.keys() == {LOCK}
