"""`sparserl train --resume`: a run that was cut off ends like one that was not, and a damaged one is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from support.envs import FunctionEnv
from support.killed import Killed
from support.runs import ALGOS, CHEETAH, FAST, REWIRE, TINY, fingerprint, leave_undrawn, rows, same_run, start, train

from sparserl.agents.replay.log import ReplayLog
from sparserl.agents.run_recorder import RunRecorder
from sparserl.cli import main
from sparserl.experiment.agent_training import AgentTraining
from sparserl.recording import checkpoint
from sparserl.recording import run_folder as records
from sparserl.recording.run_folder import CsvLog, RunFolder

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")


def _die_in(owner: Any, name: str, call: int, before: bool) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original, count = getattr(owner, name), [0]

        def replacement(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == call and before:
                raise Killed
            result = original(*args, **kwargs)
            if count[0] == call:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, replacement)

    return patch


MOMENTS = {
    "in an env step of the warm-up": _die_in(FunctionEnv, "step", 17 + 34, before=True),
    "in an env step": _die_in(FunctionEnv, "step", 150, before=False),
    "before a checkpoint": _die_in(checkpoint, "save", 5, before=True),
    "in the middle of a checkpoint": _die_in(checkpoint, "flush", 16, before=True),
    "before a checkpoint gets its name": _die_in(Path, "rename", 6, before=True),
    "after a checkpoint got its name": _die_in(Path, "rename", 6, before=False),
    "while an old checkpoint is removed": _die_in(checkpoint.shutil, "rmtree", 2, before=True),
    "between replay and checkpoint": _die_in(ReplayLog, "append", 3, before=False),
    "before old replay files are removed": _die_in(ReplayLog, "remove_except", 3, before=True),
    "after a row was written": _die_in(CsvLog, "write", 8, before=False),
    "when all is learned": _die_in(RunFolder, "finish", 1, before=True),
    "before the result": _die_in(records, "write_atomically", 1, before=True),
    "before the picture": _die_in(AgentTraining, "draw", 1, before=True),
    "before the picture gets its name": _die_in(Path, "replace", 2, before=True),
    "before the run is done": _die_in(Path, "replace", 2, before=False),
}


SIMBA = (
    *("--algo", "ds_sac", "--agent.network", "simba", "--agent.net-arch", "256", "256", "--agent.actor-width", "8"),
    *("--agent.critic-width", "8", "--agent.weight-decay", "0.01", "--agent.decoupled-weight-decay"),
)
OTHERS_TOO = ("in an env step of the warm-up", "between replay and checkpoint")


@pytest.mark.parametrize(
    ("algo", "moment"),
    [(algo, moment) for algo in ALGOS for moment in (MOMENTS if algo == "ds_td3" else OTHERS_TOO)],
)
def test_a_crash_at_a_bad_moment_changes_nothing(
    moment: str, algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Path]
) -> None:
    flags = (*FAST, *ALGOS[algo], "--agent.buffer-size", "50", "--eval.episodes", "1")  # the buffer wraps
    if moment == "when all is learned":
        flags = (*flags, "--total-steps", "120")  # the last checkpoint falls on the last step
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        with pytest.raises(Killed):
            train(run, *flags)
    assert not (run / "DONE").exists()
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    reference = uninterrupted[algo if moment != "when all is learned" else f"{algo} 120"]
    same_run(reference, run)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that nothing stopped, with a buffer that wraps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_undrawn(patch)
            for algo, own in ALGOS.items():
                flags = (*FAST, *own, "--agent.buffer-size", "50", "--eval.episodes", "1")
                assert train(folder / algo, *flags) == 0
                if algo == "ds_td3":
                    assert train(folder / f"{algo} 120", *flags, "--total-steps", "120") == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("method", "last_update", "more"),
    [
        ("ds_td3", 25, ()),
        ("gmp", 25, ()),
        ("ds_td3", 70, ("--topology.pairs", "2")),
        ("granet", 70, ("--topology.pairs", "4", "--topology.output-layer", "dense")),
        ("rigl", 70, SIMBA),
    ],
)
def test_a_run_goes_on_before_and_after_its_topology_has_come_to_rest(
    method: str, last_update: int, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*FAST, "--topology.method", method, "--topology.density", "0.3", "--topology.update-interval", "5", *more)
    flags = (*flags, "--topology.first-update", "5", "--topology.last-update", str(last_update), "--eval.episodes", "1")
    with monkeypatch.context() as patch:
        _die_in(FunctionEnv, "step", 100 + 17 * 2, before=True)(patch)
        with pytest.raises(Killed):
            train(tmp_path / "cut", *flags)
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    assert train(tmp_path / "whole", *flags) == 0
    same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died at step 100, with checkpoints at 60 and 90; not to be changed."""
    path = tmp_path_factory.mktemp("dead") / "run"
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            _die_in(FunctionEnv, "step", 200, before=True)(patch)
            with pytest.raises(Killed):
                train(path, *FAST, *REWIRE)
    finally:
        gym.registry.pop("Tiny-v0")
    return path


