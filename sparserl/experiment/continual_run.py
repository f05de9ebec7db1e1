"""`sparserl.continual.run`: a sequence of classification tasks learned from Python, of arrays if wanted."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl import config as yaml_config
from sparserl.continual.strategies import method_spec
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.data import default_data_dir
from sparserl.continual.supervised.own_tasks import own_sequence
from sparserl.continual.supervised.recorder import outcome
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.sequence_files import SequenceFile, TaskEntry
from sparserl.continual.supervised.splits import Scaling
from sparserl.continual.supervised.table_files import ARRAYS, FileContents
from sparserl.continual.supervised.tables import Table, table_of
from sparserl.continual.supervised.task_learner import Step, TaskLearner
from sparserl.continual.supervised.tasks import Scenario, TaskSequence
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.classifier_training import ClassifierTraining, learner_of, make_learner
from sparserl.experiment.continual_config import ContinualConfig, choose
from sparserl.experiment.input_files import copy_name
from sparserl.experiment.opening import open_run
from sparserl.experiment.resolving import resolve
from sparserl.experiment.runs import begin, train
from sparserl.experiment.training import Source
from sparserl.recording.finite import check_losses

ArrayTask = Mapping[str, Any] | Sequence[Any]
"""Arrays `x`, `y` and, if wanted, `x_test`, `y_test` by name (and a `name`), or in this order."""
COLUMN = "task"
"""Of the table that tasks of arrays become."""


@dataclass(frozen=True)
class ContinualResult:
    """What a learner reached on a sequence of tasks.

    Attributes:
        matrix: (T, T) accuracy on each task (column) after each task (row); NaN where it is not measured.
        average: Mean accuracy over all tasks at the end.
        forgetting: Mean drop of accuracy since a task was learned, the last task left out; NaN of one task.
        numbers_kept: Numbers needed to answer for all tasks and to learn the next: values, indices, samples, all alike.
        task_names: (T,) what they are called.
        learner: The classifier, with its tasks: `learner.accuracies()`, `learner.network`.
        record: All that `result.json` of a run says, which has no cost where nothing is written.
        folder: Of the run; None where nothing is written.
    """

    matrix: npt.NDArray[np.float64]
    average: float
    forgetting: float
    numbers_kept: int
    task_names: tuple[str, ...]
    learner: TaskLearner
    record: Mapping[str, Any]
    folder: Path | None = None


def run(
    tasks: str | Path | Sequence[ArrayTask],
    learner: Any = None,
    method: str | type[Strategy] = "naive",
    *,
    scenario: Scenario | None = None,
    topology: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    name: str = "tasks",
    scaling: Scaling = "each_feature",
    test_share: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> ContinualResult:
    """Learns one classification task after another, and tests on all of them after each.

    Args:
        tasks: Tasks of arrays, each a mapping with `x` (N, F), or pictures (N, height, width) or (N, channels, height,
            width), `y` (N,) and, if wanted, `x_test`, `y_test` and `name`, or a tuple of the arrays in this order; or
            the name of a sequence, or a YAML file (docs/sequences.md).
        learner: The network and how it is trained on a task: options of `LearnerConfig`, as a mapping or built.
        method: Continual method, see `sparserl list methods`; `module:Class`; or a subclass of `Strategy`.
        scenario: `class`, `task` or `domain`. Of arrays `class` if tasks have no label in common, else `domain`.
        topology: Connections of the network, e.g. `{"method": "set", "density": 0.1}`; all if None.
        options: Those of the method, e.g. `{"strength": 100.0}`.
        name: What the sequence is called, if it is one of arrays.
        scaling: What features of arrays are scaled by, over all training samples: `each_feature`, `all_features`,
            `range` or `none`.
        test_share: Share of the samples of arrays without `x_test` that are for testing; a fifth if None.
        seed: Root seed of everything random.
        data_dir: Folder of data sets; the usual one if None.
        out: Run folder, which must not exist: all files that `sparserl continual` writes, for `report`, `plot` and
            `open_run`. If None, nothing is written.
        progress: Whether to draw a progress bar; with `out`.

    Raises:
        SparserlError: In one line, if a name, value or array is wrong, or tasks do not go together.
        NotFiniteError: If a loss becomes NaN or infinite.

    Example:
        >>> import numpy as np
        >>> rng, corners = np.random.default_rng(0), 3.0 * np.eye(4)
        >>> def samples(labels, count):
        ...     y = np.repeat(labels, count)
        ...     return corners[y] + rng.normal(size=(len(y), 4)), y
        >>> tasks = [(*samples(labels, 100), *samples(labels, 50)) for labels in ([0, 1], [2, 3])]
        >>> result = run(tasks, {"hidden": [16], "epochs": 20, "learning_rate": 0.01}, "replay")
        >>> result.matrix.shape, result.average > 0.8, result.forgetting < 0.3, result.numbers_kept > 0
        ((2, 2), True, True, True)
    """
    wish = _wish(learner, method, topology, options, seed)
    of_arrays = {"name": name, "scaling": scaling, "test_share": test_share}
    if isinstance(tasks, str | Path):
        for option, value in of_arrays.items():
            if value != inspect.signature(run).parameters[option].default:
                raise ConfigError(f"{option} is for tasks of arrays, and {tasks} has its own: leave {value!r} out")
        config = resolve("continual", {**wish, "sequence": str(tasks), **({"scenario": scenario} if scenario else {})})
        if not isinstance(config, ContinualConfig):
            raise ConfigError(f"{tasks} has environments, which agents learn: use sparserl.experiment.run")
        folder_of_data = default_data_dir() if data_dir is None else Path(data_dir)
        if out is None:
            return _learned(make_learner(config.resolved(), folder_of_data))
        return _recorded(begin(config, Source(data_dir=folder_of_data)), Path(out), progress)
    if not isinstance(tasks, Sequence):
        raise ConfigError(f"tasks must be the name of a sequence, a file or a list of tasks, got {shown(tasks)}")
    file, table = _table_of_arrays(tasks, {key: value for key, value in of_arrays.items() if value is not None})
    usual = "class" if _are_apart(tasks) else "domain"
    own = {"sequence": f"{COLUMN}s.yaml", "sequence_name": file.name, "scenario": scenario or usual}
    wish |= own
    config = choose(wish, None).resolve(wish).resolved()
    sequence = own_sequence(file, {COLUMN: table}, config.scenario, seed=seed)  # type: ignore[attr-defined]
    if out is None:
        return _learned(learner_of(config, sequence))  # type: ignore[arg-type]  # a ContinualConfig
    return _recorded(_ArraysTraining(config, file, table, sequence), Path(out), progress)  # type: ignore[arg-type]


def _wish(learner: Any, method: Any, topology: Any, options: Any, seed: int) -> dict[str, Any]:
    """What the arguments say, as a config file would."""
    if isinstance(method, type):
        if "<" in method.__qualname__ or "." in method.__qualname__:
            raise ConfigError(f"method {method.__qualname__} must be a class at the top of its module")
        method = f"{method.__module__}:{method.__qualname__}"
    group = method_spec(str(method), "classifier").options
    if options and group is None:
        raise ConfigError(f"method {method} has no options, got {shown(dict(options))}")
    wish: dict[str, Any] = {"method": str(method), "seed": seed}
    if learner is not None:
        wish["learner"] = dict(learner) if isinstance(learner, Mapping) else yaml_config.plain(learner)
    if topology is not None:
        wish["topology"] = dict(topology) if isinstance(topology, Mapping) else yaml_config.plain(topology)
    return wish | ({str(group): dict(options)} if options else {})


def _arrays(index: int, task: Any) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a task by name."""
    if isinstance(task, Mapping):
        for key in task:
            if key not in (*ARRAYS, "name"):
                raise ConfigError(f"task {index}: {unknown_name('array', str(key), (*ARRAYS, 'name'))}")
        given = {key: task[key] for key in ARRAYS if task.get(key) is not None}
    elif isinstance(task, tuple | list) and len(task) in (2, 4):
        given = dict(zip(ARRAYS, task, strict=False))
    else:
        raise ConfigError(f"task {index} must have arrays x and y, and if wanted x_test and y_test, got {shown(task)}")
    found = {key: _array(index, key, one) for key, one in given.items()}
    for key in ("x", "y"):
        if key not in found:
            raise ConfigError(f"task {index} has no array {key}")
    for x, y in (("x", "y"), ("x_test", "y_test")):
        if (x in found) != (y in found):
            raise ConfigError(f"task {index} has only one of the arrays {x} and {y}")
        if x in found and len(found[x]) != len(found[y]):
            raise ConfigError(f"task {index} has {len(found[x])} samples in {x}, but {len(found[y])} labels in {y}")
        if x in found and not found[x].size:
            raise ConfigError(f"task {index} has no samples in {x}")
    return found


