"""Runs of agents that observe something else than one vector: Dicts and stacked frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support.cut_runs import cut_off, resume
from support.envs import DictEnv
from support.runs import FAST, TINY, same_run, train

from sparserl.cli import main

pytestmark = pytest.mark.usefixtures("undrawn")
PARTS = (*FAST, "--env", "Parts-v0", "--wrappers.frame-stack", "3", "--eval.episodes", "1")


@pytest.fixture(autouse=True)
def parts_env() -> Iterator[None]:
    gym.register("Parts-v0", entry_point=lambda: DictEnv(horizon=17))
    yield
    gym.registry.pop("Parts-v0")


def test_a_run_on_stacked_dicts_resumes_exactly_and_its_features_have_names(tmp_path: Path, capsys: Any) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, *PARTS) == 0
    cut_off("agent", cut, ["train", *TINY, *PARTS, "--run-dir", str(cut)])
    assert resume("agent", cut) == 0
    same_run(whole, cut)
    capsys.readouterr()
    assert main(["inspect", "--run", str(whole), "--episodes", "1", "--json"]) == 0
    inputs = json.loads(capsys.readouterr().out)["networks"]["actor"]["inputs"]
    parts = ("arm 0", "arm 1", "goal")
    ages = ("", ", 1 step ago", ", 2 steps ago")
    assert {one["name"] for one in inputs} == {f"{part}{age}" for part in parts for age in ages}
    assert main(["export", "--run", str(whole), "--format", "safetensors", "--out", str(tmp_path / "policy")]) == 0
