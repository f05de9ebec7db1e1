"""What recorders of a sequence of tasks share: the loop, the clock, the progress bar, the logs, an orderly stop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.supervised.runner import Learner, SequenceStarted, TaskEnded, run_sequence
from sparserl.errors import NotFiniteError
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS, event_rows
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.progress import RunProgress
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.recording.state_structure import Each
from sparserl.recording.trackers import Tracker
from sparserl.topology.evolver import TopologyEvolver

L = TypeVar("L", bound=Learner[Any])
"""The learner."""
CONNECTIONS_COLUMNS = ("after_task", "layer", "owner", "connections", "frozen", "free", "size", "neurons", "reserved")
OF_EVERY_SEQUENCE = {"connections": CONNECTIONS_COLUMNS, "topology": TOPOLOGY_COLUMNS}
"""CSV logs that every run on a sequence has, and their columns."""


NOTHING, AFTER_STEP = -1, -2
"""What was abandoned, in a checkpoint; otherwise it is the task at whose end something was."""


@dataclass(frozen=True)
class StepLogged:
    """A step has been taken and logged; what else there is to do after it is not done yet."""


class BaseSequenceRecorder(ABC, Generic[L]):
    """Turns `run_sequence` into a recorded run; it acts only while an event is out, where the learner is whole.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        identity: What tells this run from others, as plain data; a checkpoint of another run is refused.
        total_steps: Steps of the whole sequence.
        show_progress: Whether to draw a progress bar.
        process: What the process uses; counted from now if None.

    Attributes:
        trackers: Further sinks of metrics.
        stop_requested: Set from outside: save after this step and stop.
        stopped_at: Step at which it did; None if it did not.
    """

    columns: ClassVar[Mapping[str, Sequence[str]]]
    """CSV logs of a run and their columns."""

    def __init__(
        self,
        learner: L,
        folder: RunFolder,
        *,
        identity: Any,
        total_steps: int,
        show_progress: bool,
        process: ProcessCost | None = None,
    ):
        self.learner, self.folder, self.identity = learner, folder, identity
        self.trackers: Sequence[Tracker] = []
        self.stop_requested = False
        self.stopped_at: int | None = None
        self.process = process or ProcessCost()
        self.logs = {
            name: folder.log(name, columns) for name, columns in self.process.with_columns(self.columns).items()
        }
        self._abandoned: SequenceStarted | TaskEnded | StepLogged | None = None
        self.params_nonzero_per_task: list[int] = []
        self.progress = RunProgress(total_steps, show=show_progress)

    def learn(self) -> None:
        """Learns the rest of the sequence, or up to the step at which it is asked to stop."""
        self.progress.start(self.learner.steps)
        for event in self._events():
            self._check_losses(event)
            self._record_topology()
            try:
                self._act_on(event)
            except EvaluationAbandoned:
                self._abandoned = event if isinstance(event, SequenceStarted | TaskEnded) else StepLogged()
            in_between = self.learner.steps > 0 and self.learner.task < len(self.learner.sequence)
            if self._abandoned is not None or (self.stop_requested and in_between):
                self.save_checkpoint()
                self.stopped_at = self.learner.steps
                break
        self.progress.close()

    def _events(self) -> Iterator[Any]:
        """What happens to the learner, first again that in whose evaluation the run was stopped."""
        if self._abandoned is not None:
            again, self._abandoned = self._abandoned, None
            yield again
        yield from run_sequence(self.learner)

    def _act_on(self, event: Any) -> None:
        if isinstance(event, SequenceStarted):
            self._on_start()
        elif isinstance(event, TaskEnded):
            self._on_task_end(event.task)
        else:
            if not isinstance(event, StepLogged):
                self._on_step(event)
            self._after_step()

    @abstractmethod
    def _check_losses(self, event: Any) -> None:
        """Raises NotFiniteError if a loss of the step before an event is not finite."""

    @abstractmethod
    def save_not_finite(self, error: NotFiniteError) -> Path:
        """Keeps the state in which something was not finite, to be looked at; gives its folder."""

    @abstractmethod
    def _on_start(self) -> None:
        """Before the first step."""

    @abstractmethod
    def _on_step(self, step: Any) -> None:
        """After a step, given what the learner says of it: nothing that takes long."""

    def _after_step(self) -> None:
        """After `_on_step`: what may be abandoned, and is then done when the run goes on."""

    @abstractmethod
    def _on_task_end(self, task: int) -> None:
        """After a task."""

    @property
    @abstractmethod
    def evolver(self) -> TopologyEvolver | None:
        """What rewires the learner's networks."""

    @abstractmethod
    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on."""

    # Logs.

    def _timing(self) -> dict[str, float]:
        """Steps a second since this was asked last, wall time, and what the process has used."""
        return {**self.progress.timing(self.learner.steps), **self.process.metrics()}

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Writes what is defined of some metrics to progress.csv and the trackers."""
        defined = {key: value for key, value in metrics.items() if not math.isnan(value)}
        row = {key: value for key, value in defined.items() if key in self.logs["progress"].columns}
        self.logs["progress"].write([{"global_step": self.learner.steps, **row}])
        for tracker in self.trackers:
            tracker.log(self.learner.steps, defined)

    def _log_connections(self, after_task: int, layers: Sequence[ConnectionUsage]) -> None:
        """Writes who uses each layer after a task."""
        self.logs["connections"].write(
            [
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
        )

    def _record_topology(self) -> None:
        evolver = self.evolver
        if evolver is None or not evolver.events:
            return
        rows = event_rows(evolver, evolver.take_events())
        self.logs["topology"].write([{"global_step": self._step_of(row), **row} for row in rows])

    def _step_of(self, event: Mapping[str, Any]) -> int:
        """Step at which a topology event happened, given its row."""
        del event
        return self.learner.steps

    def log_models(self, result: Mapping[str, Any]) -> None:
        """Gives trackers the last checkpoint, with its step and mean performance over tasks; the run is done."""
        metadata = {"global_step": self.learner.steps, "acc": result["acc"]}
        for tracker in self.trackers:
            tracker.log_model("final", full_checkpoints(self.folder)[-1], metadata)

    # What a checkpoint holds of all this.

    def _state(self) -> dict[str, Any]:
        abandoned = self._abandoned
        return {
            # That nothing is learned yet is known without it.
            "abandoned": abandoned.task
            if isinstance(abandoned, TaskEnded)
            else AFTER_STEP
            if isinstance(abandoned, StepLogged)
            else NOTHING,
            "params_nonzero_per_task": self.params_nonzero_per_task,
            "elapsed_s": self.progress.elapsed_s,
            "process": self.process.summary(),
            "csv_bytes": {name: log.size_bytes for name, log in self.logs.items()},
        }

    def _expected(self) -> dict[str, Any]:
        """How a `_state` is built."""
        return {**self._state(), "params_nonzero_per_task": Each(0)}

    def _restore(self, recorder: Mapping[str, Any]) -> None:
        """Takes over a `_state`."""
        abandoned = recorder["abandoned"]
        self._abandoned = {NOTHING: None, AFTER_STEP: StepLogged()}.get(abandoned, TaskEnded(abandoned))
        self.params_nonzero_per_task = list(recorder["params_nonzero_per_task"])
        self.progress.load(recorder["elapsed_s"])
        self.process.load(recorder["process"])
