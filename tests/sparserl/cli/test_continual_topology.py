"""`sparserl continual --topology.*` for classifiers: what it resolves to, its old name, and a run that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import rows
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.config import load_yaml
from sparserl.continual.supervised.connections import DENSE
from sparserl.experiment import resolve
from sparserl.experiment.run_config import continual_config
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.topology.config import TopologyConfig

pytestmark = pytest.mark.usefixtures("undrawn")

NAIVE = ("--method", "naive")
UNIFORM = TopologyConfig("static", 0.3, allocation="uniform")


def topology_of(*words: str) -> TopologyConfig:
    config: Any = read("continual", (*NAIVE, *words)).config
    return config.topology  # type: ignore[no-any-return]


def test_all_connections_exist_unless_a_density_or_a_method_is_given() -> None:
    assert topology_of() == DENSE
    assert topology_of("--topology.density", "0.3") == TopologyConfig("static", 0.3)
    assert topology_of("--topology.epsilon", "2", "3") == TopologyConfig("static", epsilon=(2.0, 3.0))
    assert topology_of("--topology.method", "set") == TopologyConfig("set")


def test_what_is_special_is_in_the_name() -> None:
    names = {words: read("continual", (*NAIVE, *words)).config.name for words in ((), ("--topology.density", "0.3"))}
    assert list(names.values()) == ["split_digits__class__naive", "split_digits__class__naive__static__d0.3"]


def test_the_old_name_of_the_density_is_understood(tmp_path: Path) -> None:
    assert topology_of("--learner.density", "0.3") == UNIFORM
    assert topology_of("--learner.density", "1.0") == DENSE
    file = tmp_path / "config.yaml"
    file.write_text("learner: {density: 0.3, epochs: 7}\n")
    assert topology_of("--config", str(file)) == UNIFORM
    assert topology_of("--config", str(file), "--topology.method", "set").allocation == "uniform"
    config: Any = resolve("continual", {"method": "naive", "learner": {"density": 0.3}})
    assert config.topology == UNIFORM
    # A run folder as it was written before.
    old = {"sequence": "split_digits", "method": "ewc", "scenario": "class", "learner": {"hidden": [9], "density": 0.3}}
    file.write_text(yaml.safe_dump(old))
    assert continual_config(RunFolder(tmp_path)).topology == UNIFORM.resolved()
    file.write_text(yaml.safe_dump(old | {"learner": {"density": 1.0}}))
    assert continual_config(RunFolder(tmp_path)).topology == DENSE


@pytest.mark.parametrize("strategy", ["ewc", "replay"])
def test_a_run_rewires_records_it_and_goes_on(strategy: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    words = ("--method", strategy, "--topology.method", "rigl", "--topology.density", "0.2", "--tasks", "2")
    length = ("--learner.epochs", "3", "--learner.batch-size", "64", "--checkpoint-every-steps", "33")
    assert main(["continual", *words, *length, "--run-dir", str(whole), "--no-progress"]) == 0
    events = rows(whole / "topology.csv")
    steps = json.loads((whole / "result.json").read_text())["steps"]
    epoch = steps // 6
    assert {row["kind"] for row in events} == {"initial", "rewire"}
    assert {row["layer"] for row in events} == {"network.0", "network.1", "network.2"}
    assert len({(row["layer"], row["nnz"]) for row in events}) == 3
    moves = sorted({int(row["global_step"]) for row in events if row["kind"] == "rewire"})
    assert moves == list(range(1, round(0.75 * steps) + 1, epoch))

    shutil.copytree(whole, cut)
    (cut / "DONE").unlink()
    first = load_checkpoint(cut, 0)["global_step"]
    assert first < steps
    assert main(["continual", "--resume", str(cut), "--from-step", str(first), "--no-progress"]) == 0
    assert_equal_trees(load_checkpoint(cut, -1)["learner"], load_checkpoint(whole, -1)["learner"])
    assert rows(cut / "topology.csv") == events
    assert rows(cut / "eval.csv") == rows(whole / "eval.csv")

    again: Any = read("continual", ("--config", str(whole / "config.yaml"))).config
    assert again.resolved().plain() == load_yaml(whole / "config.yaml")


def load_checkpoint(folder: Path, place: int) -> dict[str, Any]:
    return checkpoint.load(full_checkpoints(RunFolder(folder))[place])
