"""What the `eval.csv` of a run on a sequence says: the performance on each task after each task, and in between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl import config
from sparserl.errors import ConfigError
from sparserl.metrics.continual_rl import performance_curves
from sparserl.recording.run_logs import Columns, Curve, FloatArray, read_columns


def accuracy_matrix(path: Path) -> FloatArray:
    """Accuracy on task j after task i of a run of a classifier, (T, T); NaN where there is none (yet).

    Raises:
        ConfigError: If the run has no evaluation yet.
    """
    columns = read_columns(path / "eval.csv")
    n_tasks = int(columns["task"].max()) + 1
    learned = columns["after_task"] >= 0  # before, the network has learned nothing
    after, task, accuracy = (columns[name][learned] for name in ("after_task", "task", "accuracy"))
    return performance_curves(range(n_tasks), after, task, accuracy, n_tasks)


def accuracy_curve(path: Path) -> Curve:
    """Number of tasks learned, and mean accuracy on them at that time.

    Raises:
        ConfigError: If the run has not learned its first task yet.
    """
    matrix = accuracy_matrix(path)
    seen = np.array([row[: task + 1].mean() for task, row in enumerate(matrix)])
    learned = np.arange(1.0, len(matrix) + 1)
    reached = ~np.isnan(seen)
    if not reached.any():
        raise ConfigError(f"{path} has not learned its first task yet")
    return learned[reached], seen[reached]


def matrix_at(columns: Columns, ends: npt.ArrayLike, measure: str) -> FloatArray:
    """Mean performance of the sampling policy of an agent on task j at the end of task i.

    Args:
        columns: Of eval.csv.
        ends: (T,) env steps at which the tasks end, increasing.
        measure: Column: `return` or `success`.

    Returns:
        (T, T); NaN where there is none (yet), or an episode does not say.
    """
    steps = np.asarray(ends)
    rows = (columns["stochastic"] == 1) & np.isin(columns["global_step"], steps)
    at, task, values = (columns[name][rows] for name in ("global_step", "task", measure))
    return performance_curves(steps, at, task, values, len(steps))


@dataclass(frozen=True)
class Evaluations:
    """What the evaluations of a run say of its T tasks, at E times; one that is still going on is left out.

    Attributes:
        names: (T,) of the tasks.
        borders: (T + 1,) env steps; task i is trained after `borders[i]`, up to and including `borders[i + 1]`.
        success: Whether performance is the share of episodes with success at any step; else it is the return.
        steps: (E,) env steps, increasing.
        stochastic: (E, T) mean performance of the sampling policy.
        deterministic: (E, T) likewise, without sampling; NaN where nothing was measured.
        matrix: (T, T) performance on task j at the end of task i, sampling; NaN where there is none (yet).
    """

    names: list[str]
    borders: FloatArray
    success: bool
    steps: FloatArray
    stochastic: FloatArray
    deterministic: FloatArray
    matrix: FloatArray

    @property
    def measure(self) -> str:
        """What performance is."""
        return "success rate" if self.success else "return"

    def of_tasks_so_far(self) -> FloatArray:
        """(E,) mean performance, sampling, over the tasks up to the one in training; at a border, the one that ends."""
        in_training = np.searchsorted(self.borders[1:], self.steps)
        return np.array([row[: task + 1].mean() for row, task in zip(self.stochastic, in_training, strict=True)])


def evaluations(path: Path) -> Evaluations:
    """What the evaluations of a run say so far. Performance is success if every task signals it.

    Raises:
        ConfigError: If the run has no evaluation of all tasks yet, or a file is missing.
    """
    tasks: list[dict[str, Any]] = config.load_yaml(path / "sequence.yaml")["tasks"]
    columns = read_columns(path / "eval.csv")
    signalling = set(columns["task"][~np.isnan(columns["success"])])
    success = signalling == set(range(len(tasks)))
    measure = "success" if success else "return"
    values = columns[measure]
    known = ~np.isnan(values)
    steps = np.unique(columns["global_step"][known])

    def curve_of(rows: npt.NDArray[np.bool_]) -> FloatArray:
        at, task = columns["global_step"][rows], columns["task"][rows]
        return performance_curves(steps, at, task, values[rows], len(tasks))

    stochastic, deterministic = (curve_of(known & (columns["stochastic"] == kind)) for kind in (1, 0))
    whole = ~np.isnan(stochastic).any(axis=1)
    if not whole.any():
        raise ConfigError(f"{path / 'eval.csv'} has no evaluation of all tasks yet")
    borders = np.cumsum([0.0, *(task["steps"] for task in tasks)])
    matrix = matrix_at(columns, borders[1:], measure)
    return Evaluations(
        [str(task["name"]) for task in tasks],
        borders,
        success,
        steps[whole],
        stochastic[whole],
        deterministic[whole],
        np.where(np.isnan(matrix).any(axis=1, keepdims=True), np.nan, matrix),
    )
