"""Turns `run_sequence` into a recorded run: logs, checkpoints, progress bar, orderly stop, result.

It acts only while an event is out, where the learner is whole, and draws nothing at random, so a recorded run learns
exactly as an unrecorded one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from sparserl import checkpoint
from sparserl.continual.protocol import Samples, TaskSequence
from sparserl.continual.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.strategy import LayerUse
from sparserl.continual.supervised import Step, SupervisedLearner
from sparserl.errors import CheckpointError
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS, event_rows
from sparserl.metrics.continual import ContinualSummary, summary
from sparserl.metrics.cost import bytes_indices, bytes_optimizer, bytes_parameters, layer_costs, params_dense
from sparserl.records import RunFolder, full_checkpoints, step_name
from sparserl.tracking import Tracker

EVAL_COLUMNS = ("global_step", "after_task", "task", "accuracy", "samples")
PROGRESS_COLUMNS = (
    "global_step",
    "train/task",
    "train/epoch",
    "train/loss",
    "cl/accuracy_seen",
    "cl/bwt",
    "cl/forgetting_final",
    "cl/connections",
    "cl/free_connections",
    "time/sps",
    "time/elapsed_s",
)
CONNECTIONS_COLUMNS = ("after_task", "layer", "owner", "connections", "frozen", "free", "size", "neurons", "reserved")
LOGS = {
    "eval": EVAL_COLUMNS,
    "progress": PROGRESS_COLUMNS,
    "connections": CONNECTIONS_COLUMNS,
    "topology": TOPOLOGY_COLUMNS,
}
"""CSV logs of a run and their columns."""
CHECKPOINTS_KEPT = 2
BEFORE = -1
"""`after_task` of the network that has learned nothing."""
REPORTED = (
    *("acc", "acc_weighted", "bwt", "fwt", "forgetting_final", "forgetting_max", "learning_accuracy"),
    "average_incremental_accuracy",
)
"""Metrics of `result.json`, by their name in `sparserl.metrics.continual`."""


class SequenceRecorder:
    """Records one run of a continual learner into its folder.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        identity: What tells this run from others, as plain data; a checkpoint of another run is refused.
        log_every_steps: Gradient steps between rows of progress.csv.
        checkpoint_every_steps: Gradient steps between checkpoints; there is one after each task as well.
        show_progress: Whether to draw a progress bar.

    Attributes:
        trackers: Further sinks of metrics.
        stop_requested: Set from outside: save after this gradient step and stop.
        stopped_at: Gradient step at which it did; None if it did not.
    """

    def __init__(
        self,
        learner: SupervisedLearner,
        folder: RunFolder,
        *,
        identity: Any,
        log_every_steps: int,
        checkpoint_every_steps: int,
        show_progress: bool,
    ):
        self.learner, self.folder, self.identity = learner, folder, identity
        self.log_every_steps, self.checkpoint_every_steps = log_every_steps, checkpoint_every_steps
        self.trackers: Sequence[Tracker] = []
        self.stop_requested = False
        self.stopped_at: int | None = None
        self.logs = {name: folder.log(name, columns) for name, columns in LOGS.items()}
        self.baseline: list[float] = []
        self.matrix: list[list[float]] = []
        self.params_nonzero_per_task: list[int] = []
        self._data = checksum(learner.sequence)
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self._logged_at = (0, self._started)
        self._bar = tqdm(
            total=total_steps(learner),
            unit="step",
            unit_scale=True,
            disable=not show_progress,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )
        self._on: dict[type[Any], Callable[[Any], None]] = {
            SequenceStarted: self._on_start,
            Step: self._on_step,
            TaskEnded: self._on_task_end,
        }

    def learn(self) -> None:
        """Learns the rest of the sequence, or up to the gradient step at which it is asked to stop."""
        self._bar.update(self.learner.steps - self._bar.n)
        self._logged_at = (self.learner.steps, time.perf_counter())
        for event in run_sequence(self.learner):
            self._record_topology()
            self._on[type(event)](event)
            if self.stop_requested and self.learner.steps > 0 and self.learner.task < len(self.learner.sequence):
                self.save_checkpoint()
                self.stopped_at = self.learner.steps
                break
        self._bar.close()

    # What happens at an event.

    def _on_start(self, event: SequenceStarted) -> None:
        del event
        self.baseline = self.learner.accuracies()
        self._log_accuracies(BEFORE, self.baseline)

    def _on_step(self, step: Step) -> None:
        steps = self.learner.steps
        ends_task = (step.epoch + 1, step.batch + 1) == (step.epochs, step.batches)
        if steps % self.log_every_steps == 0 or ends_task:
            now = time.perf_counter()
            steps_before, then = self._logged_at
            self._logged_at = steps, now
            metrics = {
                "train/task": step.task,
                "train/epoch": step.epoch,
                "train/loss": step.loss,
                "time/sps": (steps - steps_before) / max(now - then, 1e-9),
                "time/elapsed_s": self.elapsed_s,
            }
            self._log(metrics)
        if steps % self.checkpoint_every_steps == 0:
            self.save_checkpoint()
        shown = {
            "task": f"{step.task + 1}/{len(self.learner.sequence)}",
            "epoch": f"{step.epoch + 1}/{step.epochs}",
            "loss": f"{step.loss:.3f}",
        }
        if self.matrix:
            shown["acc"] = f"{_seen(self.matrix):.1%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _on_task_end(self, event: TaskEnded) -> None:
        accuracies = self.learner.accuracies()
        self.matrix.append(accuracies)
        self._log_accuracies(event.task, accuracies)
        layers = self.learner.strategy.uses(self.learner)
        self.logs["connections"].write(connection_rows(event.task, layers))
        used = sum(one.used for one in layers)
        self.params_nonzero_per_task.append(used + sum(cost.biases for cost in layer_costs(self.learner.network)))
        learned = len(self.matrix)
        so_far = summary(np.array(self.matrix)[:, :learned])
        metrics = {
            "train/task": event.task,
            "cl/accuracy_seen": so_far.acc,
            "cl/bwt": so_far.bwt,
            "cl/forgetting_final": so_far.forgetting_final,
            "cl/connections": used,
            "cl/free_connections": sum(one.free for one in layers),
            "time/elapsed_s": self.elapsed_s,
            **{f"cl/accuracy/task{task}": accuracy for task, accuracy in enumerate(accuracies)},
        }
        self._log(metrics)
        self.save_checkpoint()

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Writes what is defined of some metrics to progress.csv and the trackers."""
        defined = {key: value for key, value in metrics.items() if not math.isnan(value)}
        row = {key: value for key, value in defined.items() if key in PROGRESS_COLUMNS}
        self.logs["progress"].write([{"global_step": self.learner.steps, **row}])
        for tracker in self.trackers:
            tracker.log(self.learner.steps, defined)

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

    def _record_topology(self) -> None:
        evolver = self.learner.strategy.evolver
        if evolver is None or not evolver.events:
            return
        events, evolver.events = evolver.events, []
        # The clock of the evolver counts gradient steps, which are the x axis here.
        self.logs["topology"].write([{"global_step": row["update"], **row} for row in event_rows(evolver, events)])

    @property
    def elapsed_s(self) -> float:
        """Wall time of the run, earlier parts of a resumed one included."""
        return self._seconds_before + time.perf_counter() - self._started

    # Checkpoints.

    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on; keeps the newest checkpoints."""
        state = {
            "global_step": self.learner.steps,
            "run": self.identity,
            "data": self._data,
            "learner": self.learner.state_dict(),
            "recorder": {
                "baseline": self.baseline,
                "matrix": self.matrix,
                "params_nonzero_per_task": self.params_nonzero_per_task,
                "elapsed_s": self.elapsed_s,
                "csv_bytes": {name: log.size_bytes for name, log in self.logs.items()},
            },
        }
        checkpoint.save(self.folder.checkpoints / step_name(self.learner.steps), state)
        for stale in full_checkpoints(self.folder)[:-CHECKPOINTS_KEPT]:
            checkpoint.remove(stale)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the learner and this recorder where a checkpoint was taken.

        Args:
            state: The checkpoint.

        Raises:
            CheckpointError: If it belongs to another run, or the data has changed since.
        """
        if state.get("run") != self.identity:
            raise CheckpointError("the checkpoint belongs to another run: its config differs from config.yaml")
        if state["data"] != self._data:
            name = self.learner.sequence.name
            raise CheckpointError(f"the data of {name} is not what it was when the run began; see --data-dir")
        self.learner.load_state_dict(state["learner"])
        recorder = state["recorder"]
        self.baseline, self.matrix = list(recorder["baseline"]), [list(row) for row in recorder["matrix"]]
        self.params_nonzero_per_task = list(recorder["params_nonzero_per_task"])
        self._seconds_before = recorder["elapsed_s"]
        # Last, when nothing can be refused any more.
        for name, log in self.logs.items():
            log.truncate(recorder["csv_bytes"][name])

    # Result.

    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost, once all tasks are learned."""
        learner, sequence = self.learner, self.learner.sequence
        found = summary(self.matrix, baseline=self.baseline, samples=[len(task.test) for task in sequence.tasks])
        layers = learner.strategy.uses(learner)
        # What is kept of earlier tasks may be away from the network that is trained; what answers may be a part of it.
        answering = learner.strategy.answering(learner, len(sequence) - 1)
        network = max((learner.network, answering), key=lambda one: sum(cost.weights for cost in layer_costs(one)))
        return {
            "tasks": len(sequence),
            "matrix": [[_or_none(value) for value in row] for row in self.matrix],
            "baseline": [_or_none(value) for value in self.baseline],
            **reported(found),
            "params_nonzero_per_task": self.params_nonzero_per_task,
            "params_dense": params_dense([learner.network]),
            "connections": sum(one.used for one in layers),
            "connections_dense": sum(one.size for one in layers),
            "layers": {one.layer: _without_name(one) for one in layers},
            "bytes_parameters": bytes_parameters([network]),
            "bytes_indices": bytes_indices([network]),
            "bytes_optimizer": bytes_optimizer([learner.optimizer]),
            "memory": learner.strategy.memory(),
            "steps": learner.steps,
            "wall_s": self.elapsed_s,
            "steps_per_second": learner.steps / self.elapsed_s,
            "sequence_record": sequence.record,
        }


def connection_rows(after_task: int, layers: Sequence[LayerUse]) -> list[dict[str, Any]]:
    """Rows of connections.csv: who uses each layer after a task."""
    return [
        {
            "after_task": after_task,
            "layer": one.layer,
            "owner": owner,
            "connections": connections,
            "frozen": one.frozen,
            "free": one.free,
            "size": one.size,
            "neurons": one.neurons,
            "reserved": one.reserved,
        }
        for one in layers
        for owner, connections in one.owners.items()
    ]


def total_steps(learner: SupervisedLearner) -> int:
    """Gradient steps of the whole sequence."""
    total = 0
    for task in range(len(learner.sequence)):
        samples = sum(len(learner.sequence.tasks[one].train) for one in learner.strategy.trained_tasks(task))
        batches = math.ceil(samples / learner.config.batch_size)
        total += batches * learner.strategy.epochs(task, learner.config.epochs)
    return total


def checksum(sequence: TaskSequence) -> str:
    """SHA-256 of everything that can be learned from a sequence: its samples, as tasks present them."""
    digest = hashlib.sha256(repr((sequence.name, sequence.scenario, len(sequence))).encode())
    hashed: set[int] = set()  # tasks share arrays
    for task in sequence.tasks:
        digest.update(repr((task.classes, task.outputs)).encode())
        for samples in (task.train, task.test):
            digest.update(repr((samples.mean, samples.std, samples.scale, samples.features.shape)).encode())
            for array in _arrays(samples):
                if id(array) not in hashed:
                    hashed.add(id(array))
                    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(samples: Samples) -> list[np.ndarray]:
    return [samples.features, samples.rows, samples.labels, *([] if samples.order is None else [samples.order])]


def _seen(matrix: Sequence[Sequence[float]]) -> float:
    """Mean accuracy on the tasks learned so far."""
    return float(np.mean(matrix[-1][: len(matrix)]))


def reported(found: ContinualSummary) -> dict[str, Any]:
    """The metrics of `result.json`, None where there is none, and under `undefined` why."""
    values = {name: _or_none(getattr(found, name)) for name in REPORTED}
    return {**values, "undefined": {name: why for name, why in found.undefined.items() if name in REPORTED}}


def _without_name(layer: LayerUse) -> dict[str, Any]:
    kept = {name: getattr(layer, name) for name in ("free", "frozen", "size", "neurons", "reserved")}
    return {"connections_per_task": layer.owners, **kept}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
