"""`sparserl export`: a file of each format from a run, and what it says of it."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
from support.envs import Choices
from support.runs import ALGOS, FAST, train

from sparserl.agents import DSTD3
from sparserl.cli import main
from sparserl.cli.export import FORMATS
from sparserl.experiment import open_run

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_every_format_is_written(
    format: str, checkpoint: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / FORMATS[format][0]
    words = ["export", "--run", str(finished), "--format", format, "--checkpoint", checkpoint, "--out", str(out)]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert out.stat().st_size > 500
    assert "3 - 12 - 12 - 2" in printed
    difference = re.search(r"(\d\.\de[+-]\d\d) at most", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "h5"), "unknown --format 'h5'"),
        (("--format", "c", "--name", "1st"), "--name must be a C identifier, got '1st'"),
        (("--out", "nowhere/policy.h"), "there is no folder nowhere"),
        (("--checkpoint", "worst"), "unknown --checkpoint 'worst'"),
    ],
)
def test_a_bad_word_is_named(
    words: tuple[str, ...], message: str, finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = () if "--out" in words else ("--out", str(tmp_path / "policy.x"))
    assert main(["export", "--run", str(finished), *words, *out]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_actions_of_two_dimensions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    actions = gym.spaces.Box(-1.0, 1.0, (3, 2), np.float32)
    gym.register("Square-v0", entry_point=lambda: Choices(actions))
    run = str(tmp_path / "run")
    try:
        assert (
            train(tmp_path / "run", *FAST, "--env", "Square-v0", "--algo", "ds_sac", "--topology.density", "0.6") == 0
        )
        for format, (name, _) in FORMATS.items():
            assert main(["export", "--run", run, "--format", format, "--out", str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        assert main(["inspect", "--run", run]) == 0
        pruned = ("--density", "0.3", "--by", "fisher", "--episodes", "1", "--out", str(tmp_path / "pruned"))
        assert main(["prune", "--run", run, *pruned]) == 0
    finally:
        gym.registry.pop("Square-v0")
    differences = [float(one) for one in re.findall(r"(\d\.\de[+-]\d\d) at most", said)]
    assert len(differences) == len(FORMATS)
    assert max(differences) < 1e-5


def test_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run", str(tmp_path / "none")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_a_whole_agent_is_a_zip_of_stable_baselines3(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "agent.zip"
    assert main(["export", "--run", str(finished), "--format", "sb3", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sparserl.agents.ds_td3.DSTD3.load(file, env)" in printed
    assert "0.0e+00 at most" in printed
    run = open_run(finished)
    env = gym.make("Tiny-v0")
    loaded = DSTD3.load(out, env=env)
    observation = np.array([0.3, -0.2, 0.9])
    assert np.array_equal(
        loaded.predict(observation, deterministic=True)[0], run.agent.predict(observation, deterministic=True)[0]
    )
    assert (loaded.num_timesteps, loaded.buffer_size) == (run.step, run.config.agent.buffer_size)
    assert loaded.learn(60, reset_num_timesteps=False).num_timesteps == run.step + 60  # it trains on


def test_the_zip_of_a_dense_agent_is_stable_baselines3s_own(tmp_path: Path) -> None:
    assert train(tmp_path / "run", *FAST, *ALGOS["td3"]) == 0
    out = tmp_path / "agent.zip"
    assert main(["export", "--run", str(tmp_path / "run"), "--format", "sb3", "--out", str(out)]) == 0
    loaded = stable_baselines3.TD3.load(out)
    observation = np.array([0.3, -0.2, 0.9])
    expected = open_run(tmp_path / "run").policy(0)(observation[None], True)[0]
    assert np.array_equal(loaded.predict(observation, deterministic=True)[0], expected)