@pytest.fixture
def cut_off(dead: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(dead, tmp_path / "cut"))


def test_the_replay_of_every_kept_checkpoint_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _die_in(FunctionEnv, "step", 200, before=True)(monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "run", *FAST, *REWIRE, "--agent.buffer-size", "50")
    named = set()
    for step, first in ((60, 0), (90, 30)):  # the 50 transitions before 60 begin in the file of 0 to 30
        name = f"step-{step:09d}"
        parts = checkpoint.load(tmp_path / "run" / "checkpoints" / name)["replay"]["parts"][name]
        assert (parts[0]["start"], parts[-1]["stop"]) == (first, step)
        named |= {part["name"] for part in parts}
    assert {path.name for path in (tmp_path / "run" / "replay").iterdir()} == named


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_next_step(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: Path,
) -> None:
    run, original, count = tmp_path / "run", FunctionEnv.step, [0]

    def step(self: FunctionEnv, action: Any) -> Any:
        count[0] += 1
        if count[0] == 2 * 34 + 77:  # two evaluations of two episodes, and 77 steps
            os.kill(os.getpid(), number)
        return original(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(FunctionEnv, "step", step)
        assert train(run, *FAST, *REWIRE) == 130
    expected = f"stopped at step 77; continue with: sparserl train --resume {run}"
    assert capsys.readouterr().err.strip() == expected
    assert (run / "checkpoints" / "step-000000077").is_dir()
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    same_run(finished, run)


def truncated(path: Path) -> None:
    file = path / "checkpoints" / "step-000000090" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def edited(path: Path) -> None:
    file = path / "checkpoints" / "step-000000090" / "state.json"
    file.write_text(file.read_text().replace('"global_step": 90', '"global_step": 91'))


def foreign(path: Path) -> None:
    shutil.rmtree(path / "checkpoints" / "step-000000090")
    (path / "checkpoints" / "step-000000090").mkdir()
    (path / "checkpoints" / "step-000000090" / "model.zip").write_text("another program")


def of_another_version(path: Path) -> None:
    file = path / "checkpoints" / "step-000000090" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))


def of_another_run(path: Path) -> None:
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["agent"]["tau"] = 0.5
    (path / "config.yaml").write_text(yaml.safe_dump(config))


def without_replay(path: Path) -> None:
    min((path / "replay").iterdir()).unlink()


def edited_replay(path: Path) -> None:
    file = max((path / "replay").iterdir())
    data = bytearray(file.read_bytes())
    data[-3] ^= 255
    file.write_bytes(data)


def short_log(path: Path) -> None:
    (path / "eval.csv").write_text("global_step,episode,return,length\n")


def without_log(path: Path) -> None:
    (path / "eval.csv").unlink()


