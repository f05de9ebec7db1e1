"""Runs with films, uploaded checkpoints, energy and W&B: they learn as without, and what fails of it stops nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import pytest
import yaml
from support import wandb_log
from support.envs import FunctionEnv
from support.filmed import FilmedEnv
from support.runs import FAST, REWIRE, TINY, last_state, rows, train
from support.trees import assert_equal_trees
from support.wandb_server import KEY, only_this_account, wandb_server

from sparserl.cli import main
from sparserl.extras import installer
from sparserl.recording import resources as process_cost
from sparserl.recording import trackers
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.settings import group_name
from sparserl.recording.trackers import WandbTracker

pytestmark = pytest.mark.usefixtures("undrawn")

RUN = (*FAST, *REWIRE, "--env", "Filmed-v0")
OFFLINE = ("--track", "--wandb.mode", "offline")
FILMS = ("--wandb.video-every-steps", "100")
TASKS = [{"env": "Filmed-v0", "steps": 45, "name": name} for name in ("one", "two")]
CONTINUAL = (
    *("--method", "finetune", "--agent.learning-starts", "15", "--agent.batch-size", "8", "--agent.net-arch", "12"),
    *("12", "--agent.buffer-size", "200", "--topology.density", "0.5", "--topology.update-interval", "10"),
    *("--eval.every-steps", "20", "--eval.episodes", "2", "--log-every-steps", "10", "--no-progress"),
)


class Dark(FilmedEnv):
    """Cannot be rendered."""

    def render(self) -> Any:
        raise RuntimeError("no display")


@pytest.fixture(autouse=True)
def envs_and_no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    only_this_account(monkeypatch, tmp_path / "home", "http://127.0.0.1:9")
    made = {"Filmed-v0": FilmedEnv, "Dark-v0": Dark}
    for name, env in made.items():
        gym.register(name, entry_point=env)
    yield
    for name in made:
        gym.registry.pop(name)


def learned(folder: Path) -> dict[str, Any]:
    """All that learning leaves: the last checkpoint without its config and recorder, evaluations, topology."""
    state = {key: value for key, value in last_state(folder).items() if key not in ("run", "recorder")}
    return {"state": state, **{name: rows(folder / f"{name}.csv") for name in ("eval", "topology")}}


@pytest.mark.slow
def test_a_run_with_everything_learns_as_one_with_nothing(tmp_path: Path) -> None:
    assert train(tmp_path / "plain", *RUN) == 0
    assert train(tmp_path / "all", *RUN, *OFFLINE, *FILMS, "--wandb.checkpoints", "--energy") == 0
    assert_equal_trees(learned(tmp_path / "plain"), learned(tmp_path / "all"))
    assert not (tmp_path / "plain" / "videos").exists()
    films = ["step-000000000.mp4", "step-000000100.mp4"]
    assert sorted(path.name for path in (tmp_path / "all" / "videos").iterdir()) == films

    (path,) = wandb_log.offline_runs(tmp_path / "all")
    shown = [row["global_step"] for row in wandb_log.history(path) if "eval/video/path" in row]
    assert shown == [0, 100]
    progress, result = rows(tmp_path / "all" / "progress.csv"), json.loads((tmp_path / "all/result.json").read_text())
    used = [float(row["cost/energy_kwh"]) for row in progress]
    assert used == sorted(used)
    assert 0 < used[-1] <= result["energy_kwh"] == wandb_log.summary(path)["result/energy_kwh"]
    assert "energy_kwh" not in json.loads((tmp_path / "plain" / "result.json").read_text())
    assert wandb_log.config(path)["topology"]["update_interval"] == 20


def test_the_best_and_the_final_policy_are_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def remember(self: WandbTracker, name: str, folder: Path, metadata: dict[str, Any]) -> None:
        given[name] = (metadata, {path.name: path.read_bytes() for path in folder.iterdir()})

    monkeypatch.setattr(WandbTracker, "log_model", remember)
    assert train(tmp_path / "run", *RUN, *OFFLINE, "--wandb.checkpoints") == 0
    means = dict.fromkeys((0, 50, 100, 130), 0.0)
    for row in rows(tmp_path / "run" / "eval.csv"):
        means[int(row["global_step"])] += float(row["return"]) / 2
    best = max(means, key=lambda step: means[step])
    assert given["best"][0] == pytest.approx({"global_step": best, "return_mean": means[best]})
    assert given["final"][0] == pytest.approx({"global_step": 130, "return_mean": means[130]})
    on_disk = tmp_path / "run" / "checkpoints" / "best"
    assert given["best"][1] == {path.name: path.read_bytes() for path in on_disk.iterdir()}
    assert set(given["final"][1]) == {"tensors.safetensors", "state.json", "manifest.json"}
    assert given["final"][1]["tensors.safetensors"] != given["best"][1]["tensors.safetensors"]


def test_the_last_checkpoint_of_a_classifier_is_uploaded(tmp_path: Path) -> None:
    words = ["--sequence", "split_digits", "--tasks", "2", "--learner.epochs", "1", "--no-progress", *OFFLINE]
    assert main(["continual", *words, "--wandb.checkpoints", "--run-dir", str(tmp_path / "run")]) == 0
    (path,) = wandb_log.offline_runs(tmp_path / "run")
    (artifact,) = wandb_log.artifacts(path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "final" in artifact.aliases
    assert json.loads(artifact.metadata) == pytest.approx({"global_step": result["steps"], "acc": result["acc"]})


@pytest.mark.slow
def test_films_of_a_sequence_show_the_task_that_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"name": "two", "tasks": TASKS}))
    words = ["continual", "--sequence", str(tmp_path / "two.yaml"), *CONTINUAL]
    assert main([*words, "--run-dir", str(tmp_path / "plain")]) == 0
    assert main([*words, *OFFLINE, *FILMS, "--wandb.checkpoints", "--run-dir", str(tmp_path / "filmed")]) == 0
    assert rows(tmp_path / "plain" / "eval.csv") == rows(tmp_path / "filmed" / "eval.csv")
    (path,) = wandb_log.offline_runs(tmp_path / "filmed")
    assert [row["global_step"] for row in wandb_log.history(path) if "eval/video/path" in row] == [0]
    assert [json.loads(artifact.metadata)["global_step"] for artifact in wandb_log.artifacts(path)] == [90]


def test_all_tasks_of_a_sequence_are_watched_in_one_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"name": "two", "tasks": TASKS}))
    run, video = str(tmp_path / "run"), tmp_path / "out.gif"
    assert main(["continual", "--sequence", str(tmp_path / "two.yaml"), *CONTINUAL, "--run-dir", run]) == 0
    capsys.readouterr()
    assert main(["enjoy", "--run", run, "--video", str(video), "--episodes", "2"]) == 0
    watched = [line.split(": return")[0] for line in capsys.readouterr().out.splitlines()]
    assert watched[:4] == ["one, episode 0", "one, episode 1", "two, episode 0", "two, episode 1"]
    assert len(imageio.mimread(video)) == 4 * FilmedEnv().horizon
    assert main(["eval", "--run", run, "--episodes", "1", "--task", "1", "--json"]) == 0
    (own,) = json.loads(capsys.readouterr().out)["tasks"]
    assert (own["stochastic"]["success"], own["deterministic"]["success_last"]) == (1.0, 0.0)


def test_energy_of_the_parts_of_a_resumed_run_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meter:
        kwh = 2.0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process_cost, "EnergyMeter", Meter)
    with monkeypatch.context() as stopping:
        stopping.setattr(RunFolder, "finish", stop)
        assert train(tmp_path / "run", *RUN, "--energy") == 130
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["energy_kwh"] == 4.0
    assert {row["cost/energy_kwh"] for row in rows(tmp_path / "run" / "progress.csv")} == {"2.0", "4.0"}


def test_a_run_that_was_killed_and_resumed_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    run, original, count = tmp_path / "run", FunctionEnv.step, [0]

    def step(self: FunctionEnv, action: Any) -> Any:
        count[0] += 1
        if count[0] == 10 * 3 + 115:  # checkpoint at 90, rows of 100
            raise KeyboardInterrupt
        return original(self, action)

    with monkeypatch.context() as dying:
        dying.setattr(FunctionEnv, "step", step)
        dying.setattr(trackers, "SURE_S", 0.0)  # W&B has written all, as it does when a process ends
        assert train(run, *RUN, "--track", "--tensorboard") == 130
    assert yaml.safe_load((run / "config.yaml").read_text())["wandb"]["mode"] == "offline"
    assert main(["train", "--resume", str(run), "--no-progress"]) == 0
    steps = [int(row["global_step"]) for row in rows(run / "progress.csv")]
    assert steps == [25, 50, 75, 100, 125, 130]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("time/sps")] == steps
    assert [event.step for event in events.Scalars("eval/return_mean")] == [0, 50, 100, 130]
    parts = wandb_log.offline_runs(run)
    (name,) = {wandb_log.group(path) for path in parts}
    assert name == group_name("Filmed-v0__ds_td3__d0.5", yaml.safe_load((run / "config.yaml").read_text()))
    history = [row for path in parts for row in wandb_log.history(path)]
    assert [row["global_step"] for row in history if "time/sps" in row] == steps
    assert [row["global_step"] for row in history if "eval/return_mean" in row] == [0, 50, 100, 130]


def test_a_mode_that_there_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    assert train(tmp_path / "run", *RUN, "--track") == 2
    assert capsys.readouterr().err == "sparserl: environment: unknown WANDB_MODE 'offlin'; did you mean 'offline'?\n"
    assert train(tmp_path / "untracked", *RUN, "--dry-run") == 0


def test_a_network_that_dies_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")  # second
    with wandb_server() as server:
        only_this_account(monkeypatch, tmp_path / "home", server.url, KEY)

        class Cutting(FunctionEnv):
            """Cuts the network with its first step, after W&B has started."""

            def step(self, action: Any) -> Any:
                server.dead = True
                return super().step(action)

        gym.register("Cutting-v0", entry_point=Cutting)
        status = train(tmp_path / "run", *RUN, "--env", "Cutting-v0", "--track")
        gym.registry.pop("Cutting-v0")
    assert status == 0
    assert (tmp_path / "run" / "DONE").exists()
    said = capsys.readouterr().err
    assert said.count("W&B failed") == 1
    (kept,) = (tmp_path / "run").glob("wandb/run-*/run-*.wandb")
    assert [row["global_step"] for row in wandb_log.history(kept)][-1] == 130


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--wandb.checkpoints"], "--wandb.checkpoints is for runs that are tracked: add --track"),
        (FILMS, "--wandb.video-every-steps is for runs that are tracked: add --track"),
        ([*OFFLINE, "--wandb.video-every-steps", "0"], "--wandb.video-every-steps must be at least 1, got 0"),
        ([*OFFLINE, *FILMS, "--env", "Dark-v0"], "nothing can be filmed here (no display); leave --wandb.video"),
        (["--energy"], f"--energy needs codecarbon; {installer()} 'codecarbon>=3'"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert train(tmp_path / "run", *RUN, *words) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_classifier_is_not_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run-dir", str(tmp_path / "run"), *OFFLINE, *FILMS]
    assert main(["continual", "--sequence", "split_digits", *words]) == 2
    assert "--wandb.video-every-steps is for agents" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_that_is_refused_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(RunFolder, "finish", stop)
        assert train(tmp_path / "run", *RUN, *TINY, "--energy") == 130
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-progress"]) == 2
    assert (tmp_path / "run" / "config.yaml").exists()
