"""`sparserl fit --task reconstruct|rbm`: what runs leave, that they go on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.killed import Killed
from support.runs import rows, same_run

from sparserl.cli import main
from sparserl.continual.supervised.fit_recorder import FitRecorder
from sparserl.continual.supervised.fit_tasks import FIT_TASKS
from sparserl.errors import ConfigError
from sparserl.experiment import open_run, resolve
from sparserl.experiment.fit_config import FitConfig
from sparserl.plots.fits import measure_of, plot_fits
from sparserl.plots.style import Run

SHORT = ("--scaling", "none", "--learner.hidden", "20", "--learner.epochs", "3", "--no-progress", "--density", "0.3")


def fit(folder: Path, task: str, *flags: str) -> int:
    own = ("--task", task, "--checkpoint-every-steps", "9", "--run-dir", str(folder))
    return main(["fit", "digits", *SHORT, *own, *flags])


@pytest.fixture(scope="module", params=["reconstruct", "rbm"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / request.param
    assert fit(path, request.param) == 0
    return path


def test_what_a_run_leaves(finished: Path) -> None:
    result: dict[str, Any] = json.loads((finished / "result.json").read_text())
    assert result["accuracy_test"] is result["accuracy_test_best"] is result["accuracy_validation"] is None
    evaluated = rows(finished / "eval.csv")
    assert {row["accuracy"] for row in evaluated} == {""}
    test = [float(row["loss"]) for row in evaluated if row["part"] == "test"]
    assert len(test) == 4  # before the first epoch too
    assert test[-1] < test[0]
    assert result["loss_test"] == pytest.approx(test[-1])
    validation = [float(row["loss"]) for row in evaluated if row["part"] == "validation"]
    assert result["epoch_best"] == 1 + int(np.argmin(validation))
    assert result["loss_test_best"] == pytest.approx(test[result["epoch_best"]])
    assert {row["fit/accuracy_test"] for row in rows(finished / "progress.csv")} == {""}
    outputs = 64 if finished.name == "reconstruct" else 0
    assert result["connections"] == round(0.3 * 64 * 20) + round(0.3 * 20 * outputs)
    biases = 20 + 64  # of hidden units, and of outputs or visible units
    assert result["params_nonzero"] == result["connections"] + biases
    assert (finished / "plot.png").stat().st_size > 10_000


@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_goes_on(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = FitRecorder.save_checkpoint

    def killed(recorder: FitRecorder) -> None:
        save(recorder)
        if recorder.learner.steps == 18:
            raise Killed

    monkeypatch.setattr(FitRecorder, "save_checkpoint", killed)
    with pytest.raises(Killed):
        fit(tmp_path / "run", finished.name)
    monkeypatch.setattr(FitRecorder, "save_checkpoint", save)
    assert main(["fit", "--resume", str(tmp_path / "run"), "--no-progress"]) == 0
    same_run(tmp_path / "run", finished)


def test_an_opened_run_evaluates_and_predicts_no_classes(finished: Path) -> None:
    opened: Any = open_run(finished)
    scores = opened.evaluate()
    assert scores["test"].loss == pytest.approx(opened.result["loss_test_best"], rel=1e-5)
    with pytest.raises(ConfigError, match=f"a run of --task {finished.name} predicts no classes; --task classify does"):
        opened.predict(np.zeros((1, 64)))


def test_runs_with_and_without_classes_are_not_drawn_together(finished: Path, tmp_path: Path) -> None:
    assert measure_of([finished]) == "loss"
    plot_fits([Run(finished, "a")], tmp_path / "plot.png")
    (tmp_path / "eval.csv").write_text((finished / "eval.csv").read_text().replace(",,", ",0.5,"))
    with pytest.raises(ConfigError, match=r"classifies and .* does not: they are drawn apart"):
        measure_of([finished, tmp_path])


def test_every_task_is_one_of_the_config() -> None:
    for task in FIT_TASKS:
        assert FitConfig(task=task).task == task  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "learner", "problem"),
    [
        ("reconstruct", {"class_weights": "balanced"}, "--learner.class-weights balanced is for --task classify"),
        ("rbm", {"class_weights": "balanced"}, "--learner.class-weights balanced is for --task classify, not rbm"),
        ("classify", {"gibbs_steps": 2}, "--learner.gibbs-steps 2 is for --task rbm, not classify"),
        ("recontsruct", {}, "reconstruct"),
    ],
)
def test_options_of_another_task_are_refused(task: str, learner: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        resolve("fit", {"data": "wine", "task": task, "learner": learner})


def test_the_preset_of_the_published_rbm() -> None:
    config: Any = resolve("fit", {}, preset="set_rbm_coil20")
    assert (config.task, config.learner.hidden, config.topology.epsilon) == ("rbm", (200,), (10.0,))
    assert (config.topology.new_value, config.topology.shrink_at_end) == ("normal", True)
