"""An evaluation comes to an end: by a bound where the environment has none, and by a signal, which changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml
from support.envs import FunctionEnv
from support.runs import FAST, REWIRE, leave_undrawn, rows, same_run, train

from sparserl.cli import main
from sparserl.recording import episodes
from sparserl.recording.checkpoint import load
from sparserl.recording.episodes import CutOff, has_time_limit, longest_episode

NEVER = 10**9
SHORT = ("--agent.learning-starts", "5", "--total-steps", "10", "--eval.every-steps", "10", "--eval.episodes", "2")


@pytest.fixture(autouse=True)
def envs(tiny_env: None, undrawn: None) -> Iterator[None]:
    """Registers environments whose episodes never end by themselves, too."""
    gym.register("Endless-v0", entry_point=lambda: FunctionEnv(horizon=NEVER))
    gym.register("Limited-v0", entry_point=lambda: FunctionEnv(horizon=NEVER), max_episode_steps=60)
    yield
    for name in ("Endless-v0", "Limited-v0"):
        gym.registry.pop(name)


def resume(run: Path, command: str = "train") -> int:
    return main([command, "--resume", str(run), "--no-progress"])


def lengths(run: Path) -> list[tuple[str, str]]:
    return [(row["length"], row["cut_off"]) for row in rows(run / "eval.csv")]


# --- the bound --------------------------------------------------------------------------------------


def test_which_bound_there_is() -> None:
    endless, limited = gym.make("Endless-v0"), gym.make("Limited-v0")
    assert (has_time_limit(endless), has_time_limit(limited)) == (False, True)
    assert has_time_limit(gym.wrappers.TimeLimit(FunctionEnv(), 5))
    assert longest_episode(endless, None) == episodes.WITHOUT_LIMIT == 10_000
    assert longest_episode(limited, None) is None
    assert longest_episode(endless, 7) == longest_episode(limited, 7) == 7


def test_an_episode_that_ends_at_the_bound_is_not_cut_off() -> None:
    env = CutOff(FunctionEnv(horizon=3), 3)
    for _ in range(2):  # a reset begins anew
        env.reset(seed=0)
        infos = [env.step(env.action_space.sample())[2:] for _ in range(3)]
        assert infos == [(False, False, {}), (False, False, {}), (False, True, {})]
    env = CutOff(FunctionEnv(horizon=4), 3)
    env.reset(seed=0)
    infos = [env.step(env.action_space.sample())[2:] for _ in range(3)]
    assert infos == [(False, False, {}), (False, False, {}), (False, True, {"cut_off": True})]


@pytest.mark.parametrize(
    ("env", "flags", "expected"),
    [
        ("Endless-v0", (), ("40", "1")),
        ("Endless-v0", ("--eval.max-steps", "30"), ("30", "1")),
        ("Limited-v0", (), ("60", "0")),
        ("Limited-v0", ("--eval.max-steps", "30"), ("30", "1")),
        ("Limited-v0", ("--eval.max-steps", "90"), ("60", "0")),
    ],
)
def test_an_evaluation_ends_and_says_where_it_cut_episodes_off(
    env: str, flags: tuple[str, ...], expected: tuple[str, str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(episodes, "WITHOUT_LIMIT", 40)
    assert train(tmp_path / "run", *SHORT, "--algo", "td3", "--env", env, *flags) == 0
    assert lengths(tmp_path / "run") == [expected] * 4
    steps, cut_off = expected
    said = (
        f"sparserl: 2 of 2 evaluated episodes cut off after {steps} steps, and their returns are of so many; "
        "--eval.max-steps sets another bound\n"
    )
    assert capsys.readouterr().err == (said if cut_off == "1" else "")  # once


def test_eval_ends_too(tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    assert train(run, *SHORT, "--algo", "td3", "--env", "Endless-v0", "--eval.max-steps", "30") == 0
    capsys.readouterr()

    def evaluate(*flags: str) -> dict[str, Any]:
        assert main(["eval", "--run", str(run), "--episodes", "3", "--json", *flags]) == 0
        printed = capsys.readouterr()
        assert "sparserl: 3 of 3 evaluated episodes cut off after " in printed.err
        assert "; --max-steps sets another bound" in printed.err
        found: dict[str, Any] = json.loads(printed.out)
        return found

    assert (evaluate()["ep_len_mean"], evaluate("--max-steps", "12")["ep_len_mean"]) == (30, 12)
    assert evaluate()["cut_off"] == 3
    assert main(["eval", "--run", str(run), "--max-steps", "0"]) == 2
    assert capsys.readouterr().err == "sparserl: --max-steps must be at least 1, got 0\n"


@pytest.mark.parametrize("command", [("train", "--algo", "td3"), ("continual", "--sequence", "halfcheetah_gravity")])
def test_a_bound_below_one_is_refused(command: tuple[str, ...], capsys: Any) -> None:
    assert main([*command, "--eval.max-steps", "0", "--dry-run"]) == 2
    assert capsys.readouterr().err == "sparserl: --eval.max-steps must be at least 1, got 0\n"


# --- signals ----------------------------------------------------------------------------------------


def signal_at(patch: pytest.MonkeyPatch, call: int, times: int = 1) -> None:
    """Sends a signal at the n-th env step, evaluation included."""
    original, count = FunctionEnv.step, [0]

    def step(self: FunctionEnv, action: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
        return original(self, action)

    patch.setattr(FunctionEnv, "step", step)


EVALUATION = 2 * 17


@pytest.mark.parametrize(
    ("call", "step"),
    [(3, 0), (EVALUATION + 50 + 20, 50), (3 * EVALUATION + 130 + 1, 130)],
)
def test_a_signal_in_an_evaluation_stops_the_run_which_goes_on_exactly(
    call: int, step: int, tmp_path: Path, monkeypatch: Any, capsys: Any, finished: Path
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, call)
        assert train(run, *FAST, *REWIRE) == 130
    expected = f"stopped at step {step}; continue with: sparserl train --resume {run}"
    assert capsys.readouterr().err.strip() == expected
    assert [int(row["global_step"]) for row in rows(run / "eval.csv") if int(row["global_step"]) >= step] == []
    assert resume(run) == 0
    if step == 130:  # the other run has no checkpoint of its last step
        shutil.rmtree(run / "checkpoints" / "step-000000130")
    same_run(finished, run)


def test_two_signals_in_an_evaluation_stop_at_once(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    signal_at(monkeypatch, EVALUATION + 50 + 20, times=2)
    assert train(tmp_path / "run", *FAST, *REWIRE) == 130
    assert "stopped at once; continue with: " in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints" / "step-000000050").exists()


def test_a_signal_to_eval_is_seen(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    run = tmp_path / "run"
    assert train(run, *SHORT, "--algo", "td3", "--env", "Endless-v0", "--eval.max-steps", "30") == 0
    capsys.readouterr()
    signal_at(monkeypatch, 50)
    assert main(["eval", "--run", str(run), "--max-steps", str(NEVER)]) == 130
    assert capsys.readouterr().err == "sparserl: interrupted\n"


TASKS = {"name": "tiny", "tasks": [{"env": "Tiny-v0", "steps": 45, "name": "a"}, {"env": "Tiny-v0", "steps": 45}]}
SEQUENCE = (
    *("--agent.learning-starts", "15", "--agent.batch-size", "8", "--agent.buffer-size", "200", "--no-progress"),
    *("--agent.net-arch", "12", "12", "--eval.every-steps", "20", "--eval.episodes", "1", "--log-every-steps", "10"),
    *("--checkpoint-every-steps", "20", "--topology.density", "0.5", "--method", "ewc", "--ewc.samples", "8"),
)
BY_CHANCE, OF_BOTH = 2 * 17, 2 * 2 * 17
"""Env steps of an evaluation of random actions, and of the policy, on both tasks."""


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a sequence."""
    path = tmp_path_factory.mktemp("sequence") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TASKS))
    return path


