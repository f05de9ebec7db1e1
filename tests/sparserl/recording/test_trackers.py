"""Trackers write what was logged, read back from their files; no network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import wandb_log
from support.wandb_server import KEY, only_this_account, wandb_server

from sparserl.cli.arguments import parse
from sparserl.config import build
from sparserl.errors import ConfigError
from sparserl.recording import trackers
from sparserl.recording.trackers import (
    OBJECTIVE,
    SURE_S,
    JobType,
    Logged,
    TensorBoardTracker,
    WandbConfig,
    WandbTracker,
)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no settings of the machine's user, no server."""
    only_this_account(monkeypatch, tmp_path / "home", "http://127.0.0.1:9")


def tracker(folder: Path, mode: Any = "offline", job_type: JobType = "train", *, resumed: bool = False) -> WandbTracker:
    folder.mkdir(exist_ok=True)
    return WandbTracker(
        WandbConfig(mode=mode, project="tests", tags=("a", "b")),
        folder=folder,
        name="Env__algo__s0",
        group="Env__algo",
        run_config={"seed": 0, "agent": {"tau": 0.5}},
        job_type=job_type,
        resumed=resumed,
    )


@pytest.mark.usefixtures("no_account")
def test_what_wandb_writes_offline(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    record = tracker(folder)
    for step in range(0, 3000, 1000):
        record.log(step, {"eval/return_mean": step / 2, "train/critic_loss": 0.5})
    record.close({"steps": 3000, "return_last": 1000.0, "explored_fraction": None})
    (path,) = wandb_log.offline_runs(folder)
    logged = wandb_log.history(path)
    assert [row["global_step"] for row in logged] == [0, 1000, 2000]
    assert [row["eval/return_mean"] for row in logged] == [0.0, 500.0, 1000.0]
    assert {key for row in logged for key in row if not key.startswith("_")} == {
        "global_step",
        "eval/return_mean",
        "train/critic_loss",
    }
    summary = wandb_log.summary(path)
    assert (summary["result/steps"], summary["result/return_last"]) == (3000, 1000.0)
    assert wandb_log.metrics(path)["*"] == "global_step"
    (run,) = [record.run for record in wandb_log.records(path) if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name, run.run_group, run.job_type) == (
        "tests",
        "Env__algo__s0",
        "Env__algo",
        "train",
    )
    assert list(run.tags) == ["a", "b"]
    assert {item.key: item.value_json for item in run.config.update}["agent"] == '{"tau":0.5}'
    assert (folder / "wandb_id.txt").read_text() == run.run_id

    again = tracker(folder, resumed=True)  # a resumed run keeps its id
    again.log(3000, {"eval/return_mean": 7.0})
    again.close({})
    assert (folder / "wandb_id.txt").read_text() == run.run_id
    steps = [row["global_step"] for found in wandb_log.offline_runs(folder) for row in wandb_log.history(found)]
    assert steps == [0, 1000, 2000, 3000]


@pytest.mark.usefixtures("no_account")
def test_what_an_earlier_process_logged_is_not_logged_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = tracker(folder)
    for step in (0, 1000, 2000):
        first.log(step, {"a": step})
    first.log(2000, {"b": 1, "c": 1})
    first.close({})
    again = tracker(folder, resumed=True)  # from a checkpoint at step 500; before, it was cut off at step 2000
    for step in (1000, 2000):
        again.log(step, {"a": step})
    again.log(2000, {"b": 1, "c": 1, "d": 1})
    again.log(3000, {"a": 3000})
    again.close({})
    third = tracker(folder, resumed=True)
    third.log(3000, {"a": 3000})
    third.close({})
    logged = [
        {key: value for key, value in row.items() if not key.startswith("_")}
        for path in wandb_log.offline_runs(folder)
        for row in wandb_log.history(path)
    ]
    assert logged == [
        {"global_step": 0, "a": 0},
        {"global_step": 1000, "a": 1000},
        {"global_step": 2000, "a": 2000},
        {"global_step": 2000, "b": 1, "c": 1},
        {"global_step": 2000, "d": 1},
        {"global_step": 3000, "a": 3000},
    ]


def test_a_run_that_was_offline_says_how_to_send_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker(tmp_path / "my run").close({})
    said = capsys.readouterr().err
    assert said.endswith(f"to send it: wandb sync '{tmp_path}/my run/wandb'/offline-run-*\n")
    tracker(tmp_path / "silent", "disabled").close({})
    assert capsys.readouterr().err == ""


def test_an_offline_part_of_a_resumed_run_is_appended_by_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **given: asked.append(given) or Failing())
    for resumed in (False, True):
        tracker(tmp_path / "run", resumed=resumed)
    assert [(given["id"], given["resume"]) for given in asked] == [(None, None), ("abc", "allow")]


