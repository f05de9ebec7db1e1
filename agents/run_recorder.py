"""The callback that turns `learn` into a recorded run: evaluation, logs, checkpoints, progress bar, orderly stop.

It acts only at boundaries, after a gradient update and before the next env step, where the agent's state is whole; and
it draws from none of the agent's generators, so a recorded run learns exactly as an unrecorded one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sparserl.agents.agent_state import check_networks
from sparserl.agents.checkpoints import AgentCheckpoints
from sparserl.agents.cost_meter import CostMeter
from sparserl.agents.evaluation import Evaluator
from sparserl.agents.learning_observer import LEARNING_COLUMNS, LearningObserver, When
from sparserl.agents.observer import TopologyObserver
from sparserl.agents.parts import AgentParts
from sparserl.errors import NotFiniteError
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.metrics.cost import params_nonzero
from sparserl.recording import checkpoint
from sparserl.recording.episodes import EvaluationAbandoned
from sparserl.recording.finite import check_losses, check_observation, check_transition
from sparserl.recording.metrics_table import columns, names
from sparserl.recording.recorder import Intervals, Recorder, logged_values, rollout_metrics
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import BEST, FINAL, RunFolder, check_is_of_run
from sparserl.recording.snapshots import save_snapshot
from sparserl.recording.state_structure import ANYTHING, Each, Named
from sparserl.recording.video import Camera
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import Flags

EVAL_COLUMNS = ("global_step", "episode", "return", "length", "cut_off")
NOT_REACHED = -1
"""Env step of the last boundary that was passed, where there is none."""
OF_THE_AGENT = frozenset(names("train"))
"""What is taken from the agent's own logger where it says so."""
LOGS = {"eval": EVAL_COLUMNS, "progress": columns("train"), "topology": TOPOLOGY_COLUMNS}
"""CSV logs of a run and their columns."""
WITH_LEARNING = {**LOGS, "learning": LEARNING_COLUMNS}
"""The same of a run that measures its networks."""


