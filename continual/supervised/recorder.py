"""Records the training of a classifier on a sequence of tasks: accuracies, connections, checkpoints, result.

It draws nothing at random, so a recorded run learns exactly as an unrecorded one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparserl.continual.supervised.classifier_recorder import ClassifierRecorder
from sparserl.continual.supervised.sequence_recorder import OF_EVERY_SEQUENCE
from sparserl.continual.supervised.task_learner import Step, TaskLearner
from sparserl.metrics.continual import ContinualSummary, summary
from sparserl.recording.evaluations import accuracy_matrix
from sparserl.recording.metrics_table import columns
from sparserl.recording.state_structure import Each

EVAL_COLUMNS = ("global_step", "after_task", "task", "accuracy", "samples")
LOGS = {
    "eval": EVAL_COLUMNS,
    "progress": columns("continual"),
    **OF_EVERY_SEQUENCE,
}
"""CSV logs of a run and their columns."""
BEFORE = -1
"""`after_task` of the network that has learned nothing."""
REPORTED = (
    *("acc", "acc_weighted", "bwt", "fwt", "forgetting_final", "forgetting_max", "learning_accuracy"),
    "average_incremental_accuracy",
)
"""Metrics of `result.json`, by their name in `sparserl.metrics.continual`."""


class SequenceRecorder(ClassifierRecorder):
    """Records one run of a continual learner into its folder; it draws nothing at random.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        log_every_steps: Gradient steps between rows of progress.csv.
        checkpoint_every_steps: Gradient steps between checkpoints; there is one after each task as well.
        recorder: Further arguments of `Recorder`.
    """

    columns = LOGS

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.baseline: list[float] = []
        self.matrix: list[list[float]] = []

    def _on_start(self) -> None:
        self.baseline = self.learner.accuracies()
        self._log_accuracies(BEFORE, self.baseline)

    def _on_step(self, step: Step) -> None:
        if self._log_is_due(step):
            of_step = {"train/task": step.task, "train/epoch": step.epoch, **step.losses}
            self._log({**of_step, **self._of_gradients(), **self._timing()})
        self._save_if_due()
        shown = {
            "task": f"{step.task + 1}/{len(self.learner.sequence)}",
            "epoch": f"{step.epoch + 1}/{step.epochs}",
        }
        shown |= step.shown
        if self.matrix:
            shown["acc"] = f"{_seen(self.matrix):.1%}"
        self.progress.show(self.learner.steps, shown)

    def _on_task_end(self, task: int) -> None:
        self._check_network()  # before anything is made of it
        accuracies = self.learner.accuracies()
        self._log_accuracies(task, accuracies)
        self.matrix = accuracy_matrix(self.folder.path)[: task + 1].tolist()
        layers = self.learner.usage()
        self._log_connections(task, layers)
        self.params_nonzero_per_task.append(self.learner.params_nonzero)
        learned = len(self.matrix)
        so_far = summary(np.array(self.matrix)[:, :learned])
        metrics = {
            "train/task": task,
            "cl/accuracy_seen": so_far.acc,
            "cl/bwt": so_far.bwt,
            "cl/forgetting_final": so_far.forgetting_final,
            "cl/connections": sum(one.used for one in layers),
            "cl/free_connections": sum(one.free for one in layers),
            "cl/numbers_kept": self.learner.numbers_kept(),
            "time/elapsed_s": self.progress.elapsed_s,
            **{f"cl/accuracy/task{task}": accuracy for task, accuracy in enumerate(accuracies)},
        }
        self._log(metrics)
        self.save_checkpoint()

    def _log_accuracies(self, after_task: int, accuracies: Sequence[float]) -> None:
        self.logs["eval"].write(
            [
                {
                    "global_step": self.learner.steps,
                    "after_task": after_task,
                    "task": task.index,
                    "accuracy": "" if math.isnan(accuracy) else accuracy,
                    "samples": len(task.test),
                }
                for task, accuracy in zip(self.learner.sequence.tasks, accuracies, strict=True)
            ]
        )

    # What a checkpoint holds of it.

    def _state(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "matrix": self.matrix, **super()._state()}

    def _expected(self) -> dict[str, Any]:
        return {**super()._expected(), "baseline": Each(0.0), "matrix": Each(Each(0.0))}

    def _load(self, recorder: Mapping[str, Any]) -> None:
        super()._load(recorder)
        self.baseline, self.matrix = list(recorder["baseline"]), [list(row) for row in recorder["matrix"]]

    # Result.

    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost, once all tasks are learned."""
        return {
            **outcome(self.learner, self.matrix, self.baseline),
            "params_nonzero_per_task": self.params_nonzero_per_task,
            **self._spent(),
        }


def outcome(learner: TaskLearner, matrix: Sequence[Sequence[float]], baseline: Sequence[float]) -> dict[str, Any]:
    """What a learner that has learned all its tasks reached and keeps, as plain data that JSON holds.

    Args:
        learner: The learner.
        matrix: (T, T) accuracy on each task after each task; NaN where there is none.
        baseline: (T,) accuracy before the first task.
    """
    sequence = learner.sequence
    found = summary(matrix, baseline=baseline, samples=[len(task.test) for task in sequence.tasks])
    return {
        "tasks": len(sequence),
        "matrix": [[_or_none(value) for value in row] for row in matrix],
        "baseline": [_or_none(value) for value in baseline],
        **reported(found),
        **learner.size(),
        "numbers_kept": learner.numbers_kept(),
        "memory": learner.strategy.memory(),
        "sequence_record": sequence.record,
    }


def _seen(matrix: Sequence[Sequence[float]]) -> float:
    """Mean accuracy on the tasks learned so far."""
    return float(np.mean(matrix[-1][: len(matrix)]))


def reported(found: ContinualSummary) -> dict[str, Any]:
    """The metrics of `result.json`, None where there is none, and under `undefined` why."""
    values = {name: _or_none(getattr(found, name)) for name in REPORTED}
    return {**values, "undefined": {name: why for name, why in found.undefined.items() if name in REPORTED}}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
