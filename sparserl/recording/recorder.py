"""What every recorder of a run does: the logs, the clock, the progress bar, films, an orderly stop, its own state.

It knows no agent and no learner: training is a sequence of one task, and the caller says when to act and what to log.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sparserl.errors import NotFiniteError
from sparserl.metrics.connectivity import event_rows
from sparserl.recording.episodes import EvaluationAbandoned, ShouldStop
from sparserl.recording.progress import RunProgress
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.trackers import Tracker
from sparserl.recording.video import Act, Camera
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver


@dataclass(frozen=True)
class Intervals:
    """When a recorder acts, in env steps; at borders between tasks it acts as well.

    Attributes:
        evaluate: Between evaluations.
        log: Between rows of progress.csv.
        checkpoint: Between checkpoints.
        snapshot: Between topology snapshots; None where there are none.
    """

    evaluate: int
    log: int
    checkpoint: int
    snapshot: int | None = None


class Stoppable(Protocol):
    """What takes long, and asks after each step whether to leave by EvaluationAbandoned."""

    should_stop: ShouldStop


class LogsOfAgent(Protocol):
    """What an agent says of its training."""

    ep_info_buffer: Any

    @property
    def logger(self) -> Any:
        """With `name_to_value`, the latest numbers by name."""


class Recorder(ABC):
    """Records one run into its folder. It draws nothing at random.

    Args:
        folder: The run folder.
        identity: What tells this run from others, as plain data; a checkpoint of another run is refused.
        total_steps: Length of the run.
        show_progress: Whether to draw a progress bar.
        process: What the process uses; counted from now if None.
        camera: Films evaluations; None films nothing.
        evaluator: Evaluates; None where that takes no time.

    Attributes:
        trackers: Further sinks of metrics.
        stop_requested: Set from outside: save at the next boundary and stop.
        stopped_at: Step at which it did; None if it did not.
    """

    columns: Mapping[str, Sequence[str]]
    """CSV logs of a run and their columns."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        identity: Any,
        total_steps: int,
        show_progress: bool,
        process: ProcessCost | None = None,
        camera: Camera | None = None,
        evaluator: Stoppable | None = None,
    ):
        self.folder, self.identity, self.camera = folder, identity, camera
        self.trackers: Sequence[Tracker] = []
        self.stop_requested = False
        self.stopped_at: int | None = None
        for part in (camera, evaluator):
            if part is not None:
                part.should_stop = lambda: self.stop_requested
        self.process = process or ProcessCost()
        self.logs = {name: folder.log(name, names) for name, names in self.process.with_columns(self.columns).items()}
        self.progress = RunProgress(total_steps, show=show_progress)

    # What the run is.

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps so far."""

    @property
    @abstractmethod
    def evolver(self) -> TopologyEvolver | None:
        """What rewires the networks; None where nothing does."""

    @abstractmethod
    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on."""

    @abstractmethod
    def save_not_finite(self, error: NotFiniteError) -> Path:
        """Keeps the state in which something was not finite, to be looked at; gives its folder."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts what is trained, and this recorder, where a checkpoint was taken; an environment is the caller's.

        Raises:
            CheckpointError: If it belongs to another run, or something that it needs is missing or was edited.
        """

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost, once it has come to its end."""

    @abstractmethod
    def log_models(self, result: Mapping[str, Any]) -> None:
        """Gives trackers what was learned, once the run is done."""

    # Logs.

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Writes what is defined of some metrics to progress.csv and the trackers."""
        defined = {name: value for name, value in metrics.items() if not math.isnan(value)}
        row = {name: value for name, value in defined.items() if name in self.logs["progress"].columns}
        self.logs["progress"].write([{"global_step": self.steps, **row}])
        self._track(defined)

    def _track(self, metrics: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(self.steps, metrics)

    def _timing(self) -> dict[str, float]:
        """Steps a second since this was asked last, wall time, and what the process has used."""
        return {**self.progress.timing(self.steps), **self.process.metrics()}

    def _record_topology(self) -> Sequence[TopologyEvent]:
        """Writes what has happened to the topology since the last call, and gives it."""
        evolver = self.evolver
        events = [] if evolver is None else evolver.take_events()
        if evolver is not None and events:
            rows = event_rows(evolver, events, **self._known_of_neurons())
            self.logs["topology"].write([{"global_step": self._step_of(row), **row} for row in rows])
        return events

    def _known_of_neurons(self) -> Mapping[str, Any]:
        """What `event_rows` takes beside the events."""
        return {}

    def _step_of(self, event: Mapping[str, Any]) -> int:
        """Step at which a topology event happened, given its row."""
        del event
        return self.steps

    def _film(self, act: Act, task: int = 0) -> None:
        """Films a policy, if that is due; without this film if the run is asked to stop meanwhile."""
        if self.camera is None:
            return
        with suppress(EvaluationAbandoned):
            path = self.camera(act, self.steps, task)
            for tracker in self.trackers:
                tracker.log_video(self.steps, "eval/video", path)

    # What a checkpoint holds of all this.

    def _state(self) -> dict[str, Any]:
        return {
            "elapsed_s": self.progress.elapsed_s,
            "process": self.process.summary(),
            "csv_bytes": {name: log.size_bytes for name, log in self.logs.items()},
        }

    def _load(self, recorder: Mapping[str, Any]) -> None:
        """Takes over a `_state`."""
        self.progress.load(recorder["elapsed_s"])
        self.process.load(recorder["process"])

    def _spent(self) -> dict[str, Any]:
        """Steps, time and what the process has used, as `result.json` says them."""
        wall_s = self.progress.elapsed_s
        spent = {"steps": self.steps, "wall_s": wall_s, **self.process.summary()}
        return {**spent, "steps_per_second": self.steps / wall_s}


def logged_values(agent: LogsOfAgent, names: frozenset[str]) -> dict[str, float]:
    """What an agent's own logger says now, of some metrics."""
    return {name: float(value) for name, value in agent.logger.name_to_value.items() if name in names}


def rollout_metrics(agent: LogsOfAgent, names: frozenset[str]) -> dict[str, float]:
    """Mean return and length of an agent's latest training episodes, if there are any, and its `logged_values`."""
    metrics = {}
    episodes = agent.ep_info_buffer
    if episodes:
        metrics["rollout/ep_rew_mean"] = float(np.mean([episode["r"] for episode in episodes]))
        metrics["rollout/ep_len_mean"] = float(np.mean([episode["l"] for episode in episodes]))
    return metrics | logged_values(agent, names)