class RunRecorder(Recorder, BaseCallback):
    """Records one run of an agent that is trained by `learn`, as its callback.

    Args:
        agent: The agent, before `learn`.
        folder: Its run folder.
        evaluator: Evaluates it.
        intervals: When to act.
        identity: As in `Recorder`, like what is not listed here.
        total_steps: Length of the run in env steps.
        env_state: Gives the environment's state as a tree that a checkpoint can hold, or None if it cannot.
        wrapper_state: Gives that of the wrappers, on which the policy depends.
        relevant_features: Tells which features of an observation are relevant; None if unknown.
        learning: When the networks are measured.
        keeps_end: Whether there is a full checkpoint of the end, from which a longer run would go on.
    """

    columns = LOGS

    def __init__(
        self,
        agent: AgentParts,
        folder: RunFolder,
        evaluator: Evaluator,
        intervals: Intervals,
        *,
        identity: Any,
        total_steps: int,
        env_state: Callable[[], Any],
        wrapper_state: Callable[[], Any],
        relevant_features: Callable[[], Flags] | None = None,
        learning: When = "never",
        show_progress: bool,
        keeps_end: bool = False,
        process: ProcessCost | None = None,
        camera: Camera | None = None,
    ):
        BaseCallback.__init__(self)
        self.columns = LOGS if learning == "never" else WITH_LEARNING
        Recorder.__init__(
            self,
            folder,
            identity=identity,
            total_steps=total_steps,
            show_progress=show_progress,
            process=process,
            camera=camera,
            evaluator=evaluator,
        )
        self.agent, self.evaluator, self.intervals = agent, evaluator, intervals
        self.env_state, self.wrapper_state = env_state, wrapper_state
        self.keeps_end = keeps_end
        self.cost = CostMeter(agent)
        self.topology = TopologyObserver(agent, relevant_features)
        self._measured, self._learning = learning, LearningObserver(agent)
        self.checkpoints = AgentCheckpoints(agent, folder)
        self.eval_means: list[float] = []
        self.eval_steps: list[int] = []
        self.topology_events, self._last_event_update = 0, -1
        self._boundary_at = NOT_REACHED
        self._next = {"evaluate": 0, "log": intervals.log, "checkpoint": intervals.checkpoint, "snapshot": 0}

    @property
    def steps(self) -> int:
        """Env steps so far."""
        return self.agent.num_timesteps

    @property
    def evolver(self) -> TopologyEvolver | None:
        """That of the agent."""
        evolver: TopologyEvolver | None = self.agent.evolver
        return evolver

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
        if self.stopped_at is None and self.keeps_end:
            self.save_checkpoint()
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
        self._count_events()
        if self._due("snapshot", step):
            self._save_snapshot(step)
        if self._due("evaluate", step):
            self._evaluate(step)
        if self._due("log", step):
            self._log_progress()
        if self._due("checkpoint", step):
            self.save_checkpoint()

    def _due(self, what: str, step: int) -> bool:
        if step < self._next[what]:
            return False
        every: int = getattr(self.intervals, what)
        self._next[what] = (step // every + 1) * every
        return True

    def _known_of_neurons(self) -> Mapping[str, Any]:
        return self.topology.known()

    def _count_events(self) -> None:
        updates = sorted({event.update for event in self._record_topology() if event.kind != "initial"})
        for update in updates:
            self.topology_events += update > self._last_event_update
            self._last_event_update = update
        if updates and self._measured == "events":
            self._measure_learning()

    def _measure_learning(self) -> None:
        measured = self._learning.measures()
        self.logs["learning"].write([{"global_step": self.steps, "network": net, **of} for net, of in measured.items()])
        self._track({f"learning/{net}/{name}": value for net, of in measured.items() for name, value in of.items()})

    def _save_snapshot(self, step: int) -> None:
        layers = {} if self.evolver is None else self.evolver.layers
        save_snapshot(self.folder.snapshots, step, {name: layer.topology for name, layer in layers.items()})

    def _evaluate(self, step: int) -> None:
        evaluation = self.evaluator(self.agent)
        returns, lengths = evaluation.returns, evaluation.lengths
        rows = [
            {"global_step": step, "episode": episode, "return": value, "length": length, "cut_off": int(cut_off)}
            for episode, (value, length, cut_off) in enumerate(zip(returns, lengths, evaluation.cut_off, strict=True))
        ]
        self.logs["eval"].write(rows)
        if self._measured == "evaluations":
            self._measure_learning()
        self.progress.say_once(evaluation.warning)
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
            {
                "eval/return_mean": mean,
                "eval/return_std": float(np.std(returns)),
                "eval/ep_len_mean": float(np.mean(lengths)),
            }
        )
        if self.camera is not None and self.camera.is_due(step):
            policy = self.agent.for_an_episode()
            self._film(lambda observation: policy(observation, True))
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

    def _log_progress(self) -> None:
        metrics = {
            **rollout_metrics(self.agent, OF_THE_AGENT),
            **self.topology.metrics(),
            "cost/flops_train": self.cost.flops_train,
            "cost/params_nonzero": params_nonzero(self.cost.trained),
            **self._timing(),
        }
        self._log(metrics)
        self._show_progress(self.steps, metrics["time/sps"])

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
        """As `Recorder`; checkpoints stay as they are."""
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
            "cost": self.cost.state_dict(),
            "logged_values": logged_values(self.agent, OF_THE_AGENT),
            **super()._state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
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
        self._load(recorder)
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
        trained = [mean for at, mean in zip(self.eval_steps, self.eval_means, strict=True) if at > 0]
        return {
            **self._spent(),
            "return_last": self.eval_means[-1],
            "return_last10": float(np.mean(trained[-10:])) if trained else self.eval_means[-1],
            "return_last10_n": len(trained[-10:]),
            **self.cost.summary(),
            "topology_events": self.topology_events,
            "explored_fraction": self.topology.metrics().get("topology/explored_fraction"),
        }