@pytest.fixture(scope="module")
def learned(sequence: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on it that nothing stopped."""
    path = tmp_path_factory.mktemp("learned") / "run"
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_undrawn(patch)
            assert main(["continual", "--sequence", str(sequence), *SEQUENCE, "--run-dir", str(path)]) == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return path


@pytest.mark.parametrize(
    ("call", "step"),
    [
        (5, 0),
        (BY_CHANCE + 3 * OF_BOTH + 45 + 20, 45),
        (BY_CHANCE + 6 * OF_BOTH + 90 + 60, 90),
    ],
)
def test_a_signal_in_an_evaluation_of_a_sequence_changes_nothing(
    call: int, step: int, tmp_path: Path, monkeypatch: Any, capsys: Any, sequence: Path, learned: Path
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_at(patch, call)
        assert main(["continual", "--sequence", str(sequence), *SEQUENCE, "--run-dir", str(run)]) == 130
    expected = f"stopped at step {step}; continue with: sparserl continual --resume {run}"
    assert capsys.readouterr().err.strip() == expected
    assert load(run / "checkpoints" / f"step-{step:09d}")["global_step"] == step
    assert [row["global_step"] for row in rows(run / "eval.csv") if int(row["global_step"]) >= step] == []
    assert resume(run, "continual") == 0
    if step == 90:  # its checkpoint is the one before the last evaluation, from which the run would end alike again
        learned = Path(shutil.copytree(learned, tmp_path / "learned"))
        for path in (learned, run):
            shutil.rmtree(path / "checkpoints" / "step-000000090")
    same_run(learned, run)


def test_episodes_of_a_sequence_are_cut_off_and_marked(sequence: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    flags = ("--eval.max-steps", "11", "--eval.every-steps", "1000")
    assert main(["continual", "--sequence", str(sequence), *SEQUENCE, *flags, "--run-dir", str(run)]) == 0
    assert set(lengths(run)) == {("11", "1")}
    assert capsys.readouterr().err.count("evaluated episodes cut off after 11 steps") == 1
    assert main(["eval", "--run", str(run), "--episodes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]
    assert [task[kind]["cut_off"] for task in found for kind in ("stochastic", "deterministic")] == [1] * 4
