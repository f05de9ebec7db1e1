"""What recorders of a sequence of tasks share beside `Recorder`: the loop, and who uses the connections of a layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.supervised.runner import Learner, SequenceStarted, TaskEnded, run_sequence
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.recorder import Recorder
from sparserl.recording.run_folder import RunFolder, full_checkpoints
from sparserl.recording.state_structure import Each

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


class BaseSequenceRecorder(Recorder, Generic[L]):
    """Turns `run_sequence` into a recorded run; it acts only while an event is out, where the learner is whole.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        recorder: Further arguments of `Recorder`.
    """

    def __init__(self, learner: L, folder: RunFolder, **recorder: Any):
        super().__init__(folder, **recorder)
        self.learner = learner
        self.params_nonzero_per_task: list[int] = []
        self._abandoned: SequenceStarted | TaskEnded | StepLogged | None = None

    @property
    def steps(self) -> int:
        """Steps of the learner so far."""
        return self.learner.steps

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

    def log_models(self, result: Mapping[str, Any]) -> None:
        """As `Recorder`: the last checkpoint, with its step and mean performance over tasks."""
        metadata = {"global_step": self.steps, "acc": result["acc"]}
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
            **super()._state(),
        }

    def _expected(self) -> dict[str, Any]:
        """How a `_state` is built."""
        return {**self._state(), "params_nonzero_per_task": Each(0)}

    def _load(self, recorder: Mapping[str, Any]) -> None:
        super()._load(recorder)
        abandoned = recorder["abandoned"]
        self._abandoned = {NOTHING: None, AFTER_STEP: StepLogged()}.get(abandoned, TaskEnded(abandoned))
        self.params_nonzero_per_task = list(recorder["params_nonzero_per_task"])
