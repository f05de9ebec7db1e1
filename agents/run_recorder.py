"""The callback that turns `learn` into a recorded run: evaluation, logs, checkpoints, progress bar, orderly stop.

It acts only at boundaries, after a gradient update and before the next env step, where the agent's state is whole; and
it draws from none of the agent's generators, so a recorded run learns exactly as an unrecorded one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean

from sparserl.agents.agent_state import check_networks
from sparserl.agents.checkpoints import AgentCheckpoints
from sparserl.agents.cost_meter import CostMeter
from sparserl.agents.evaluation import Evaluator
from sparserl.agents.observer import TopologyObserver
from sparserl.agents.parts import AgentParts
from sparserl.errors import NotFiniteError
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.metrics.cost import params_nonzero
from sparserl.recording import checkpoint
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.finite import check_losses, check_observation, check_transition
from sparserl.recording.metrics_table import columns, names
from sparserl.recording.progress import RunProgress
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import BEST, FINAL, RunFolder, check_is_of_run
from sparserl.recording.snapshots import save_snapshot
from sparserl.recording.state_structure import ANYTHING, Each, Named
from sparserl.recording.trackers import Tracker
from sparserl.recording.video import Camera
from sparserl.topology.structure import Flags

EVAL_COLUMNS = ("global_step", "episode", "return", "length", "cut_off")
NOT_REACHED = -1
"""Env step of the last boundary that was passed, where there is none."""
OF_THE_AGENT = frozenset(names("train"))
"""What is taken from the agent's own logger where it says so."""
LOGS = {"eval": EVAL_COLUMNS, "progress": columns("train"), "topology": TOPOLOGY_COLUMNS}
"""CSV logs of a run and their columns."""


@dataclass(frozen=True)
class Intervals:
    """When the recorder acts, in env steps."""

    evaluate: int
    log: int
    checkpoint: int
    snapshot: int