def without_checkpoints(path: Path) -> None:
    shutil.rmtree(path / "checkpoints")
    (path / "checkpoints").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "tensors.safetensors was truncated or edited"),
        (edited, "state.json was truncated or edited"),
        (foreign, "no checkpoint at"),
        (of_another_version, "has checkpoint format version 99; this sparserl reads version 1"),
        (of_another_run, "the checkpoint belongs to another run"),
        (without_replay, "safetensors is missing"),
        (edited_replay, "safetensors was truncated or edited"),
        (short_log, "eval.csv is shorter than when the checkpoint was written"),
        (without_log, "eval.csv is shorter than when the checkpoint was written"),
        (without_checkpoints, "has no checkpoint yet"),
    ],
)
def test_a_damaged_run_is_refused_and_nothing_is_overwritten(
    damage: Callable[[Path], None], message: str, cut_off: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(cut_off)
    before = fingerprint(cut_off)
    capsys.readouterr()
    assert main(["train", "--resume", str(cut_off), "--no-progress"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert fingerprint(cut_off) == before


def test_a_finished_run_is_not_resumed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(finished)
    assert main(["train", "--resume", str(finished)]) == 2
    assert capsys.readouterr().err.startswith(f"sparserl: {finished} is finished; there is nothing to resume, unless")
    assert fingerprint(finished) == before


def test_a_run_that_fails_keeps_its_folder_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    with monkeypatch.context() as patch:

        def fail(self: FunctionEnv, action: Any) -> Any:
            if (
                self.np_random.bit_generator.state["has_uint32"] >= 0
                and len(list((tmp_path / "run" / "checkpoints").glob("step-*0"))) > 1
            ):
                raise RuntimeError("the simulation is unstable")
            return original(self, action)

        original = FunctionEnv.step
        patch.setattr(FunctionEnv, "step", fail)
        assert train(tmp_path / "run", *FAST, *REWIRE) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == (
        "sparserl: the run failed (RuntimeError: the simulation is unstable), see error.txt in its folder; "
        f"continue with: sparserl train --resume {tmp_path / 'run'}"
    )
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    same_run(finished, tmp_path / "run")


def test_an_env_without_a_state_resumes_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*FAST, "--env", "Pendulum-v1", "--total-steps", "80", "--eval.every-steps", "80", "--eval.episodes", "1"]
    pendulum = gym.make("Pendulum-v1").unwrapped
    with monkeypatch.context() as patch:
        _die_in(type(pendulum), "step", 200 + 70, before=True)(patch)
        with pytest.raises(Killed):
            train(tmp_path / "run", *flags)
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    printed = capsys.readouterr().out
    assert "resuming" in printed
    assert (
        "the environment cannot give its state, so a new episode starts and the run is not repeated exactly" in printed
    )
    assert sorted({int(row["global_step"]) for row in rows(tmp_path / "run" / "eval.csv")}) == [0, 80]


def test_an_env_without_a_state_never_begins_a_part_of_a_run_like_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[float, ...]] = []
    start = RunRecorder._on_training_start

    def noted(self: RunRecorder) -> None:
        begun.append(tuple(np.ravel(self.agent._last_obs)))
        start(self)

    monkeypatch.setattr(RunRecorder, "_on_training_start", noted)
    flags = [*FAST, "--env", "Pendulum-v1", "--total-steps", "130", "--checkpoint-every-steps", "20"]
    flags += ["--eval.every-steps", "500", "--eval.episodes", "1", "--wrappers.noise-fraction", "0.5"]
    resume = ["train", "--resume", str(tmp_path / "run"), "--no-progress"]
    # The first evaluation takes 200 steps.
    for words, steps in ((["train", *TINY, "--run-dir", str(tmp_path / "run"), *flags], 250), (resume, 40)):
        with monkeypatch.context() as patch:
            _die_in(type(gym.make("Pendulum-v1").unwrapped), "step", steps, before=True)(patch)
            with pytest.raises(Killed):
                main(words)
    assert main(resume) == 0
    features = list(zip(*begun, strict=True))
    assert [len(set(values)) for values in features] == [3] * 6


# Interrupted in a process of its own, on MuJoCo; `test_kills.py` kills some.


def test_ctrl_c_saves_says_how_to_resume_and_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(["train", *TINY, *CHEETAH, *REWIRE, "--run-dir", str(run)])
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*0/manifest.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    step = int(newest.name.removeprefix("step-"))
    assert error.strip() == f"stopped at step {step}; continue with: sparserl train --resume {run}"
    assert not (run / "DONE").exists()
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    assert train(tmp_path / "whole", *CHEETAH, *REWIRE) == 0
    same_run(tmp_path / "whole", run)
