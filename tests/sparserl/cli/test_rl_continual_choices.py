"""Continual runs of an agent with discrete actions: every method, resumed in the middle, and what has no meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from support.envs import ChoiceEnv
from support.killed import Killed
from support.runs import same_run

from sparserl.cli import main
from sparserl.continual.strategies import STRATEGIES
from sparserl.experiment import open_run

pytestmark = pytest.mark.usefixtures("undrawn")
METHODS = [name for name, spec in STRATEGIES.items() if "agent" not in spec.refused and name != "clonex"]
SMALL = (
    *("--algo", "ds_dqn", "--agent.net-arch", "12", "12", "--agent.learning-starts", "15", "--agent.batch-size", "8"),
    *("--agent.buffer-size", "200", "--agent.target-update-interval", "7", "--eval.every-steps", "20"),
    *("--eval.episodes", "1", "--log-every-steps", "10", "--checkpoint-every-steps", "20", "--no-progress"),
)


@pytest.fixture(autouse=True)
def choices() -> Iterator[None]:
    gym.register("Choices-v0", entry_point=ChoiceEnv, kwargs={"horizon": 17})
    yield
    gym.registry.pop("Choices-v0")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A sequence of two tasks, of which the second turns actions around."""
    mirrored = {"env": "Choices-v0", "steps": 30, "name": "mirrored", "modification": {"invert_actions": True}}
    tasks = [{"env": "Choices-v0", "steps": 30}, mirrored]
    (tmp_path / "choices.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    return ["continual", "--sequence", str(tmp_path / "choices.yaml"), *SMALL]


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_by_every_method(method: str, words: list[str], tmp_path: Path) -> None:
    more = ["--packnet.retrain-updates", "5"] if method == "packnet" else []
    assert main([*words, "--method", method, *more, "--run-dir", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["returns"]) == 2
    assert all(np.isfinite(number) for number in result["returns"][1])


def test_killed_and_resumed_it_ends_like_a_run_that_was_not(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, "--method", "ewc", "--agent.exploration-fraction", "0.5"]
    assert main([*words, "--run-dir", str(tmp_path / "run")]) == 0
    steps, step = iter(range(10_000)), ChoiceEnv.step

    def dies(self: ChoiceEnv, action: Any) -> Any:
        if next(steps) == 300:  # most of them of evaluations
            raise Killed
        return step(self, action)

    monkeypatch.setattr(ChoiceEnv, "step", dies)
    with pytest.raises(Killed):
        main([*words, "--run-dir", str(tmp_path / "cut")])
    assert main(["continual", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(tmp_path / "run", tmp_path / "cut")
    trained: Any = open_run(tmp_path / "run")
    actions = trained.policy(1)(np.zeros((3, 5), np.float32), True)
    assert (actions.shape, actions.dtype) == ((3,), np.int64)


REFUSED = {
    ("--method", "clonex"): "clonex clones ",
    ("--method", "finetune", "--border.critic", "reset"): "--border.critic reset is for agents with critics",
    ("--method", "ewc", "--ewc.critics"): "ewc.critics has no effect: DSDQN has one network",
    ("--method", "spacenet", "--spacenet.critics"): "spacenet.critics has no effect: DSDQN has one network",
    ("--method", "spacenet", "--topology.density", "0.5"): "spacenet decides itself how dense",
    ("--method", "finetune", "--algo", "ds_sac"): "has a Discrete action space; a continuous one (Box) is needed; use ",
    ("--method", "finetune", "--algo", "dqn"): "dqn has no output layers for tasks; use ds_dqn",
    ("--method", "finetune", "--topology.method", "rigl"): "use --topology.output-layer dense",
}


@pytest.mark.parametrize("more", REFUSED, ids=" ".join)
def test_what_has_no_meaning_is_refused_in_one_line(
    more: tuple[str, ...], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words[:3], *more] if "--algo" in more else [*words, *more]
    assert main([*given, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert REFUSED[more] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
