"""Runs of `sparserl fit`: what they leave, that they repeat and go on, and what other commands make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.fits import OF_FINISHED, fit, result_of
from support.killed import Killed
from support.runs import fingerprint, last_state, rows, same_run
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.continual.supervised.fit_recorder import LOGS, FitRecorder
from sparserl.errors import CheckpointError, ConfigError
from sparserl.experiment import open_run, resolve, run
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")  # but that of `finished`


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of RigL; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert fit(path, *OF_FINISHED) == 0
    return path


# What a run leaves.


def test_a_run_leaves_its_files(finished: Path) -> None:
    files = {path.name for path in finished.iterdir() if path.is_file()}
    own = {"config.yaml", "command.txt", "data_dir.txt", "versions.json", "plot.png", "result.json", "DONE"}
    assert files == own | {f"{name}.csv" for name in LOGS}
    assert (finished / "command.txt").read_text().startswith("sparserl fit digits --learner.epochs 3")


def test_the_result_says_what_the_logs_say(finished: Path) -> None:
    result, evaluations = result_of(finished), rows(finished / "eval.csv")
    of_part = {
        part: [float(row["accuracy"]) for row in evaluations if row["part"] == part] for part in ("test", "validation")
    }
    assert len(of_part["test"]) == 4  # before the first epoch too
    assert len(of_part["validation"]) == 3
    best = int(np.argmax(of_part["validation"])) + 1
    assert (result["epochs"], result["stopped"], result["steps"]) == (3, "all epochs", 63)
    assert (result["accuracy_test"], result["epoch_best"]) == (of_part["test"][-1], best)
    assert (result["accuracy_test_best"], result["accuracy_validation_best"]) == (
        of_part["test"][best],
        of_part["validation"][best - 1],
    )
    assert result["accuracy_test"] > 0.5
    assert result["connections"] == sum(result["layers"])
    assert result["params_dense"] == 64 * 30 + 30 * 20 + 20 * 10 + 60
    epochs = [row for row in rows(finished / "progress.csv") if row["fit/accuracy_test"]]
    assert [int(float(row["train/epoch"])) for row in epochs] == [0, 1, 2]
    assert float(epochs[-1]["cost/flops_train"]) == result["flops_train"]


def test_the_config_of_a_run_repeats_it(finished: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(finished / "config.yaml"), "--no-progress", "--run-dir", str(tmp_path / "again")]
    assert main(words) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    same_run(finished, tmp_path / "again")


@pytest.mark.parametrize("stop", [4, 13, 42])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    finished: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = FitRecorder.save_checkpoint

    def die(self: FitRecorder) -> None:
        saved(self)
        if self.steps >= stop:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FitRecorder, "save_checkpoint", die)
        with pytest.raises(Killed):
            fit(tmp_path / "cut", *OF_FINISHED)
    assert main(["fit", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(finished, tmp_path / "cut")
    assert_equal_trees(*(checkpoint.load(path / "checkpoints" / "best") for path in (finished, tmp_path / "cut")))


def test_a_run_that_stops_early_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--learner.patience", "1", "--learner.learning-rate", "1e-9", "--learner.epochs", "9")
    assert fit(tmp_path / "run", *flags) == 0
    result = result_of(tmp_path / "run")
    assert (result["epochs"], result["stopped"], result["epoch_best"]) == (2, "patience", 1)
    assert last_state(tmp_path / "run")["learner"]["stopped"]
    assert "2 (patience)" in capsys.readouterr().out


def test_a_run_without_validation_samples_has_no_best(tmp_path: Path) -> None:
    assert fit(tmp_path / "run", "--validation-share", "0", "--learner.epochs", "1") == 0
    result = result_of(tmp_path / "run")
    assert result["epoch_best"] is result["accuracy_validation"] is result["accuracy_test_best"] is None
    opened: Any = open_run(tmp_path / "run")
    assert opened.which == "last"
    with pytest.raises(ConfigError, match=r"no best checkpoint.*--checkpoint last"):
        open_run(tmp_path / "run", "best")


def test_an_ensemble_is_reported_and_answers_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--ensemble", "2", "--learner.epochs", "6", "--density", "0.3", "--learner.learning-rate", "0.02")
    assert fit(tmp_path / "run", *words) == 0
    printed, found = capsys.readouterr().out, result_of(tmp_path / "run")["ensemble"]
    assert "test accuracy, ensemble of 2" in printed
    assert f"{found['accuracy_test']:.2%}" in printed
    assert len(found["accuracies_test"]) == len(found["epochs"]) == len(found["calibration_errors"]) == 2
    assert [2 < found["epochs"][0] <= 4 < found["epochs"][1]] == [True]
    assert 0.0 < found["disagreement"] < 1.0
    assert found["kl_divergence"] > 0.0
    opened: Any = open_run(tmp_path / "run")
    score = opened.evaluate()["test"]
    assert score.accuracy == found["accuracy_test"]
    assert score.loss == pytest.approx(found["negative_log_likelihood"])
    assert evaluated(capsys, "--run", tmp_path / "run")["scores"]["test"]["accuracy"] == found["accuracy_test"]
    alone: Any = open_run(tmp_path / "run", "last")
    assert alone.evaluate()["test"].accuracy == result_of(tmp_path / "run")["accuracy_test"]


# A run that is opened.


def test_an_opened_run_repeats_its_accuracies(finished: Path) -> None:
    result, before = result_of(finished), fingerprint(finished)
    best: Any = open_run(finished, "best")
    last: Any = open_run(finished)
    assert (best.which, last.which) == ("best", "last")
    assert best.evaluate()["test"].accuracy == result["accuracy_test_best"]
    assert best.evaluate()["validation"].accuracy == result["accuracy_validation_best"]
    assert last.evaluate()["test"].accuracy == result["accuracy_test"]
    assert set(last.evaluate()) == {"train", "validation", "test"}
    assert fingerprint(finished) == before


def test_an_opened_run_predicts_the_classes_of_raw_samples(finished: Path) -> None:
    opened: Any = open_run(finished)
    x, y = load_digits(return_X_y=True)
    test = opened.learner.only_task.test
    predicted = opened.predict(opened.learner.only_task.test.features[test.rows])
    assert (predicted == np.array([str(label) for label in test.labels])).mean() == opened.evaluate()["test"].accuracy
    probabilities = opened.probabilities(x[:7])
    assert probabilities.shape == (7, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert (opened.predict(x) == y.astype(str)).mean() > 0.5
    assert opened.predict(np.empty((0, 64))).shape == (0,)


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (np.zeros((2, 63)), r"must have 64 features, as \(N, 64\), got \(2, 63\)"),
        (np.zeros(64), r"got \(64,\)"),
        (np.full((1, 64), np.nan), "finite"),
        (np.full((1, 64), "a"), "finite numbers"),
    ],
)
def test_other_samples_are_refused(finished: Path, x: Any, what: str) -> None:
    opened: Any = open_run(finished)
    with pytest.raises(ConfigError, match=what):
        opened.predict(x)


def test_a_run_is_trained_from_python(tmp_path: Path) -> None:
    wish = {"data": "iris", "learner": {"hidden": [8], "epochs": 2}, "density": 0.5}
    opened: Any = run(resolve("fit", wish), tmp_path / "run")
    assert opened.result["epochs"] == 2
    assert opened.classes == ("setosa", "versicolor", "virginica")
    assert RunFolder.open(tmp_path / "run").is_done


def evaluated(capsys: pytest.CaptureFixture[str], *words: Any) -> Any:
    capsys.readouterr()
    assert main(["eval", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_eval_says_the_accuracies_of_a_checkpoint(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(finished)
    best = evaluated(capsys, "--run", finished)
    assert best["scores"]["test"]["accuracy"] == result["accuracy_test_best"]
    last = evaluated(capsys, "--run", finished, "--checkpoint", "last")
    assert (last["checkpoint"], last["scores"]["test"]["accuracy"]) == ("last", result["accuracy_test"])
    assert main(["eval", "--run", str(finished)]) == 0
    assert f"{result['accuracy_test_best']:.2%}" in capsys.readouterr().out


@pytest.mark.parametrize("labelled", [True, False])
def test_eval_predicts_the_samples_of_a_file(
    finished: Path, tmp_path: Path, labelled: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = load_digits(return_X_y=True)
    data, out = tmp_path / "table.npz", tmp_path / "out.csv"
    np.savez(data, x=x[:50], **({"y": y[:50]} if labelled else {}))
    said = evaluated(capsys, "--run", finished, "--data", data, "--out", out)
    opened: Any = open_run(finished)
    predicted = opened.predict(x[:50])
    written = rows(out)
    assert [row["class"] for row in written] == predicted.tolist()
    assert [row["sample"] for row in written] == list(map(str, range(50)))
    assert float(written[3]["p:3"]) == pytest.approx(opened.probabilities(x[:50])[3, 3], rel=1e-6)
    assert said["samples"] == 50
    assert said["accuracy"] == (pytest.approx((predicted == y[:50].astype(str)).mean()) if labelled else None)


def test_features_of_a_file_are_taken_by_their_names(tmp_path: Path) -> None:
    x, y = load_digits(n_class=3, return_X_y=True)
    names = [f"f{column}" for column in range(64)]

    def write(path: Path, order: list[int], named: list[str]) -> str:
        lines = [",".join([*(named[column] for column in order), "label"])]
        lines += [
            ",".join([*(f"{row[column]:g}" for column in order), str(label)]) for row, label in zip(x, y, strict=True)
        ]
        path.write_text("\n".join(lines))
        return str(path)

    trained = write(tmp_path / "trained.csv", list(range(64)), names)
    opened: Any = run(resolve("fit", {"data": trained, "learner": {"epochs": 1}}), tmp_path / "run")
    turned = opened.read_table(write(tmp_path / "turned.csv", list(range(64))[::-1], names))
    np.testing.assert_array_equal(turned.x, x)
    with pytest.raises(ConfigError, match="column of a feature 'f7'"):
        opened.read_table(write(tmp_path / "other.csv", list(range(64)), [*names[:7], "f99", *names[8:]]))
    write(tmp_path / "trained.csv", list(range(64))[::-1], names)
    for which in (None, "best", "last"):
        with pytest.raises(CheckpointError, match=r"the data of .*trained.csv.* is not what it was when the run began"):
            open_run(tmp_path / "run", which)


def test_eval_refuses_what_such_a_run_has_no_use_for(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros((3, 63)))
    out = tmp_path / "out.csv"
    for words, said in {
        f"--data {tmp_path / 'other.npz'} --out {out}": "has 63 features, and",
        f"--data {tmp_path / 'none.npz'} --out {out}": "no file or folder",
        f"--data {tmp_path / 'other.npz'}": "--data and --out go together",
        f"--out {out}": "--data and --out go together",
        "--episodes 3": "--episodes is for runs of agents",
        "--max-steps 3": "--max-steps is for runs of agents",
    }.items():
        capsys.readouterr()
        assert main(["eval", "--run", str(finished), *words.split()]) == 2
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.err.count("\n") == 1
    assert not out.exists()


# Other commands.


def test_plots_are_drawn(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path / "set", "--density", "0.3", "--learner.epochs", "2") == 0
    for name, runs in {"one": [finished], "two": [finished, tmp_path / "set"]}.items():
        assert main(["plot", *map(str, runs), "--out", str(tmp_path / f"{name}.svg")]) == 0
    one, two = ((tmp_path / f"{name}.svg").read_text() for name in ("one", "two"))
    assert all(label in one for label in ("validation samples", "test samples", "rigl d0.3 on digits, seed 0"))
    assert all(label in two for label in ("accuracy on test samples", "rigl d0.3", "set d0.3"))
    capsys.readouterr()
    assert main(["plot", str(finished), "--layer", "network.0"]) == 2
    assert "draws a run of `sparserl train`" in capsys.readouterr().err


def test_a_report_has_groups_of_seeds_with_intervals(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path / "seed 1", *OF_FINISHED, "--seed", "1") == 0
    assert fit(tmp_path / "set", "--density", "0.2", "--learner.epochs", "1") == 0
    capsys.readouterr()
    runs = [finished, tmp_path / "seed 1", tmp_path / "set"]
    words = ["report", *map(str, runs), "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "digits, classify: accuracy" in printed
    (record,) = json.loads((tmp_path / "a.json").read_text())["fits"]["tables"]
    rigl, of_set = record["groups"]
    assert (rigl["label"], rigl["seeds"], of_set["label"], of_set["seeds"]) == ("rigl d0.3", [0, 1], "set d0.2", [0])
    values = [result_of(path)["accuracy_test"] for path in runs[:2]]
    accuracy = rigl["metrics"]["accuracy_test"]
    assert accuracy["values"] == values
    assert accuracy["mean"]["value"] == pytest.approx(np.mean(values))
    assert accuracy["mean"]["low"] == pytest.approx(min(values))
    assert of_set["metrics"]["accuracy_test"]["mean"]["low"] is None
    assert of_set["costs"]["epochs"] == [1]
    assert len(rigl["accuracy_by_epoch"]) == 4
    assert "rigl d0.3" in (tmp_path / "a.html").read_text()


def test_a_run_without_validation_is_reported_without_its_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path / "run", "--validation-share", "0", "--learner.epochs", "1") == 0
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "no interval" in capsys.readouterr().out


def test_other_commands_say_what_they_take(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in {
        f"train --resume {finished}": "is a run of `sparserl fit`; this takes runs of `sparserl train`",
        f"enjoy --run {finished}": "is a run of a classifier",
        f"fit --resume {finished}": "is finished",
        f"fit --resume {finished} --density 0.2": "takes no --density",
    }.items():
        capsys.readouterr()
        assert main(words.split()) == 2
        assert said in capsys.readouterr().err


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "presets"]) == 0
    assert "sparserl fit --preset:\n  digits" in capsys.readouterr().out