class RunRecorder(BaseCallback):
    """Records one run of an off-policy agent into its folder.

    Args:
        agent: The agent, before `learn`.
        folder: Its run folder.
        evaluator: Evaluates it.
        trackers: Further sinks of metrics.
        intervals: When to act.
        identity: What tells this run from others, as plain data; a checkpoint of another run is refused.
        total_steps: Length of the run in env steps.
        env_state: Gives the environment's state as a tree that a checkpoint can hold, or None if it cannot.
        wrapper_state: Gives that of the wrappers, on which the policy depends.
        relevant_features: Tells which features of an observation are relevant; None where nobody knows.
        show_progress: Whether to draw a progress bar.
        process: What the process uses; counted from now if None.
        camera: Films evaluations; None films nothing.
    """

    def __init__(
        self,
        agent: AgentParts,
        folder: RunFolder,
        evaluator: Evaluator,
        trackers: Sequence[Tracker],
        intervals: Intervals,
        *,
        identity: Any,
        total_steps: int,
        env_state: Callable[[], Any],
        wrapper_state: Callable[[], Any],
        relevant_features: Callable[[], Flags] | None = None,
        show_progress: bool,
        process: ProcessCost | None = None,
        camera: Camera | None = None,
    ):
        super().__init__()
        self.agent, self.folder, self.evaluator, self.trackers = agent, folder, evaluator, trackers
        self.intervals, self.identity = intervals, identity
        self.env_state, self.wrapper_state = env_state, wrapper_state
        self.cost = CostMeter(agent)
        self.topology = TopologyObserver(agent, relevant_features)
        self.checkpoints = AgentCheckpoints(agent, folder)
        self.process, self.camera = process or ProcessCost(), camera
        self.logs = {name: folder.log(name, columns) for name, columns in self.process.with_columns(LOGS).items()}
        self.eval_means: list[float] = []
        self.eval_steps: list[int] = []
        self.topology_events, self._last_event_update = 0, -1
        self.stop_requested = False
        evaluator.should_stop = self._should_stop
        if camera is not None:
            camera.should_stop = self._should_stop
        self.stopped_at: int | None = None
        self._boundary_at = NOT_REACHED
        self._next = {"evaluate": 0, "log": intervals.log, "checkpoint": intervals.checkpoint, "snapshot": 0}
        self.progress = RunProgress(total_steps, show=show_progress)

    def _should_stop(self) -> bool:
        return self.stop_requested

    # What stable-baselines3 calls.

    def _on_training_start(self) -> None:
        check_observation(self.agent.num_timesteps, self.agent._last_obs)
        self.progress.start(self.agent.num_timesteps)

    def _on_rollout_start(self) -> None:
        self._boundary()
        if self.stop_requested:
            self._stop()

    def _on_step(self) -> bool:
        check_transition(self.num_timesteps, self.locals)
        return self.stopped_at is None

    def _on_training_end(self) -> None:
        if self.stopped_at is None and self._boundary_at != self.agent.num_timesteps:
            self._next["evaluate"] = min(self._next["evaluate"], self.agent.num_timesteps)
            self._next["log"] = min(self._next["log"], self.agent.num_timesteps)
            self._boundary()
            if self._boundary_at != self.agent.num_timesteps:  # it was abandoned
                self._stop()
        self.progress.close()

    # What happens at a boundary.

    def _stop(self) -> None:
        if self.stopped_at is None:
            self.save_checkpoint()
            self.stopped_at = self.agent.num_timesteps

    def _boundary(self) -> None:
        """What is due; a run that is asked to stop in an evaluation goes on with all of this."""
        before = dict(self._next)
        try:
            self._do_what_is_due()
        except EvaluationAbandoned:
            self._next, self._boundary_at = before, NOT_REACHED

    def _do_what_is_due(self) -> None:
        step = self._boundary_at = self.agent.num_timesteps
        check_losses(step, self.agent.logger.name_to_value)
        if step >= min(self._next.values()):
            check_networks(self.agent)  # before anything is made of them
        self.cost.advance()
        self._record_topology(step)
        if self._due("snapshot", step):
            self._save_snapshot(step)
        if self._due("evaluate", step):
            self._evaluate(step)
        if self._due("log", step):
            self._log(step)
        if self._due("checkpoint", step):
            self.save_checkpoint()

    def _due(self, what: str, step: int) -> bool:
        if step < self._next[what]:
            return False
        every: int = getattr(self.intervals, what)
        self._next[what] = (step // every + 1) * every
        return True

    def _record_topology(self, step: int) -> None:
        events = self.topology.take_events()
        if not events:
            return
        self.logs["topology"].write([{"global_step": step, **row} for row in self.topology.rows(events)])
        changed = [event for event in events if event.kind != "initial"]
        for update in sorted({event.update for event in changed}):
            self.topology_events += update > self._last_event_update
            self._last_event_update = update

    def _save_snapshot(self, step: int) -> None:
        evolver = self.cost.agent.evolver
        layers = {} if evolver is None else {name: layer.topology for name, layer in evolver.layers.items()}
        save_snapshot(self.folder.snapshots, step, layers)

    def _evaluate(self, step: int) -> None:
        found = self.evaluator(self.agent)
        returns, lengths = found.returns, found.lengths
        rows = [
            {"global_step": step, "episode": episode, "return": value, "length": length, "cut_off": int(cut_off)}
            for episode, (value, length, cut_off) in enumerate(zip(returns, lengths, found.cut_off, strict=True))
        ]
        self.logs["eval"].write(rows)
        self.progress.say_once(found.warning)
        mean = float(np.mean(returns))
        if not math.isfinite(mean):
            count = sum(not math.isfinite(value) for value in returns)
            self.progress.say(
                f"the evaluation at step {step:,} is {mean}: returns of {count} of {len(returns)} episodes are no "
                "finite numbers; its policy is not taken for the best"
            )
        elif mean > self._best_mean:
            self._save_policy(self.folder.checkpoints / BEST)
        self.eval_means.append(mean)
        self.eval_steps.append(step)
        self._track(
            step,
            {
                "eval/return_mean": mean,
                "eval/return_std": float(np.std(returns)),
                "eval/ep_len_mean": float(np.mean(lengths)),
            },
        )
        if self.camera is not None and self.camera.is_due(step):
            with suppress(EvaluationAbandoned):  # the numbers are there: it goes on without this film
                path = self.camera(lambda observation: self.agent.predict(observation, deterministic=True)[0], step)
                for tracker in self.trackers:
                    tracker.log_video(step, "eval/video", path)
        self._show_progress(step)

    @property
    def _best_mean(self) -> float:
        """Of the evaluations so far; one that is no finite number is none."""
        return max(filter(math.isfinite, self.eval_means), default=-math.inf)

    def save_final_policy(self) -> None:
        """Saves the policy with which the run ends."""
        self._save_policy(self.folder.checkpoints / FINAL)

    def _save_policy(self, path: Path) -> None:
        modules = {"policy": self.agent.policy.state_dict()}
        step = self.agent.num_timesteps
        checkpoint.save(path, {"global_step": step, "modules": modules, "wrappers": self.wrapper_state()})

    def _log(self, step: int) -> None:
        agent = self.agent
        metrics: dict[str, float] = {}
        if agent.ep_info_buffer:
            metrics["rollout/ep_rew_mean"] = float(safe_mean([episode["r"] for episode in agent.ep_info_buffer]))
            metrics["rollout/ep_len_mean"] = float(safe_mean([episode["l"] for episode in agent.ep_info_buffer]))
        values = agent.logger.name_to_value
        metrics.update({key: float(value) for key, value in values.items() if key in OF_THE_AGENT})
        metrics.update(self.topology.metrics())
        metrics["cost/flops_train"] = self.cost.flops_train
        metrics["cost/params_nonzero"] = params_nonzero(self.cost.trained)
        metrics |= {**self.progress.timing(step), **self.process.metrics()}
        row = {key: metrics[key] for key in self.logs["progress"].columns if key in metrics}
        self.logs["progress"].write([{"global_step": step, **row}])
        self._track(step, metrics)
        self._show_progress(step, metrics["time/sps"])

    def _track(self, step: int, metrics: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, metrics)

    def _show_progress(self, step: int, sps: float | None = None) -> None:
        shown = {}
        if self.eval_means:
            shown["return"] = f"{self.eval_means[-1]:.0f}"
        if sps is not None:
            shown["steps/s"] = f"{sps:.0f}"
        self.progress.show(step, shown)

    # Checkpoints.

    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on; keeps the newest checkpoints."""
        self.checkpoints.save(
            {
                "run": self.identity,
                "env": self.env_state(),
                "wrappers": self.wrapper_state(),
                "recorder": self._state(),
            }
        )

    def save_not_finite(self, error: NotFiniteError) -> Path:
        """Keeps the state in which something was not finite, to be looked at; checkpoints stay as they are.

        Returns:
            Its folder.
        """
        more = {"what": str(error), "seen": error.seen, "env": self.env_state(), "wrappers": self.wrapper_state()}
        self.checkpoints.save_aside(self.folder.not_finite, more)
        return self.folder.not_finite

    def _state(self) -> dict[str, Any]:
        return {
            "next": self._next,
            "boundary_at": self._boundary_at,
            "eval_means": self.eval_means,
            "eval_steps": self.eval_steps,
            "topology_events": self.topology_events,
            "last_event_update": self._last_event_update,
            "elapsed_s": self.progress.elapsed_s,
            "process": self.process.summary(),
            "cost": self.cost.state_dict(),
            "logged_values": {
                key: float(value) for key, value in self.agent.logger.name_to_value.items() if key in OF_THE_AGENT
            },
            "csv_bytes": {name: log.size_bytes for name, log in self.logs.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts the agent, its buffer and this recorder where a checkpoint was taken; the env is the caller's.

        Args:
            state: The checkpoint.

        Raises:
            CheckpointError: If it belongs to another run, or a file that it names is missing or was edited.
        """
        check_is_of_run(state, self.identity)
        grows = {"eval_means": Each(0.0), "eval_steps": Each(0), "logged_values": Named(0.0)}
        self.checkpoints.check(
            state,
            {
                "run": ANYTHING,
                "env": ANYTHING,
                "wrappers": self.wrapper_state(),
                "recorder": {**self._state(), **grows},
            },
        )
        recorder = state["recorder"]
        self.checkpoints.restore(state)
        self.cost.load_state_dict(recorder["cost"])
        self._next = dict(recorder["next"])
        self._boundary_at = recorder["boundary_at"]
        self.eval_means, self.eval_steps = list(recorder["eval_means"]), list(recorder["eval_steps"])
        self.topology_events = recorder["topology_events"]
        self._last_event_update = recorder["last_event_update"]
        self.progress.load(recorder["elapsed_s"])
        self.process.load(recorder["process"])
        for key, value in recorder["logged_values"].items():
            self.agent.logger.record(key, value)

    def log_models(self, result: Mapping[str, Any]) -> None:
        """Gives trackers the best policy and that of now, with env step and mean return; the run is done."""
        for name, mean in ((BEST, self._best_mean), (FINAL, result["return_last"])):
            path = self.folder.checkpoints / name
            if not path.exists():
                continue  # no return of any evaluation was a number
            metadata = {"global_step": checkpoint.load(path)["global_step"], "return_mean": mean}
            for tracker in self.trackers:
                tracker.log_model(name, path, metadata)

    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost."""
        steps = self.agent.num_timesteps
        trained = [mean for at, mean in zip(self.eval_steps, self.eval_means, strict=True) if at > 0]
        return {
            "steps": steps,
            "wall_s": self.progress.elapsed_s,
            **self.process.summary(),
            "steps_per_second": steps / self.progress.elapsed_s,
            "return_last": self.eval_means[-1],
            "return_last10": float(np.mean(trained[-10:])),
            "return_last10_n": len(trained[-10:]),
            **self.cost.summary(),
            "topology_events": self.topology_events,
            "explored_fraction": self.topology.metrics().get("topology/explored_fraction"),
        }
