"""`sparserl continual`: what a command line resolves to, what a run leaves, and that it repeats and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.idx_files import real_data_dir, write_mnist
from support.runs import OF_THE_MACHINE, fingerprint, rows
from support.train_runs import write_train_run
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.continual.strategies import STRATEGIES
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.recorder import LOGS
from sparserl.continual.supervised.sequences import SEQUENCES
from sparserl.experiment.presets import continual_presets
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import full_checkpoints

pytestmark = pytest.mark.usefixtures("undrawn")  # but that of `finished`

SHORT = ("--learner.epochs", "2", "--learner.batch-size", "64", "--checkpoint-every-steps", "8", "--no-progress")
"""Five tasks of 10 gradient steps on the embedded digits."""
PROMISED = {
    *("sequence", "scenario", "method", "seed", "tasks", "matrix", "acc", "acc_weighted", "bwt", "fwt", "steps"),
    *("forgetting_final", "forgetting_max", "learning_accuracy", "average_incremental_accuracy", "undefined"),
    *("params_nonzero_per_task", "params_dense", "bytes_parameters", "bytes_indices", "bytes_optimizer", "memory"),
    *("wall_s", "layers", "sequence_record"),
}


def learn(folder: Path, *flags: str) -> int:
    return main(["continual", *SHORT, "--run-dir", str(folder), *flags])


def resume(folder: Path, *flags: str) -> int:
    return main(["continual", "--resume", str(folder), "--no-progress", *flags])


def outcome(folder: Path) -> dict[str, Any]:
    """Newest checkpoint, logs and result, without wall-clock values."""
    state = checkpoint.load(full_checkpoints(_Folder(folder))[-1])  # type: ignore[arg-type]
    for name in ("elapsed_s", "process", "csv_bytes"):
        state["recorder"].pop(name)
    logs = {name: rows(folder / f"{name}.csv") for name in LOGS}
    for row in logs["progress"]:
        for name in OF_THE_MACHINE:
            row.pop(name)
    result = json.loads((folder / "result.json").read_text())
    for name in ("wall_s", "steps_per_second", "cpu_s", "memory_peak_bytes", "bytes_indices"):
        result.pop(name)
    return {"state": state, "logs": logs, "result": result}


class _Folder:
    def __init__(self, path: Path):
        self.checkpoints = path / "checkpoints"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of SpaceNet; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert learn(path) == 0
    return path


# A run.


def test_a_run_leaves_its_files(finished: Path) -> None:
    files = {path.name for path in finished.iterdir() if path.is_file()}
    own = {"config.yaml", "command.txt", "data_dir.txt", "versions.json", "plot.png", "result.json", "DONE"}
    assert files == own | {f"{name}.csv" for name in LOGS}
    assert [path.name for path in full_checkpoints(_Folder(finished))] == ["step-000000048", "step-000000050"]  # type: ignore[arg-type]
    assert (finished / "command.txt").read_text().startswith("sparserl continual --learner.epochs 2")
    assert (finished / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_result_has_its_keys(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert set(result) >= PROMISED
    assert (result["sequence"], result["method"], result["tasks"], result["steps"]) == (
        "split_digits",
        "spacenet",
        5,
        50,
    )
    assert result["layers"]["network.0"]["connections_per_task"] == dict.fromkeys("01234", 500)
    assert result["sequence_record"]["class_order"] == list(range(10))


def test_the_same_seed_repeats_and_another_does_not(finished: Path, tmp_path: Path) -> None:
    assert learn(tmp_path / "again", "--checkpoint-every-steps", "6", "--log-every-steps", "7") == 0
    states = [outcome(path) for path in (finished, tmp_path / "again")]
    assert_equal_trees(*(state["state"]["learner"] for state in states))
    for name in ("eval", "connections", "topology"):
        assert states[0]["logs"][name] == states[1]["logs"][name]
    assert learn(tmp_path / "other", "--seed", "1") == 0
    assert rows(finished / "eval.csv") != rows(tmp_path / "other" / "eval.csv")


def test_the_config_of_a_run_repeats_it(finished: Path, tmp_path: Path) -> None:
    words = ["continual", "--config", str(finished / "config.yaml"), "--no-progress"]
    assert main([*words, "--run-dir", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "config.yaml").read_text() == (finished / "config.yaml").read_text()
    assert_equal_trees(outcome(finished), outcome(tmp_path / "again"))


def test_a_random_order_of_classes_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert learn(tmp_path / "run", "--class-order", "random", "--tasks", "2", "--method", "naive") == 0
    order = json.loads((tmp_path / "run" / "result.json").read_text())["sequence_record"]["class_order"]
    assert sorted(order) == list(range(10)) != order
    assert f"2 tasks: classes {' '.join(map(str, order[:5]))}; classes" in capsys.readouterr().out


@pytest.mark.slow
def test_spacenet_on_mnist_reaches_what_the_authors_code_does(tmp_path: Path) -> None:
    words = ["--sequence", "split_mnist", "--seed", "13", "--data-dir", str(real_data_dir())]
    assert main(["continual", *words, "--run-dir", str(tmp_path / "run"), "--no-progress"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["connections"] == 58_600
    assert 0.66 < result["acc"] < 0.80  # their script over ten seeds: 66.5 to 75.0 %


# Stopping and going on.


def _at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    original, count = SupervisedLearner._step, [0]

    def replacement(self: SupervisedLearner, *args: Any) -> float:
        count[0] += 1
        if count[0] == step:
            act()
        return original(self, *args)

    monkeypatch.setattr(SupervisedLearner, "_step", replacement)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 13), (signal.SIGTERM, 20)])
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on(
    number: signal.Signals,
    step: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: Path,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        _at_step(patch, step, lambda: os.kill(os.getpid(), number))
        assert learn(run) == 130
    assert (
        capsys.readouterr().err.strip() == f"stopped at step {step}; continue with: sparserl continual --resume {run}"
    )
    assert not (run / "DONE").exists()
    assert resume(run) == 0
    assert f"resuming {run} at step {step}" in capsys.readouterr().out
    assert_equal_trees(outcome(finished), outcome(run))


def test_a_run_that_fails_keeps_its_folder_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    with monkeypatch.context() as patch:
        _at_step(patch, 34, lambda: 1 / 0)
        assert learn(tmp_path / "run") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "sparserl: the run failed (ZeroDivisionError: division by zero), see error.txt in its folder; "
        f"continue with: sparserl continual --resume {tmp_path / 'run'}"
    )
    assert resume(tmp_path / "run") == 0
    assert_equal_trees(outcome(finished), outcome(tmp_path / "run"))


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on files in `tmp_path/data/mnist` that failed in its second task."""
    write_mnist(tmp_path / "data" / "mnist", train=[*range(10)] * 6, test=[*range(10)] * 2)
    words = ["--sequence", "split_mnist", "--method", "naive", "--learner.hidden", "8", "--learner.batch-size", "4"]
    with monkeypatch.context() as patch:
        _at_step(patch, 15, lambda: 1 / 0)
        assert learn(tmp_path / "run", *words, "--data-dir", str(tmp_path / "data")) == 1
    return tmp_path / "run"


