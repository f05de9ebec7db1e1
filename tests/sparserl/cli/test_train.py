"""`sparserl train`: what a run leaves, that it repeats, and that one cut off ends like one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from support.envs import FunctionEnv
from support.runs import TINY, fingerprint, last_state, logs, rows, start, train
from support.trees import assert_equal_trees

from sparserl import checkpoint
from sparserl.agents.config import make_agent
from sparserl.agents.replay_log import ReplayLog
from sparserl.cli import main
from sparserl.cli.train_config import parse_train, preset_for, presets
from sparserl.metrics.cost import layer_costs
from sparserl.records import CsvLog, RunFolder

FAST = (
    *("--env", "Tiny-v0", "--agent.learning-starts", "40", "--total-steps", "130", "--eval.every-steps", "50"),
    *("--eval.episodes", "2", "--checkpoint-every-steps", "30", "--log-every-steps", "25", "--topology-snapshots", "3"),
)
REWIRE = ("--topology.update-interval", "20")
CHEETAH = (
    *("--env", "HalfCheetah-v5", "--agent.learning-starts", "60", "--total-steps", "240", "--eval.every-steps", "120"),
    *("--eval.episodes", "1", "--checkpoint-every-steps", "40", "--log-every-steps", "40", "--seed", "3"),
)
ALGOS = {"ds_td3": ("--algo", "ds_td3", *REWIRE), "td3": ("--algo", "td3")}
SECTION_3 = {
    *("algo", "env", "seed", "steps", "wall_s", "steps_per_second", "return_last", "return_last10", "params_nonzero"),
    *("params_dense", "density", "flops_train", "topology_events", "explored_fraction"),
}
"""Keys of result.json that design.md (section 3) promises."""


@pytest.fixture(autouse=True)
def tiny_env() -> Iterator[None]:
    """Registers `Tiny-v0`, whose state can be saved."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")


def same_run(left: Path, right: Path) -> None:
    """The two ended alike: networks, moments, topology, generators, env, and every row of the logs."""
    assert_equal_trees(last_state(left), last_state(right))
    assert_equal_trees(logs(left), logs(right))
    results = [json.loads((path / "result.json").read_text()) for path in (left, right)]
    for result in results:
        # The transposed order is derived when a backward pass needs it, which a run resumed at its end never does.
        for name in ("wall_s", "steps_per_second", "bytes_indices"):
            result.pop(name)
    assert results[0] == results[1]
    best = [checkpoint.load(path / "checkpoints" / "best") for path in (left, right)]
    assert_equal_trees(*best)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DS-TD3 on the tiny env; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        assert train(path, *FAST, *REWIRE) == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return path


# What a run leaves.


def test_a_run_leaves_its_files(finished: Path) -> None:
    expected = {
        "config.yaml",
        "command.txt",
        "versions.json",
        "eval.csv",
        "progress.csv",
        "topology.csv",
        "result.json",
        "DONE",
        "plot.png",
    }
    assert expected == {path.name for path in finished.iterdir() if path.is_file()}
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"best", "step-000000090", "step-000000120"}
    assert list((finished / "replay").iterdir()) == []  # a finished run is not continued
    assert {path.name for path in (finished / "topology").iterdir()} >= {
        "step-000000000.safetensors",
        "step-000000043.safetensors",
    }
    assert (finished / "command.txt").read_text().startswith("sparserl train --agent.net-arch 12 12")


def test_the_logs_have_their_columns_and_rows(finished: Path) -> None:
    evaluation = rows(finished / "eval.csv")
    assert list(evaluation[0]) == ["global_step", "episode", "return", "length"]
    steps = [(int(row["global_step"]), int(row["episode"])) for row in evaluation]
    assert steps == [(step, episode) for step in (0, 50, 100, 130) for episode in (0, 1)]
    assert {row["length"] for row in evaluation} == {"17"}
    progress = rows(finished / "progress.csv")
    assert [int(row["global_step"]) for row in progress] == [25, 50, 75, 100, 125, 130]
    assert progress[0]["train/critic_loss"] == ""
    assert all(float(row["train/critic_loss"]) > 0 for row in progress[1:])
    assert int(float(progress[-1]["train/n_updates"])) == 90
    topology = rows(finished / "topology.csv")
    events = [(int(row["update"]), row["kind"]) for row in topology if row["layer"] == "critic.qf0.1"]
    assert events == [(0, "initial"), (2, "rewire"), (22, "rewire"), (42, "rewire"), (62, "rewire"), (82, "rewire")]
    assert all(
        int(row["global_step"]) == (int(row["update"]) + 40 if row["kind"] != "initial" else 0) for row in topology
    )


