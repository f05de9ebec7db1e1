"""The W&B workspace: all that its panels name is logged by real runs, and W&B's own library sends it to a server."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import wandb
import yaml
from support import wandb_log
from support.filmed import FilmedEnv
from support.wandb_server import KEY, only_this_account, wandb_server

from sparserl.cli import main
from sparserl.extras import installer
from sparserl.recording.wandb_workspace import SECTIONS, model_json, workspace

NAMES = ["headline", "sparsity", "learning", "continual", "cost", "optimisation", "video"]
TRACKED = ("--track", "--wandb.mode", "offline", "--no-progress", "--energy")
AGENT = (
    *("--agent.learning-starts", "20", "--agent.net-arch", "12", "12", "--agent.batch-size", "8"),
    *("--agent.buffer-size", "200", "--topology.density", "0.5", "--topology.update-interval", "10"),
    *("--eval.every-steps", "40", "--eval.episodes", "1", "--log-every-steps", "20", "--wandb.video-every-steps", "80"),
)
ROLLOUTS = ("--agent.n-steps", "64", "--eval.every-steps", "40", "--eval.episodes", "1", "--log-every-steps", "20")
SEQUENCE = {"name": "two", "tasks": [{"env": "Filmed-v0", "steps": 40, "name": name} for name in ("one", "two")]}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """All that runs of all kinds leave at W&B: metrics, `summary:...` and `config:...`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "two.yaml").write_text(yaml.safe_dump(SEQUENCE))
    commands = {
        "train": ["train", "--algo", "ds_sac", "--env", "Filmed-v0", "--total-steps", "80", *AGENT],
        "agents": ["continual", "--sequence", str(folder / "two.yaml"), "--method", "finetune", *AGENT],
        "classifier": ["continual", "--sequence", "split_digits", "--tasks", "2", "--learner.epochs", "1"],
        **{
            algo: ["train", "--algo", algo, "--env", "Filmed-v0", "--total-steps", "64", *ROLLOUTS]
            for algo in ("ppo", "a2c")
        },
        "fit": ["fit", "iris", "--learner.epochs", "1"],
    }
    found = set()
    gym.register("Filmed-v0", entry_point=FilmedEnv)
    with pytest.MonkeyPatch.context() as monkeypatch:
        only_this_account(monkeypatch, folder / "home", "http://127.0.0.1:9")
        for name, words in commands.items():
            assert main([*words, *TRACKED, "--run-dir", str(folder / name)]) == 0
            (path,) = wandb_log.offline_runs(folder / name)
            # A film is logged as several values; its panel names what they have in common.
            found |= {key.removesuffix("/_type") for row in wandb_log.history(path) for key in row}
            found |= {f"summary:{key}" for key, value in wandb_log.summary(path).items() if value is not None}
            found |= {f"config:{key}" for key in leaves(wandb_log.config(path))}
    gym.registry.pop("Filmed-v0")
    return found


def leaves(config: dict[str, Any], above: str = "") -> Iterator[str]:
    """Dotted keys of a nested config."""
    for key, value in config.items():
        yield from leaves(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]


def metric_names(panel: dict[str, Any]) -> list[str]:
    """Whatever the wire form of a panel reads of a run; regular expressions in slashes."""
    config = panel["config"]
    named = [*config.get("metrics", []), *config.get("mediaKeys", [])]
    named += [config[axis] for axis in ("xAxis", "yAxis") if axis in config]
    named += [column["accessor"] for column in config.get("columns", [])]
    if config.get("metricRegex"):
        named.append(f"/{config['metricRegex']}/")
    return [name.replace(".value", "", 1) if name.startswith("config:") else name for name in named]


def model() -> dict[str, Any]:
    """W&B's model of the workspace, as it is sent."""
    spec: dict[str, Any] = json.loads(model_json(workspace("tests", "me")))
    return spec


def sections(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in found if section["panels"]}


def is_logged(name: str, logged: set[str]) -> bool:
    """Whether a metric, or one that a regular expression finds, is there; a bar may show a metric or the summary."""
    if name.startswith("/"):
        return any(re.search(name[1:-1], key) for key in logged)
    return name in logged or f"summary:{name}" in logged


@pytest.mark.slow
def test_every_panel_shows_something_that_runs_log(logged: set[str]) -> None:
    named = {name for panels in sections(model()).values() for panel in panels for name in metric_names(panel)}
    assert len(named) > 30
    assert [name for name in sorted(named) if not is_logged(name, logged)] == []


def test_the_wire_form_has_every_name_of_the_table() -> None:
    found = sections(model())
    assert list(found) == list(SECTIONS) == NAMES
    for name, panels in SECTIONS.items():
        for panel, sent in zip(panels, found[name], strict=True):
            own = [one.removeprefix("summary:") if sent["viewType"] == "Bar Chart" else one for one in panel.names]
            assert set(own) == set(metric_names(sent)) - {"global_step"}, panel.title


def test_lines_are_over_global_step_with_seeds_averaged() -> None:
    lines = [
        panel["config"]
        for panels in sections(model()).values()
        for panel in panels
        if "Run History" in panel["viewType"]
    ]
    assert len(lines) > 20
    assert {line["xAxis"] for line in lines} == {"global_step"}
    assert {(line["groupBy"], line["groupAgg"], line["groupArea"]) for line in lines} == {("group", "mean", "stderr")}
    assert model()["section"]["settings"]["xAxis"] == "global_step"


def test_dry_run_prints_panels_and_writes_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--dry-run", "--json", str(tmp_path / "workspace.json")]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name}\n" in printed for name in NAMES)
    assert "  evaluation return: eval/return_mean\n" in printed
    assert list(sections(json.loads((tmp_path / "workspace.json").read_text()))) == NAMES


def test_a_server_gets_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with wandb_server() as server:
        only_this_account(monkeypatch, tmp_path, server.url, KEY)
        assert main(["dashboard", "--project", "walkers"]) == 0
    (sent,) = (variables for field, variables in server.asked if field == "upsertView")
    assert (sent["entityName"], sent["projectName"]) == ("me", "walkers")  # the account's own entity
    assert list(sections(json.loads(sent["spec"]))) == NAMES
    assert capsys.readouterr().out.startswith(f"{server.url}/me/walkers?nw=")


def test_without_a_key_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only_this_account(monkeypatch, tmp_path, "http://127.0.0.1:9")
    assert main(["dashboard"]) == 2
    said = capsys.readouterr().err
    assert "W&B did not take the workspace: No API key configured." in said
    assert said.count("\n") == 1


def test_without_a_server_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb.Api, "_HTTP_TIMEOUT", 1)  # s; W&B waits 19, and has no setting that is read this late
    only_this_account(monkeypatch, tmp_path, "http://127.0.0.1:9", KEY)
    assert main(["dashboard"]) == 2
    said = capsys.readouterr().err
    assert "W&B did not take the workspace:" in said
    assert "127.0.0.1:9" in said
    assert said.count("\n") == 1


def test_without_the_extra_the_line_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["dashboard", "--dry-run"]) == 2
    assert f"needs wandb-workspaces; {installer()} 'wandb-workspaces>=0.4'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--dry-run", "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