def test_resume_finds_the_data_or_is_told_where_it_is(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(tmp_path) not in (cut_off / "config.yaml").read_text()
    (tmp_path / "data").rename(tmp_path / "moved")
    before = fingerprint(cut_off)
    monkeypatch.setenv("SPARSERL_DATA", str(tmp_path / "moved"))  # where the data was then counts, not what is set now
    assert resume(cut_off) == 2
    assert f"no train-images-idx3-ubyte.gz in {tmp_path / 'data' / 'mnist'}" in capsys.readouterr().err
    assert fingerprint(cut_off) == before
    assert resume(cut_off, "--data-dir", str(tmp_path / "moved")) == 0


def test_resume_on_changed_data_is_refused(cut_off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist(tmp_path / "data" / "mnist", train=[*range(10)] * 6, test=[*range(9, -1, -1)] * 2)
    before = fingerprint(cut_off)
    capsys.readouterr()
    for command in (("continual", "--no-progress", "--resume"), ("inspect", "--run")):
        assert main([*command, str(cut_off)]) == 2
        error = capsys.readouterr().err
        assert "the data of split_mnist is not what it was when the run began" in error
        assert error.count("\n") == 1
    assert fingerprint(cut_off) == before


def of_another_run(path: Path) -> None:
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["learner"]["learning_rate"] = 0.5
    (path / "config.yaml").write_text(yaml.safe_dump(config))


def without_checkpoints(path: Path) -> None:
    for found in (path / "checkpoints").iterdir():
        found.rename(found.with_name("other"))
        break
    for found in (path / "checkpoints").glob("step-*"):
        found.rename(found.with_name(f"{found.name}.tmp"))


def short_log(path: Path) -> None:
    (path / "eval.csv").write_text("global_step\n")


def truncated(path: Path) -> None:
    file = full_checkpoints(_Folder(path))[-1] / "tensors.safetensors"  # type: ignore[arg-type]
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (of_another_run, "the checkpoint belongs to another run"),
        (without_checkpoints, "has no checkpoint yet"),
        (short_log, "eval.csv is shorter than when the checkpoint was written"),
        (truncated, "tensors.safetensors was truncated or edited"),
    ],
)
def test_a_damaged_run_is_refused_and_nothing_is_overwritten(
    damage: Any, message: str, cut_off: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(cut_off)
    before = fingerprint(cut_off)
    capsys.readouterr()
    assert resume(cut_off) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert fingerprint(cut_off) == before


def test_a_finished_run_is_not_resumed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(finished)
    assert resume(finished) == 2
    assert capsys.readouterr().err.startswith(f"sparserl: {finished} is finished; there is nothing to resume, unless")
    assert fingerprint(finished) == before


# Other commands on it.


def test_plot_takes_one_run_or_several(finished: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished, tmp_path / "seed1") / "config.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(other.read_text()) | {"seed": 1}))
    assert main(["plot", str(finished), "--out", str(tmp_path / "one.png")]) == 0
    assert main(["plot", str(finished), str(other.parent), "--out", str(tmp_path / "two.png")]) == 0
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG")
    assert two.startswith(b"\x89PNG")
    assert one != two


def test_commands_for_other_runs_refuse_it(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_train_run(tmp_path / "trained", [1.0, 2.0], algo="td3")
    (tmp_path / "trained" / "progress.csv").write_text("global_step,topology/density\n10,1.0\n")
    refusals = {
        f"eval --run {finished}": "is a run of a classifier, which has no policy",
        f"enjoy --run {finished}": "is a run of a classifier, which has no policy",
        f"train --resume {finished}": "is a run of `sparserl continual`; this takes runs of `sparserl train`",
        f"continual --resume {tmp_path / 'trained'}": "is a run of `sparserl train`",
        f"plot {finished} {tmp_path / 'trained'}": "do not go into one picture",
        f"plot {finished} --layer network.0": "--layer draws a run of `sparserl train`",
        f"plot {finished} --topology": "--topology draws a run of `sparserl train`",
    }
    for words, message in refusals.items():
        assert main(words.split()) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("what", "names"),
    [("sequences", SEQUENCES), ("methods", STRATEGIES), ("presets", continual_presets())],
)
def test_list(what: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    assert set(names) <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}
