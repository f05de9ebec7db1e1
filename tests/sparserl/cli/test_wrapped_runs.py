"""Runs with wrappers: what a checkpoint's policy is evaluated with is what it was trained with."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from support.runs import FAST, WRAPPED, rows, same_run, train

from sparserl.cli import main
from sparserl.envs import FeatureHistograms, ObservationStatistics
from sparserl.envs.array_file import write_arrays
from sparserl.experiment.opened_agent_run import open_trained
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.video import play

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")


def evaluate(capsys: pytest.CaptureFixture[str], run: Path, checkpoint: str) -> tuple[int, float]:
    """Step and mean return, on the episodes that training itself evaluated on."""
    capsys.readouterr()
    words = ["--run", str(run), "--checkpoint", checkpoint, "--episodes", "2", "--seed", "100", "--json"]
    assert main(["eval", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    return result["global_step"], result["return_mean"]


@pytest.mark.parametrize("algo", ["ds_td3", "ds_sac", "sac"])
def test_eval_repeats_the_evaluation_of_the_run(algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(run, "--algo", algo, *FAST, *WRAPPED, "--checkpoint-every-steps", "50") == 0
    means: dict[int, list[float]] = {}
    for row in rows(run / "eval.csv"):
        means.setdefault(int(row["global_step"]), []).append(float(row["return"]))
    step, value = evaluate(capsys, run, "best")
    assert value == pytest.approx(np.mean(means[step]), rel=1e-9)
    step, value = evaluate(capsys, run, "last")
    assert step == 130
    assert value == pytest.approx(np.mean(means[step]), rel=1e-9)
    # Nor does being watched move running statistics.
    trained = open_trained(run, "last")
    env, policy = trained.make_env(0), trained.policy(0)
    watched = [sum(play(env, lambda observation: policy(observation[None], True)[0], seed=100)) for _ in range(2)]
    assert watched == pytest.approx([means[step][0]] * 2)


def test_the_network_is_as_wide_as_what_it_reads(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, *FAST, "--wrappers.noise-fraction", "0.75", "--topology.method", "static") == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["wrappers"]["noise_fraction"] == 0.75
    # 3 real features of 12; 2 actions; two layers of 12: actor, then two critics, with biases.
    dense = (12 * 12 + 12 * 12 + 12 * 2 + 26) + 2 * (14 * 12 + 12 * 12 + 12 + 25)
    assert json.loads((run / "result.json").read_text())["params_dense"] == dense


def test_a_file_of_histograms_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    FeatureHistograms.of(np.random.default_rng(0).normal(size=(50, 3)), 5).save(Path("features.json"))
    flags = ("--wrappers.noise-fraction", "0.5", "--wrappers.noise-histograms", "features.json")
    assert train(tmp_path / "run", *FAST, *flags) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert np.isfinite(evaluate(capsys, tmp_path / "run", "best")[1])


def test_a_run_leaves_the_statistics_that_another_one_freezes(tmp_path: Path) -> None:
    normalized = ("--wrappers.normalize-observations",)
    assert train(tmp_path / "running", *FAST, *normalized, "running") == 0
    left = ObservationStatistics.load(tmp_path / "running" / "normalization.json")
    assert left.count > 130  # every observation of the training env, the first of each episode too
    file = ("--wrappers.normalization", str(tmp_path / "running" / "normalization.json"))
    assert train(tmp_path / "frozen", *FAST, *normalized, "frozen", *file) == 0
    kept = ObservationStatistics.load(tmp_path / "frozen" / "normalization.json")
    assert np.array_equal(kept.mean, left.mean)
    assert np.array_equal(kept.var, left.var)
    assert kept.count == left.count
    assert train(tmp_path / "bare", *FAST) == 0
    assert not (tmp_path / "bare" / "normalization.json").exists()


# What a run reads is in its folder.

FROZEN = ("--wrappers.normalize-observations", "frozen", "--wrappers.normalization")
NOISE = ("--wrappers.noise-fraction", "0.5", "--wrappers.noise-histograms")


def write_histograms(path: Path, scale: float = 1.0) -> Path:
    values = scale * np.random.default_rng(0).normal(size=(50, 3))
    FeatureHistograms.of(values, 5).save(path)
    return path


def write_statistics(path: Path, scale: float = 1.0) -> Path:
    write_arrays(path, {"mean": [0.1, 0.2, 0.3], "var": [scale, 2 * scale, 3 * scale], "count": 10})
    return path


@pytest.mark.parametrize(
    ("flags", "write", "change"), [(FROZEN, write_statistics, "gone"), (NOISE, write_histograms, "changed")]
)
def test_a_run_needs_no_file_outside_its_folder(
    change: str,
    flags: tuple[str, ...],
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train_with(name: str, *more: str) -> int:
        return train(tmp_path / name, *FAST, *flags, str(write(tmp_path / "own.json")), *more)

    assert train_with("whole") == 0
    with patch.object(RunFolder, "finish", side_effect=KeyboardInterrupt), contextlib.suppress(KeyboardInterrupt):
        train_with("cut")
    if change == "gone":
        (tmp_path / "own.json").unlink()
    else:
        write(tmp_path / "own.json", scale=100.0)
    moved = (tmp_path / "cut").rename(tmp_path / "moved")
    assert main(["train", "--resume", str(moved), "--no-progress"]) == 0
    same_run(tmp_path / "whole", moved)
    best = evaluate(capsys, moved, "best")
    assert np.isfinite(best[1])
    assert main(["export", "--run", str(moved), "--out", str(tmp_path / "policy.safetensors")]) == 0
    assert main(["plot", str(moved), "--out", str(tmp_path / "out.png")]) == 0
    # Its config makes the run again, from anywhere, and that one needs nothing of the first.
    words = ["train", "--config", str(moved / "config.yaml"), "--no-progress", "--run-dir", str(tmp_path / "again")]
    assert main(words) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (moved / "config.yaml").read_text()
    same_run(moved, tmp_path / "again")
    shutil.rmtree(moved)
    assert evaluate(capsys, tmp_path / "again", "best") == best


@pytest.mark.parametrize(("flags", "write"), [(FROZEN, write_statistics), (NOISE, write_histograms)])
def test_a_copy_that_was_edited_is_refused(
    flags: tuple[str, ...], write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, *FAST, *flags, str(write(tmp_path / "own.json"))) == 0
    (run / "DONE").unlink()
    (copy,) = (run / "inputs").iterdir()
    write(copy, scale=2.0)
    commands = {
        "eval": ["eval", "--run", str(run)],
        "export": ["export", "--run", str(run), "--out", str(tmp_path / "policy")],
        "resume": ["train", "--resume", str(run)],
        "config": ["train", "--config", str(run / "config.yaml"), "--run-dir", str(tmp_path / "again")],
    }
    capsys.readouterr()
    for words in commands.values():
        assert main(words) == 2
        assert capsys.readouterr().err == f"sparserl: {copy} was edited: it is not what the run began with\n"
    copy.unlink()
    for name in ("eval", "export", "resume"):
        assert main(commands[name]) == 2
        assert capsys.readouterr().err == f"sparserl: cannot read {copy}: No such file or directory\n"
