"""What a refusal advises is accepted: the same command with the flags that its line names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from support.runs import FAST, train

from sparserl.cli import main

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

STEPS = "--learner.learning-rate-every 5000 --learner.learning-rate-unit steps"
ONCE = "--learner.epochs 1 --no-progress --run-dir RUN"
FIT = "fit digits --learner.epochs 2 --learner.hidden 8 --no-progress --run-dir RUN"
IMAGES = "train --algo ds_ppo --env Pictures-v0 --topology.method static --topology.density 0.5 --dry-run"
CASES = {
    "schedule in epochs": f"{FIT} --learner.learning-rate-factor 0.1 --learner.learning-rate-every 5",
    "schedule in steps": f"{FIT} --learner.learning-rate-factor 0.1 {STEPS}",
    "milestones": f"{FIT} --learner.learning-rate-factor 0.1 --learner.learning-rate-milestones 1 5",
    "a factor without times": f"{FIT} --learner.learning-rate-factor 0.1",
    "times without a factor": f"{FIT} --learner.learning-rate-every 1",
    "hidden layers of an RBM": f"fit digits --task rbm --learner.hidden 8 4 {ONCE}",
    "scaling of an RBM": f"fit digits --task rbm --learner.hidden 8 {ONCE}",
    "images, as the preset has it": IMAGES,
    "images, several wrappers": (
        f"{IMAGES} --wrappers.hide-velocities --wrappers.noise-fraction 0.5 --wrappers.permute "
        "--wrappers.frame-stack 2 --wrappers.sensor-dropout 0.1"
    ),
}


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Black ones."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        return np.zeros((36, 36, 3), np.uint8), {}


@pytest.fixture(autouse=True)
def pictures() -> Iterator[None]:
    gym.register("Pictures-v0", entry_point=Pictures)
    yield
    gym.registry.pop("Pictures-v0")


@pytest.mark.parametrize("case", CASES)
def test_the_advice_of_a_refusal_is_accepted(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(CASES[case].replace("RUN", str(tmp_path / "run")))
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    advised = _flags(line)
    assert advised, line
    assert main([*words, *advised]) == 0, capsys.readouterr().err


def _flags(line: str) -> list[str]:
    """Flags that a refusal names after `give`, `set` or `by`, with their values."""
    said = re.split(r"; |: ", line)[-1]
    if "--" in said:
        found = re.findall(r"--[\w.-]+(?: (?!--|is\b|got\b|e\.g)[\w.\[\]]+)*", said.partition(", got")[0])
        return [word for flag in found for word in flag.split()]
    option, value = re.search(r"set ([\w.]+)(?: below 1)?, e\.g\. (\S+)", said).groups()  # type: ignore[union-attr]
    return [f"--{option.replace('_', '-')}", value]


@pytest.mark.parametrize(("density", "goes"), [("0.000001", "up"), ("0.99", "down")])
def test_the_closest_density_is_one(
    density: str, goes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words = tmp_path / "run", ["--episodes", "1"]
    assert train(run, *FAST, "--algo", "ds_td3", "--topology.method", "set", "--topology.density", "0.4") == 0
    capsys.readouterr()
    command = ["prune", "--run", str(run), "--out", str(tmp_path / "pruned"), *words]
    assert main([*command, "--density", density]) == 2
    closest = re.search(r"the closest is (\S+)\n", capsys.readouterr().err)
    assert closest is not None
    assert (float(closest[1]) > float(density)) == (goes == "up")
    assert main([*command, "--density", closest[1]]) == 0, capsys.readouterr().err


def test_arrays_of_objects_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "o.npz", x=np.ones((4, 3)), y=np.array([0, 1, 0, None], dtype=object))
    assert main(["fit", str(tmp_path / "o.npz"), "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "o.npz: y holds Python objects; save numbers, e.g. y=np.array(y, np.float32)" in said


def test_features_have_the_names_of_their_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit iris --learner.epochs 1 --learner.hidden 8 --topology.density 0.5 --no-progress --run-dir"
    assert main([*words.split(), str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "set d0.5 on iris" in " ".join(said.split())
    assert main(["inspect", "--run", str(tmp_path / "run")]) == 0
    assert "petal length (cm)" in capsys.readouterr().out
