"""`sparserl.continual.run`: tasks of arrays, with and without files, and methods outside of sparserl."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparserl.continual
from sparserl.cli import main
from sparserl.continual import ContinualResult, Strategy, run
from sparserl.continual.strategies import ENTRY_POINTS, methods_of, spec_of
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.errors import ConfigError
from sparserl.experiment import open_run
from sparserl.layers.linear import linear

DOCS = Path(__file__).parents[3] / "docs" / "sequences.md"
TINY = {"hidden": [8], "epochs": 2, "batch_size": 16}


def blobs(labels: list[Any], seed: int, n_features: int = 4, count: int = 30) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    arrays = []
    for _ in range(2):
        y = np.repeat(np.arange(len(labels)), count)
        arrays += [3 * np.eye(n_features)[(y + seed) % n_features] + rng.normal(size=(len(y), n_features))]
        arrays += [np.array(labels)[y]]
    return tuple(arrays)  # type: ignore[return-value]  # of four


TASKS = [blobs([0, 1], 0), blobs([2, 3], 2)]


@pytest.fixture
def nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_written")
def test_tasks_of_arrays_are_learned_without_files() -> None:
    result = run(TASKS, TINY, "joint", seed=1)
    assert isinstance(result, ContinualResult)
    assert result.matrix.shape == (2, 2)
    assert np.isnan(result.matrix[0, 1])  # nothing is asked of classes that were not learned
    assert result.average == pytest.approx(result.matrix[1].mean())
    assert result.forgetting == pytest.approx(result.matrix[0, 0] - result.matrix[1, 0])
    assert result.task_names == ("task 0", "task 1")
    assert (result.folder, result.learner.sequence.scenario) == (None, "class")
    assert result.learner.accuracies() == result.matrix[1].tolist()
    assert result.numbers_kept == result.learner.numbers_kept() == result.record["numbers_kept"] > 0
    again = run(TASKS, LearnerConfig(hidden=(8,), epochs=2, batch_size=16), "joint", seed=1)
    assert np.array_equal(again.matrix, result.matrix, equal_nan=True)


@pytest.mark.usefixtures("nothing_written")
def test_the_scenario_of_arrays_follows_their_labels() -> None:
    assert run([blobs([0, 1], 0), blobs([0, 1], 1)], TINY).learner.sequence.scenario == "domain"
    told = run([blobs([0, 1], 0), blobs([0, 1], 1)], TINY, "packnet", scenario="task").learner.sequence
    assert [task.outputs for task in told.tasks] == [(0, 1), (2, 3)]
    single = run([blobs(["a"], 0), blobs(["b"], 1)], TINY)  # a class a task
    assert (single.learner.sequence.n_outputs, single.record["sequence_record"]["class_names"]) == (2, ["a", "b"])


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("topology", [{"method": "snip"}, {"method": "static", "output_layer": "sparse"}])
def test_packnet_keeps_the_rows_of_a_sparse_output_layer(topology: dict[str, Any]) -> None:
    learner = {**TINY, "hidden": [16], "epochs": 4}
    result = run(TASKS, learner, "packnet", scenario="task", topology={"density": 0.4, **topology})
    assert result.matrix[0, 0] == result.matrix[1, 0]
    [network] = result.learner.networks
    *_, output = network.shared.values()
    assert linear(output).is_sparse
    *_, usage = result.learner.usage()
    assert sum(usage.owned) == linear(output).weights.numel()


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("method", ["spacenet", "static_sparse", "afaf"])
def test_tasks_may_have_some_classes_in_common(method: str) -> None:
    tasks = [blobs([0, 1], 0), blobs([1, 2], 1), blobs([2, 0], 2)]
    small = None if method == "afaf" else {"connections": [20, 20, 8], "selected": [15, 10], "reserved": [4, 3]}
    result = run(tasks, {**TINY, "hidden": [30, 20], "epochs": 4}, method, options=small)
    assert result.learner.sequence.scenario == "domain"
    [network] = result.learner.networks
    *_, output = network.shared.values()
    answering = [*result.learner.answering(2)][-1]
    assert linear(answering).weights.numel() == linear(output).weights.numel()  # nothing is away


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("method", ["nearest_mean", "streaming_lda"])
def test_a_class_that_nobody_has_seen_is_no_answer(method: str) -> None:
    first = blobs([0, 1], 0)
    later = run([first, blobs([1, 2], 1)], None, method, scaling="none")
    assert later.matrix[0, 0] == run([first], None, method, scaling="none").matrix[0, 0]


@pytest.mark.usefixtures("nothing_written")
def test_text_as_pandas_has_it() -> None:
    x, y, *held_out = blobs(["a", "b"], 0)
    told = [(x, y.astype(object), held_out[0], held_out[1].astype(object))]
    assert np.array_equal(run(told, TINY).matrix, run([(x, y, *held_out)], TINY).matrix)
    with pytest.raises(ConfigError, match="must hold whole numbers or text, got object"):
        run([(x, np.where(y == "a", None, y), *held_out)], TINY)


@pytest.mark.usefixtures("nothing_written")
def test_arrays_by_name_and_pictures() -> None:
    x, y, x_test, y_test = blobs([0, 1], 0)
    first = {
        "name": "one",
        "x": x.reshape(-1, 2, 2),
        "y": y.tolist(),
        "x_test": x_test.reshape(-1, 2, 2),
        "y_test": y_test,
    }
    result = run([first, TASKS[1]], TINY, scaling="all_features")
    assert result.task_names == ("one", "task 1")
    assert run([first], TINY).learner.sequence.image == (1, 2, 2)
    assert np.array_equal(result.matrix, run(TASKS, TINY, scaling="all_features").matrix, equal_nan=True)
    without = run([(x, y), TASKS[1][:2]], TINY, test_share=0.5)
    assert [len(task.test) for task in without.learner.sequence.tasks] == [30, 30]


@pytest.mark.usefixtures("nothing_written")
def test_a_sequence_by_name() -> None:
    result = run("split_digits", {"epochs": 1}, "naive", topology={"method": "set", "density": 0.2})
    assert result.matrix.shape == (5, 5)
    assert result.record["connections"] < 0.25 * result.record["connections_dense"]
    with pytest.raises(ConfigError, match="halfcheetah_gravity has environments, which agents learn"):
        run("halfcheetah_gravity", method="ewc")
    for option, value in {"name": "mine", "scaling": "none", "test_share": 0.5}.items():
        with pytest.raises(ConfigError, match=f"{option} is for tasks of arrays, and split_digits has its own"):
            run("split_digits", method="nearest_mean", **{option: value})  # type: ignore[arg-type]  # as it is called


@pytest.mark.usefixtures("undrawn")
def test_with_a_folder_it_is_a_run_as_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [{"name": "first", **dict(zip(("x", "y", "x_test", "y_test"), TASKS[0], strict=True))}, TASKS[1]]
    alone = run(tasks, TINY, "ewc", options={"strength": 3.0}, name="mine", seed=2)
    result = run(tasks, TINY, "ewc", options={"strength": 3.0}, name="mine", seed=2, out=tmp_path / "a")
    assert np.array_equal(alone.matrix, result.matrix, equal_nan=True)
    assert result.folder == tmp_path / "a"
    assert result.record == json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result.record["sequence"], result.average) == ("mine", result.record["acc"])
    moved = (tmp_path / "a").rename(tmp_path / "b")  # it needs nothing outside
    assert list(open_run(moved).evaluate().values()) == result.matrix[1].tolist()
    words = ["continual", "--config", str(moved / "config.yaml"), "--run-dir", str(tmp_path / "c"), "--no-progress"]
    assert main(words) == 0
    assert json.loads((tmp_path / "c" / "result.json").read_text())["matrix"] == result.record["matrix"]
    assert main(["report", str(moved)]) == 0
    assert "mine, class-incremental: 2 tasks" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exists"):
        run(tasks, TINY, out=moved)


@pytest.mark.parametrize(
    ("tasks", "keys", "message"),
    [
        ([], {}, "there is no task"),
        (5, {}, "tasks must be the name of a sequence, a file or a list of tasks, got 5"),
        ([3], {}, "task 0 must have arrays x and y, and if wanted x_test and y_test, got 3"),
        ([{"x": [[1]]}], {}, "task 0 has no array y"),
        ([{"x": [[1]], "y": [0], "z": 1}], {}, "task 0: unknown array 'z'; valid: name, x, x_test, y, y_test"),
        ([TASKS[0], blobs([2, 3], 0, 5)], {}, "tasks 0 and 1 differ in features: 4 and 5; one network needs the same"),
        (
            [TASKS[0], TASKS[1][:2]],
            {},
            "task 1 has no test samples (x_test, y_test), and others have: give all or none",
        ),
        ([(*TASKS[0][:2], TASKS[0][2][:0], TASKS[0][3][:0]), TASKS[1]], {}, "task 0 has no samples in x_test"),
        ([(TASKS[0][0], TASKS[0][1][:3])], {}, "task 0 has 60 samples in x, but 3 labels in y"),
        ([({0: 1}, [0])], {}, "task 0: x must have a row for each sample, got {0: 1}"),
        ([([[1], [1, 2]], [0, 1])], {}, "task 0: x is no array: "),
        (TASKS, {"method": "ewcc"}, "unknown method 'ewcc'; did you mean 'ewc'?"),
        (TASKS, {"scenario": "clas"}, "unknown scenario 'clas'; did you mean 'class'?"),
        (TASKS, {"learner": {"hiddens": [3]}}, "unknown config key 'learner.hiddens'; did you mean 'learner.hidden'?"),
        (TASKS, {"method": "naive", "options": {"strength": 3}}, "method naive has no options, got {'strength': 3}"),
        (TASKS, {"scaling": "all_feature"}, "unknown scaling 'all_feature'; did you mean 'all_features'?"),
        (TASKS, {"test_share": 0.3}, "tasks has its own test samples; leave out test_share 0.3"),
        ([(np.full((4, 2), np.nan), [0, 1, 0, 1])], {}, "x of tasks is nan in row 0, column 0, counted from 0"),
    ],
)
@pytest.mark.usefixtures("nothing_written")
def test_bad_input_is_one_line(tasks: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        run(tasks, **keys)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_what_a_user_needs_is_there() -> None:
    assert {"run", "Strategy", "Options", "Task", "TaskSequence", "LearnerConfig"} <= set(dir(sparserl.continual))
    for name in dir(sparserl.continual):
        assert getattr(sparserl.continual, name) is not None
    with pytest.raises(AttributeError, match=r"'sparserl\.continual' has no attribute 'runs'"):
        sparserl.continual.runs  # noqa: B018


# --- methods outside of sparserl --------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example of the documentation."""
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert code is not None
    (tmp_path / "own_method.py").write_text(code.group(1) + "\nclass Nothing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_method", raising=False)
    return "own_method"