def test_the_result_has_its_keys(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert set(result) >= SECTION_3
    assert (result["algo"], result["env"], result["seed"], result["steps"]) == ("ds_td3", "Tiny-v0", 0, 130)
    means = [
        np.mean([float(row["return"]) for row in rows(finished / "eval.csv") if row["global_step"] == step])
        for step in ("0", "50", "100", "130")
    ]
    assert result["return_last"] == pytest.approx(means[-1])
    assert result["return_last10"] == pytest.approx(np.mean(means))
    assert result["topology_events"] == 5
    assert 0.5 < result["explored_fraction"] < 1
    best = checkpoint.load(finished / "checkpoints" / "best")
    assert best["global_step"] == [0, 50, 100, 130][int(np.argmax(means))]


def test_the_same_seed_repeats_and_another_does_not(finished: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "again", *FAST, *REWIRE) == 0
    same_run(finished, tmp_path / "again")
    assert train(tmp_path / "other", *FAST, *REWIRE, "--seed", "1") == 0
    assert rows(finished / "eval.csv") != rows(tmp_path / "other" / "eval.csv")


def test_the_config_of_a_run_repeats_it(finished: Path, tmp_path: Path) -> None:
    words = ["train", "--config", str(finished / "config.yaml"), "--no-progress", "--run-dir", str(tmp_path / "again")]
    assert main(words) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    same_run(finished, tmp_path / "again")


def test_recording_does_not_change_what_is_learned(finished: Path, tmp_path: Path) -> None:
    often = ("--eval.every-steps", "7", "--log-every-steps", "3", "--checkpoint-every-steps", "13", "--tensorboard")
    assert train(tmp_path / "often", *FAST, *REWIRE, *often) == 0
    assert_equal_trees(
        [row for row in rows(finished / "eval.csv") if row["global_step"] == "130"],
        [row for row in rows(tmp_path / "often" / "eval.csv") if row["global_step"] == "130"],
    )
    assert rows(finished / "topology.csv") == rows(tmp_path / "often" / "topology.csv")
    assert list((tmp_path / "often" / "tensorboard").iterdir())


# Stopped and resumed, in this process: a crash at each kind of moment.


class Killed(BaseException):
    """The process would die here; nothing may catch it."""


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
    "while an old checkpoint is removed": _die_in(checkpoint.shutil, "rmtree", 7, before=True),
    "between replay and checkpoint": _die_in(ReplayLog, "append", 3, before=False),
    "before old replay files are removed": _die_in(ReplayLog, "remove_except", 3, before=True),
    "after a row was written": _die_in(CsvLog, "write", 8, before=False),
    "when all is learned": _die_in(RunFolder, "finish", 1, before=True),
}


DENSE_TOO = ("in an env step of the warm-up", "between replay and checkpoint", "when all is learned")


