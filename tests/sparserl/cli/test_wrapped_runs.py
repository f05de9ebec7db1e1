"""Runs with wrappers: what a checkpoint's policy is evaluated with is what it was trained with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.runs import FAST, WRAPPED, rows, train

from sparserl.cli import main
from sparserl.cli.trained_run import open_trained
from sparserl.envs import FeatureHistograms, ObservationStatistics
from sparserl.video import play

pytestmark = pytest.mark.usefixtures("tiny_env")


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
    assert step == 100
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
