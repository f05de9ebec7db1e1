"""Trackers write what was logged, read back from their files; no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import wandb_log

from sparserl.errors import ConfigError
from sparserl.tracking import TensorBoardTracker, WandbConfig, WandbTracker


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no settings of the machine's user, no server."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def tracker(folder: Path, mode: Any = "offline") -> WandbTracker:
    folder.mkdir(exist_ok=True)
    return WandbTracker(
        WandbConfig(mode=mode, project="tests", tags=("a", "b")),
        folder=folder,
        name="Env__algo__s0",
        group="Env__algo",
        run_config={"seed": 0, "agent": {"tau": 0.5}},
        job_type="train",
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

    again = tracker(folder)  # a resumed run keeps its id
    again.log(3000, {"eval/return_mean": 7.0})
    again.close({})
    assert (folder / "wandb_id.txt").read_text() == run.run_id
    steps = [row["global_step"] for found in wandb_log.offline_runs(folder) for row in wandb_log.history(found)]
    assert steps == [0, 1000, 2000, 3000]


@pytest.mark.usefixtures("no_account")
def test_disabled_writes_no_run(tmp_path: Path) -> None:
    record = tracker(tmp_path / "run", "disabled")
    record.log(0, {"a": 1.0})
    record.close({})
    assert wandb_log.offline_runs(tmp_path / "run") == []


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