def _array(index: int, key: str, value: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ConfigError(f"task {index}: {key} is no array: {error}") from None
    if not array.ndim:
        raise ConfigError(f"task {index}: {key} must have a row for each sample, got {shown(value)}")
    return array


def _in_rows(key: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Features of a sample in one row, labels in one array."""
    return array.reshape(len(array), -1) if key.startswith("x") else array.reshape(-1)


def _table_of_arrays(tasks: Sequence[ArrayTask], given: Mapping[str, Any]) -> tuple[SequenceFile, Table]:
    """The tasks as one table with a column that tells them apart, and the sequence file of it."""
    as_given = [_arrays(index, task) for index, task in enumerate(tasks)]
    if not as_given:
        raise ConfigError("there is no task")
    shapes = {one["x"].shape[1:] for one in as_given}
    shape = shapes.pop() if len(shapes) == 1 else ()
    arrays = [{key: _in_rows(key, one) for key, one in task.items()} for task in as_given]
    for index, one in enumerate(arrays):
        for key in ("x", "x_test"):
            sizes = arrays[0]["x"].shape[1], one[key].shape[1] if key in one else arrays[0]["x"].shape[1]
            if sizes[0] != sizes[1]:
                which = f"tasks 0 and {index}" if key == "x" else f"x of task 0 and x_test of task {index}"
                raise ConfigError(f"{which} differ in features: {sizes[0]} and {sizes[1]}; one network needs the same")
        if ("x_test" in one) != ("x_test" in arrays[0]):
            without = index if "x_test" in arrays[0] else 0
            raise ConfigError(f"task {without} has no test samples (x_test, y_test), and others have: give all or none")
    joined: dict[str, Any] = {key: np.concatenate([one[key] for one in arrays]) for key in ARRAYS if key in arrays[0]}
    numbers = {
        key: np.repeat(np.arange(len(arrays)).astype(np.str_), [len(one[key]) for one in arrays])
        for key in ("x", "x_test")
        if key in arrays[0]
    }
    contents = FileContents(**joined, groups=numbers["x"], groups_test=numbers.get("x_test"))
    names = [task.get("name") if isinstance(task, Mapping) else None for task in tasks]
    entries = tuple(TaskEntry(str(one or f"task {index}"), value=str(index)) for index, one in enumerate(names))
    given = {**given, "shape": shape} if len(shape) in (2, 3) else given
    file = yaml_config.build(SequenceFile, {**given, "data": COLUMN, "column": COLUMN, "tasks": entries})
    return file, table_of(file.name, contents, labelled=True)


def _are_apart(tasks: Sequence[ArrayTask]) -> bool:
    """Whether no two tasks have a label in common."""
    labels = [set(np.unique(_arrays(index, task)["y"]).tolist()) for index, task in enumerate(tasks)]
    return sum(map(len, labels)) == len(set().union(*labels))


def _learned(learner: TaskLearner) -> ContinualResult:
    """The result of a learner, once it has learned its tasks."""
    matrix: list[list[float]] = []
    baseline: list[float] = []
    for event in run_sequence(learner):
        if isinstance(event, SequenceStarted):
            baseline = learner.accuracies()
        elif isinstance(event, TaskEnded):
            matrix.append(learner.accuracies())
        elif isinstance(event, Step):
            check_losses(learner.steps, event.losses)
    return _result(learner, outcome(learner, matrix, baseline), None)


def _recorded(training: Any, out: Path, progress: bool) -> ContinualResult:
    """The result of a run that is written."""
    folder = train(training, out, show_progress=progress)
    opened: Any = open_run(folder.path)
    return _result(opened.learner, opened.result, folder.path)


def _result(learner: TaskLearner, record: Mapping[str, Any], folder: Path | None) -> ContinualResult:
    def number(value: float | None) -> float:
        return float("nan") if value is None else float(value)

    return ContinualResult(
        matrix=np.array([[number(value) for value in row] for row in record["matrix"]]),
        average=number(record["acc"]),
        forgetting=number(record["forgetting_final"]),
        numbers_kept=int(record["numbers_kept"]),
        task_names=tuple(task.name for task in learner.sequence.tasks),
        learner=learner,
        record=record,
        folder=folder,
    )


class _ArraysTraining(ClassifierTraining):
    """A classifier on tasks of arrays, which the folder of its run keeps."""

    def __init__(self, config: ContinualConfig, file: SequenceFile, table: Table, sequence: TaskSequence):
        self._file, self._table, self._sequence = file, table, sequence
        super().__init__(config, default_data_dir())

    def _make_learner(self, data_dir: Path, *, download: bool) -> TaskLearner:
        del data_dir, download
        return learner_of(self.config, self._sequence)

    def _stored(self) -> tuple[ContinualConfig, dict[Path, bytes]]:
        data = _npz(self._table)
        of_data = copy_name(f"{COLUMN}s.npz", data)
        file = yaml_config.dump(replace(self._file, data=of_data.name)).encode()  # which lies beside it
        of_file = copy_name(f"{COLUMN}s.yaml", file)
        return self.config.with_files({"sequence": of_file}), {of_data: data, of_file: file}


def _npz(table: Table) -> bytes:
    """The arrays of a table as `read_npz` takes them."""
    assert table.y is not None
    assert table.groups is not None
    names = np.array(table.classes)
    arrays: dict[str, Any] = {"x": table.x, "y": names[table.y], COLUMN: table.groups}
    if table.x_test is not None and table.y_test is not None and table.groups_test is not None:
        arrays |= {"x_test": table.x_test, "y_test": names[table.y_test], f"{COLUMN}_test": table.groups_test}
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