@pytest.mark.parametrize(
    ("algo", "moment"), [("ds_td3", moment) for moment in MOMENTS] + [("td3", moment) for moment in DENSE_TOO]
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
        for algo, own in ALGOS.items():
            flags = (*FAST, *own, "--agent.buffer-size", "50", "--eval.episodes", "1")
            assert train(folder / algo, *flags) == 0
            assert train(folder / f"{algo} 120", *flags, "--total-steps", "120") == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that died at step 100, with checkpoints at 60 and 90."""
    path = tmp_path / "cut"
    with monkeypatch.context() as patch:
        _die_in(FunctionEnv, "step", 200, before=True)(patch)
        with pytest.raises(Killed):
            train(path, *FAST, *REWIRE)
    return path


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
    assert capsys.readouterr().err == f"sparserl: {finished} is finished; there is nothing to resume\n"
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
        "sparserl: the run failed (RuntimeError: the simulation is unstable); "
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


# Killed and interrupted, in processes of their own, on MuJoCo.


@pytest.fixture(scope="module")
def cheetahs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs on HalfCheetah."""
    folder = tmp_path_factory.mktemp("cheetahs")
    for algo, own in ALGOS.items():
        assert train(folder / algo, *CHEETAH, *own) == 0
    return {algo: folder / algo for algo in ALGOS}


def _running(run: Path, algo: str) -> subprocess.Popen[str]:
    process = start(["train", *TINY, *CHEETAH, *ALGOS[algo], "--run-dir", str(run)])
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*0/manifest.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("algo", ALGOS)
def test_a_run_killed_at_a_random_moment_and_resumed_equals_one_that_was_not(
    algo: str, tmp_path: Path, cheetahs: dict[str, Path]
) -> None:
    delay = random.SystemRandom().uniform(0.0, 1.0)
    print(f"killed {delay:.3f} s after the first checkpoint")
    process = _running(tmp_path / "run", algo)
    try:
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    if not (tmp_path / "run" / "DONE").exists():
        assert process.returncode == -signal.SIGKILL
        assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    same_run(cheetahs[algo], tmp_path / "run")


def test_ctrl_c_saves_says_how_to_resume_and_changes_nothing(tmp_path: Path, cheetahs: dict[str, Path]) -> None:
    run = tmp_path / "run"
    process = _running(run, "ds_td3")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    step = int(newest.name.removeprefix("step-"))
    assert error.strip() == f"stopped at step {step}; continue with: sparserl train --resume {run}"
    assert not (run / "DONE").exists()
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    same_run(cheetahs["ds_td3"], run)


# Presets, files and flags.


def resolved(*words: str) -> Any:
    return parse_train(words)[0].run


def test_a_flag_wins_over_the_config_over_the_preset_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("agent: {tau: 0.25, gamma: 0.5}\n")
    base = resolved("--env", "HalfCheetah-v5")
    assert base.topology.epsilon == (7.0, 64.0)  # the env's preset
    assert resolved("--env", "Pusher-v5").topology.density == 0.5  # the algorithm's
    config = resolved("--env", "HalfCheetah-v5", "--config", str(file), "--agent.gamma", "0.75")
    assert (config.agent.tau, config.agent.gamma, config.agent.batch_size) == (0.25, 0.75, 100)
    assert config.topology == base.topology
    assert resolved("--algo", "td3").topology.method == "dense"
    assert parse_train(["--preset", "ds_td3/Ant-v5", "--env", "Hopper-v5"])[1] == "ds_td3/Ant-v5"


def test_the_algorithm_and_env_of_a_config_file_choose_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("algo: td3\nenv: Ant-v5\n")
    config = resolved("--config", str(file))
    assert (config.algo, config.env, config.topology.method) == ("td3", "Ant-v5", "dense")
    assert resolved("--config", str(file), "--algo", "ds_td3").topology.epsilon == (38.467, 64.0)


def test_density_and_epsilon_replace_each_other_layer_by_layer(tmp_path: Path) -> None:
    topology = resolved("--env", "HalfCheetah-v5", "--topology.density", "0.1").topology
    assert (topology.density, topology.epsilon) == (0.1, None)
    topology = resolved("--env", "Pusher-v5", "--topology.epsilon", "5", "60").topology
    assert (topology.density, topology.epsilon) == (None, (5.0, 60.0))
    file = tmp_path / "c.yaml"
    file.write_text("topology: {epsilon: [4, 50]}\n")
    topology = resolved("--env", "Pusher-v5", "--config", str(file)).topology
    assert (topology.density, topology.epsilon) == (None, (4.0, 50.0))
    topology = resolved("--env", "Pusher-v5", "--config", str(file), "--topology.density", "0.2").topology
    assert (topology.density, topology.epsilon) == (0.2, None)


def test_the_end_of_rewiring_follows_the_length_of_the_run() -> None:
    def end(*words: str) -> int | None:
        config = resolved(*words)
        rule = config.topology.for_run(config.total_updates).rule()
        assert rule is not None
        return rule.last_update

    assert end("--env", "HalfCheetah-v5") == 925_000
    assert end("--env", "HalfCheetah-v5", "--total-steps", "122500") == 92_500
    assert end("--env", "HalfCheetah-v5", "--topology.last-update", "7") == 7
    assert end("--topology.method", "set", "--topology.decay", "cosine") == 975_000


def test_dry_run_prints_the_config_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--dry-run", "--run-dir", str(run), "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["seed"] == 5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.yaml").write_text(printed)
    assert resolved("--config", str(tmp_path / "c.yaml")) == resolved("--seed", "5")


@pytest.mark.parametrize("name", presets())
def test_every_preset_builds(name: str) -> None:
    algo, env = name.split("/")
    words = ["--algo", algo, "--preset", name]
    config = resolved(*words, *([] if env == "default" else ["--env", env]))
    assert config.algo == algo
    assert (config.agent.batch_size, config.agent.weight_decay, config.agent.learning_starts) == (100, 2e-4, 25_000)
    if env != "default":
        assert config.env == env
        assert preset_for(algo, env) == name


# n_obs and n_action of v5, and the densities of the paper's table (actor; critic), first and second layer.
PAPER = {
    "HalfCheetah-v5": (17, 6, (0.439, 0.500), (0.332, 0.500)),
    "Walker2d-v5": (17, 6, (0.439, 0.500), (0.332, 0.500)),
    "Hopper-v5": (11, 3, (0.664, 0.500), (0.527, 0.500)),
    "Ant-v5": (105, 8, (0.517, 0.500), (0.492, 0.500)),
    "Humanoid-v5": (348, 17, (0.4005, 0.500), (0.3935, 0.500)),
}


@pytest.mark.parametrize("env", PAPER)
def test_the_presets_give_the_densities_of_the_paper(env: str) -> None:
    n_obs, n_action, actor, critic = PAPER[env]
    config = resolved("--env", env)
    shapes = {
        "actor": [(256, n_obs), (256, 256), (n_action, 256)],
        "critic": [(256, n_obs + n_action), (256, 256), (1, 256)],
    }
    for network, expected in (("actor", actor), ("critic", critic)):
        densities = config.topology.densities(shapes[network])
        assert densities == pytest.approx([*expected, 1.0], abs=2e-3)


def test_the_default_preset_gives_its_density_to_a_whole_network() -> None:
    config = resolved("--env", "Pusher-v5")
    agent = make_agent(
        "ds_td3", config.agent, config.topology, FunctionEnv(n_obs=23, n_action=7), seed=0, buffer_size=10
    )
    hidden = layer_costs(agent.actor)[:2]
    weights, dense = sum(layer.weights for layer in hidden), sum(layer.weights_dense for layer in hidden)
    assert weights / dense == pytest.approx(0.5, abs=1e-3)