def test_rows_count_as_logged_when_they_are_old_enough_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed loses those that are younger; the one that goes on logs them again."""
    clock = iter((0.0, 10.0, SURE_S + 5.0, SURE_S + 6.0))
    monkeypatch.setattr(trackers, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def again() -> dict[int, bool]:
        """Steps -> whether the next process would log something of them."""
        logged = Logged(tmp_path / "mark.json", resumed=True)
        return {step: logged.new(step, {"a": 1}) == {"a": 1} for step in (0, 1, 2, 3)}

    first = Logged(tmp_path / "mark.json", resumed=False)
    for step, expected in enumerate(({}, {}, {0}, {0})):
        first.add(step, {"a": step})
        assert {known for known, is_new in again().items() if not is_new} == set(expected)
    first.close()
    assert not any(again().values())


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"global_step": "x", "names": []}', '{"names": 3}'])
def test_a_damaged_mark_says_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "mark.json").write_text(text)
    assert Logged(tmp_path / "mark.json", resumed=True).new(0, {"a": 1}) == {"a": 1}


def test_a_resumed_run_goes_on_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")  # second
    only_this_account(monkeypatch, tmp_path / "home", "http://127.0.0.1:9", KEY)
    tracker(folder).close({})
    identity = (folder / "wandb_id.txt").read_text()
    capsys.readouterr()
    record = tracker(folder, "online", resumed=True)
    record.log(1000, {"a": 1})
    record.close({})
    said = capsys.readouterr().err
    assert said.startswith("sparserl: W&B cannot be reached (")
    assert said.endswith(f"; the run goes on offline, later: wandb sync {folder / 'wandb'}/offline-run-*\n")
    assert said.count("\n") == 1
    *_, path = wandb_log.offline_runs(folder)
    (run,) = [record.run for record in wandb_log.records(path) if record.WhichOneof("record_type") == "run"]
    assert run.run_id == identity
    assert [row["global_step"] for row in wandb_log.history(path)] == [1000]


def test_a_resumed_run_is_offline_if_the_environment_says_so(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    only_this_account(monkeypatch, tmp_path / "home", "http://127.0.0.1:9", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker(tmp_path / "run", "online", resumed=True).close({})
    assert len(wandb_log.offline_runs(tmp_path / "run")) == 1
    assert "to send it: wandb sync" in capsys.readouterr().err


# --- the environment --------------------------------------------------------------------------------

SAID = {
    "WANDB_MODE": "dryrun",
    "WANDB_PROJECT": "of the environment",
    "WANDB_ENTITY": "them",
    "WANDB_TAGS": "x, y",
}


def test_the_environment_wins_over_defaults_and_loses_against_what_is_given(
    monkeypatch: pytest.MonkeyPatch, no_account: None
) -> None:
    assert WandbConfig() == WandbConfig(mode="online", project="sparserl", entity=None, tags=())
    for name, value in SAID.items():
        monkeypatch.setenv(name, value)
    there = WandbConfig(mode="offline", project="of the environment", entity="them", tags=("x", "y"))
    assert WandbConfig() == there
    assert build(WandbConfig, {"project": "of a file"}) == replace(there, project="of a file")
    assert parse(WandbConfig, ["--mode", "online", "--tags", "z"], command="x") == replace(
        there, mode="online", tags=("z",)
    )


@pytest.mark.parametrize(
    ("mode", "disabled", "expected"),
    [
        (None, "true", "disabled"),
        (None, "false", "online"),
        ("online", "true", "online"),
        ("DISABLED", None, "disabled"),
        ("run", None, "online"),
        ("", None, "online"),
    ],
)
def test_which_mode_the_environment_means(
    mode: str | None, disabled: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, no_account: None
) -> None:
    for name, value in (("WANDB_MODE", mode), ("WANDB_DISABLED", disabled)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert WandbConfig().mode == expected


def test_names_and_places_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_account: None) -> None:
    for name, value in {"WANDB_NAME": "own name", "WANDB_RUN_GROUP": "own group", "WANDB_NOTES": "a note"}.items():
        monkeypatch.setenv(name, value)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("WANDB_DIR", str(elsewhere))
    tracker(tmp_path / "run").close({})
    assert wandb_log.offline_runs(tmp_path / "run") == []
    (path,) = wandb_log.offline_runs(elsewhere)
    (run,) = [record.run for record in wandb_log.records(path) if record.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.run_group, run.notes) == ("own name", "own group", "a note")


@pytest.mark.usefixtures("no_account")
def test_disabled_writes_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tracker(tmp_path / "run", "disabled")
    film = tmp_path / "film.mp4"
    film.write_bytes(b"pictures")
    record.log(0, {"a": 1.0})
    record.log_video(0, "eval/video", film)
    record.log_model("best", tmp_path / "run", {})
    record.close({})
    assert wandb_log.offline_runs(tmp_path / "run") == []
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("no_account")
def test_online_without_an_account_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**kwargs: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        ConfigError, match=r"W&B did not start \(No API key configured\. Use .*\); try --wandb\.mode offline"
    ):
        tracker(tmp_path / "run", "online")


class Failing:
    """A W&B run that nothing can be done with."""

    id = "abc"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def define_metric(self, *_: object, **__: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        raise ConnectionResetError("Connection lost")


@pytest.mark.usefixtures("no_account")
def test_a_failure_is_said_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    run = Failing()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    record = tracker(tmp_path / "run", "online")
    (tmp_path / "film.mp4").touch()
    assert capsys.readouterr().err == ""
    record.log(0, {"a": 1.0})
    record.log_video(0, "eval/video", tmp_path / "film.mp4")
    record.log_model("best", tmp_path, {"global_step": 0})
    record.close({"steps": 1})
    assert run.calls == ["log", "log", "log_artifact", "summary", "finish"]
    said = capsys.readouterr().err
    assert said.strip().count("\n") == 0
    assert "W&B failed (Connection lost)" in said
    assert str(tmp_path / "run" / "wandb") in said


def test_a_server_that_dies_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")  # second
    with wandb_server() as server:
        only_this_account(monkeypatch, tmp_path / "home", server.url, KEY)
        record = tracker(tmp_path / "run", "online")
        record.log(0, {"eval/return_mean": 1.0})
        server.dead = True
        record.log(1000, {"eval/return_mean": 2.0})
        record.close({"return_last": 2.0})
    sent = dict(server.asked)["upsertBucket"]
    assert (sent["displayName"], sent["groupName"], sent["jobType"]) == ("Env__algo__s0", "Env__algo", "train")
    assert "W&B failed (Timed out finishing run.)" in capsys.readouterr().err
    (kept,) = (tmp_path / "run").glob("wandb/run-*/run-*.wandb")  # what `wandb sync` sends
    assert [row["eval/return_mean"] for row in wandb_log.history(kept)] == [1.0, 2.0]


def test_no_server_at_the_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")  # second
    only_this_account(monkeypatch, tmp_path / "home", "http://127.0.0.1:9", KEY)
    with pytest.raises(
        ConfigError, match=r"^W&B did not start \(.*127\.0\.0\.1:9.*\); try --wandb\.mode offline$"
    ) as no:
        tracker(tmp_path / "run", "online")
    assert "Consider" not in str(no.value)  # an option of wandb.init, which users do not call


@pytest.mark.usefixtures("no_account")
def test_models_and_films_are_uploaded(tmp_path: Path) -> None:
    record = tracker(tmp_path / "run")
    checkpoint = tmp_path / "step"
    checkpoint.mkdir()
    (checkpoint / "tensors.safetensors").write_bytes(b"12345678")
    (checkpoint / "state.json").write_text("{}")
    film = tmp_path / "film.mp4"
    film.write_bytes(b"pictures")
    record.log_model("best", checkpoint, {"global_step": 7, "return_mean": 0.5})
    record.log_video(7, "eval/video", film)
    record.close({})
    (path,) = wandb_log.offline_runs(tmp_path / "run")
    (artifact,) = wandb_log.artifacts(path)
    assert (artifact.type, "best" in artifact.aliases) == ("model", True)
    assert json.loads(artifact.metadata) == {"global_step": 7, "return_mean": 0.5}
    assert {entry.path: entry.size for entry in artifact.manifest.contents} == {
        "tensors.safetensors": 8,
        "state.json": 2,
    }
    (logged,) = wandb_log.history(path)
    assert logged["global_step"] == 7
    assert logged["eval/video/_type"] == "video-file"
    assert (path.parent / "files" / logged["eval/video/path"]).read_bytes() == b"pictures"


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize(("job_type", "objective"), list(OBJECTIVE.items()))
def test_what_the_summary_keeps(job_type: Any, objective: tuple[str, str], tmp_path: Path) -> None:
    record = tracker(tmp_path / "run", job_type=job_type)
    for value in (1.0, 3.0, 2.0):
        record.log(0, {objective[0]: value})
    record.close({})
    (path,) = wandb_log.offline_runs(tmp_path / "run")
    kept = wandb_log.summary(path)[objective[0]]
    assert kept == ({"max": 3.0, "last": 2.0} if objective[1] == "max,last" else {"last": 2.0})


@pytest.mark.parametrize("steps", [0, -5])
def test_films_come_every_so_many_steps(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"--wandb.video-every-steps must be at least 1, got {steps}"):
        WandbConfig(video_every_steps=steps)


def test_tensorboard_files_are_written_under_the_same_names(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = TensorBoardTracker(tmp_path)
    for step in (0, 500):
        record.log(step, {"eval/return_mean": step / 2, "time/sps": 3.0})
    record.close({"steps": 500})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"eval/return_mean", "time/sps"}
    assert [(event.step, event.value) for event in events.Scalars("eval/return_mean")] == [(0, 0.0), (500, 250.0)]


def test_tensorboard_shows_nothing_twice_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = TensorBoardTracker(tmp_path)
    for step in (0, 500, 1000, 1500):
        record.log(step, {"a": step})
    record.close({})
    again = TensorBoardTracker(tmp_path, resumed_at=500)  # the checkpoint's own step was logged before it
    for step in (1000, 1500, 2000):
        again.log(step, {"a": step + 1})
    again.close({})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [
        *[(0, 0.0), (500, 500.0)],
        *[(1000, 1001.0), (1500, 1501.0), (2000, 2001.0)],
    ]