@pytest.mark.usefixtures("undrawn")
def test_a_method_of_ones_own(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{module}:PullToZero"
    naive = run(TASKS, TINY, "naive")
    still, pulled = (run(TASKS, TINY, name, options={"strength": strength}) for strength in (0.0, 1.0))
    assert np.array_equal(still.matrix, naive.matrix, equal_nan=True)

    def size(result: ContinualResult) -> float:
        return sum(float(value.abs().sum()) for value in result.learner.weights().values())

    assert size(pulled) < size(naive)
    own = sys.modules[module].PullToZero  # the class itself, and the default of its option
    assert np.array_equal(run(TASKS, TINY, own).matrix, run(TASKS, TINY, name).matrix, equal_nan=True)
    words = ["continual", "--method", name, "--learner.epochs", "1", "--no-progress"]
    assert main([*words, "--own.strength", "0.5", "--run-dir", str(tmp_path / "run")]) == 0
    assert "class__PullToZero seed 0" in capsys.readouterr().out
    opened = open_run(tmp_path / "run")
    assert (opened.config.own.strength, opened.config.plain()["own"]) == (0.5, {"strength": 0.5})
    assert main(["report", str(tmp_path / "run")]) == 0
    for more, message in (
        (["--own.strengths", "1"], "unknown option '--own.strengths'; did you mean '--own.strength'?"),
        (["--own.strength", "x"], "--own.strength: 'x' is no number"),
        (["--method", f"{module}:Nothing"], "must be a subclass of sparserl.continual.Strategy"),
        (["--method", f"{module}:PullToOne"], "unknown name in own_method 'PullToOne'; did you mean 'PullToZero'?"),
        (["--method", "no_module:X"], "method 'no_module:X': cannot import module 'no_module'"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert main([*words[:3], "--sequence", "halfcheetah_forgetting"]) == 2
    assert "overrides loss or end_epoch, which classifiers alone call" in capsys.readouterr().err
    (tmp_path / "own.yaml").write_text("method: ewc\nown: {strength: 3}\n")
    assert main(["continual", "--config", str(tmp_path / "own.yaml")]) == 2
    assert "own.strength" in capsys.readouterr().err


def test_the_help_of_a_method_of_ones_own_has_its_options(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["continual", "--method", f"{module}:PullToZero", "--help"])
    assert "--own.strength FLOAT" in capsys.readouterr().out


def test_a_class_that_nobody_could_import_again_is_refused() -> None:
    class Local(Strategy):
        pass

    with pytest.raises(ConfigError, match="must be a class at the top of its module"):
        run(TASKS, TINY, Local)


def test_an_installed_package_brings_methods(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [importlib.metadata.EntryPoint(name, f"{module}:PullToZero", ENTRY_POINTS) for name in ("pull", "ewc")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == ENTRY_POINTS else [])
    spec = spec_of("pull")
    assert spec is not None
    assert (spec.strategy.__name__, spec.summary) == ("PullToZero", "Weights are pulled to zero.")
    assert spec_of("ewc") is methods_of("classifier")["ewc"]  # those of the table go before
    assert run(TASKS, TINY, "pull").record["acc"] > 0
    assert main(["list", "methods"]) == 0
    assert "pull" in capsys.readouterr().out.split("of installed packages")[1]
    with pytest.raises(ConfigError, match=r"unknown method 'pul'; did you mean 'pull'\?"):
        run(TASKS, TINY, "pul")
