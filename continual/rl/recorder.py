"""Records the training of an agent on a sequence of tasks: evaluation, connections, checkpoints, result.

It draws from none of the agent's generators, so a recorded run learns exactly as an unrecorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sparserl.continual.rl import evaluation
from sparserl.continual.rl.evaluation import Episode, TaskEvaluator
from sparserl.continual.rl.learner import Progress, RLLearner
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.supervised.recorder import reported
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded
from sparserl.continual.supervised.sequence_recorder import OF_EVERY_SEQUENCE, BaseSequenceRecorder
from sparserl.errors import NotFiniteError
from sparserl.metrics.continual import summary
from sparserl.metrics.cost import (
    bytes_indices,
    bytes_optimizer,
    bytes_parameters,
    params_dense,
    params_nonzero,
    params_used,
)
from sparserl.recording.evaluations import matrix_at
from sparserl.recording.finite import check_losses, check_weights
from sparserl.recording.metrics_table import columns, names
from sparserl.recording.recorder import Intervals, logged_values, rollout_metrics
from sparserl.recording.run_folder import RunFolder, check_is_of_run
from sparserl.recording.run_logs import read_columns
from sparserl.recording.state_structure import ANYTHING, Each, Named
from sparserl.topology.evolver import TopologyEvolver

EVAL_COLUMNS = ("global_step", "training_task", *evaluation.COLUMNS)
LOGS = {
    "eval": EVAL_COLUMNS,
    "random": EVAL_COLUMNS,
    "progress": columns("continual_rl"),
    **OF_EVERY_SEQUENCE,
}
"""CSV logs of a run and their columns."""
OF_THE_AGENT = frozenset(names("continual_rl"))
"""What is taken from the agent's own logger where it says so."""
BEFORE = -1
"""`training_task` of a network that has learned nothing."""


class Checkpoints(Protocol):
    """Where checkpoints of the agent go."""

    def save(self, more: Mapping[str, Any], *, emptied_at: int = 0, replaces: bool = False) -> None:
        """Writes one of this moment, with more beside the agent; over one of the same env step if that is older."""

    def save_aside(self, path: Path, more: Mapping[str, Any]) -> None:
        """Writes this moment where no run goes on from, to be looked at."""

    def check(self, state: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Refuses one that is not built as it would be here, with more beside the agent."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the agent and its buffer where one was taken."""

    def forget_replay(self) -> None:
        """Deletes the replay buffer on disk."""


class RLSequenceRecorder(BaseSequenceRecorder[RLLearner]):
    """Records one run of an agent on a sequence into its folder.

    Args:
        learner: The learner, before `learn`.
        folder: Its run folder.
        evaluator: Evaluates policies on tasks.
        checkpoints: Of the agent.
        intervals: When to act.
        env_state: Gives the environment's state as a tree that a checkpoint can hold, or None if it cannot.
        recorder: Further arguments of `Recorder`; the camera films the task that is learned.

    Attributes:
        baseline: (T,) mean return on each task before anything is learned.
        returns: (T, T) so far, mean return of stochastic episodes on each task after each task.
        successes: Likewise, share of them with success at any step; NaN where the environment signals none.
    """

    columns = LOGS

    def __init__(
        self,
        learner: RLLearner,
        folder: RunFolder,
        evaluator: TaskEvaluator,
        checkpoints: Checkpoints,
        intervals: Intervals,
        *,
        env_state: Callable[[], Any],
        **recorder: Any,
    ):
        super().__init__(learner, folder, total_steps=learner.total_steps, evaluator=evaluator, **recorder)
        self.evaluator, self.checkpoints = evaluator, checkpoints
        self.intervals, self.env_state = intervals, env_state
        self.baseline: list[float] = []
        self.returns: list[list[float]] = []
        self.successes: list[list[float]] = []
        self._seen: dict[str, float] = {}

    @property
    def evolver(self) -> TopologyEvolver | None:
        """That of the agent."""
        own: TopologyEvolver = self.learner.agent.evolver
        return own

    # What happens at an event.

    def _check_losses(self, event: SequenceStarted | Progress | TaskEnded) -> None:
        del event
        check_losses(self.learner.steps, self.learner.agent.logger.name_to_value)

    def _check_networks(self) -> None:
        check_weights(self.learner.steps, self.learner.agent.policy.state_dict(), "policy.")

    def _on_start(self) -> None:
        by_chance = [self.evaluator.random(task) for task in range(len(self.learner.sequence))]
        self.baseline = [_mean(of_task, "returned") for of_task in self._evaluate(BEFORE)]
        for episodes in by_chance:
            self._write("random", BEFORE, episodes)

    def _on_step(self, progress: Progress) -> None:
        step = self.learner.steps
        if progress.consolidating:
            self._show(task=progress.task, doing="consolidating")
            return
        self.progress.show(step)
        ends_task = self.learner.task_steps == self.learner.sequence[progress.task].steps
        if step % self.intervals.log == 0 or ends_task:
            self._log_progress(progress.task)

    def _after_step(self) -> None:
        step, task = self.learner.steps, self.learner.task
        if self.learner.task_steps == self.learner.sequence[task].steps:
            return  # the end of the task evaluates and saves
        if step % self.intervals.evaluate == 0:
            self._evaluate(task)
        if step % self.intervals.checkpoint == 0:
            self.save_checkpoint()

    def _on_task_end(self, task: int) -> None:
        self._evaluate(task)
        measured = read_columns(self.logs["eval"].path)
        ends = np.cumsum([one.steps for one in self.learner.sequence])
        self.returns, self.successes = (
            matrix_at(measured, ends, measure)[: task + 1].tolist() for measure in ("return", "success")
        )
        uses = self.learner.usage()
        self._log_connections(task, uses)
        self.params_nonzero_per_task.append(params_nonzero(self._trained))
        self._log({"train/task": task, "cl/connections": _used(uses), "cl/free_connections": _free(uses)})
        self.save_checkpoint()

    @property
    def _trained(self) -> list[Any]:
        return list(self.learner.agent.networks.values())

    def _evaluate(self, training_task: int) -> list[list[Episode]]:
        """Evaluates all tasks, without a trace in the agent's generators."""
        self._check_networks()  # before anything is made of them
        episodes = []
        for task in range(len(self.learner.sequence)):
            # The same draws each time, so that a policy that has not changed has the same returns.
            with self.learner.isolated_rng("evaluation", task):
                episodes.append(self.evaluator(self.learner.policy(task), task))
        for of_task in episodes:  # when all are there: an evaluation may be abandoned
            self._write("eval", training_task, of_task)
            self.progress.say_once(evaluation.warning_of(of_task))
        seen = range(max(1, training_task + 1))
        returns = [_mean(of_task, "returned") for of_task in episodes]
        successes = [_mean(of_task, "success") for of_task in episodes]
        self._seen = {
            "cl/return_own": returns[max(0, training_task)],
            "cl/return_seen": float(np.mean([returns[task] for task in seen])),
            "cl/success_seen": float(np.mean([successes[task] for task in seen])),
        }
        names = {"return": returns, "success": successes}
        by_task = {f"cl/{what}/task{task}": value for what, one in names.items() for task, value in enumerate(one)}
        self._log({"train/task": training_task, **self._seen, **by_task})
        if self.camera is not None and self.camera.is_due(self.learner.steps):
            filmed = max(0, training_task)
            act = self.learner.policy(filmed)
            with self.learner.isolated_rng("video", filmed):
                self._film(lambda observation: act(observation[None], True)[0], filmed)
        return episodes

    def _write(self, log: str, training_task: int, episodes: Sequence[Episode]) -> None:
        when = {"global_step": self.learner.steps, "training_task": training_task}
        self.logs[log].write([{**when, **episode.row()} for episode in episodes])

    def _log_progress(self, task: int) -> None:
        agent = self.learner.agent
        metrics = {
            "train/task": task,
            **rollout_metrics(agent, OF_THE_AGENT),
            "cost/params_nonzero": params_nonzero(self._trained),
            **self._timing(),
        }
        self._log(metrics)
        self._show(task=task, doing=f"{metrics['time/sps']:.0f} steps/s")

    def _show(self, *, task: int, doing: str) -> None:
        shown = {"task": f"{task + 1}/{len(self.learner.sequence)}", "now": doing}
        if "cl/return_own" in self._seen:
            shown["return"] = f"{self._seen['cl/return_own']:.0f}"
        self.progress.show(self.learner.steps, shown)

    # Checkpoints.

    def save_checkpoint(self) -> None:
        """Writes all that the rest of the run depends on."""
        self._check_networks()
        recorder = {
            "baseline": self.baseline,
            "returns": self.returns,
            "successes": self.successes,
            "seen": self._seen,
            "logged_values": logged_values(self.learner.agent, OF_THE_AGENT),
            **self._state(),
        }
        self.checkpoints.save(
            {
                "run": self.identity,
                "learner": self.learner.state_dict(),
                "env": self.env_state(),
                "recorder": recorder,
            },
            emptied_at=self.learner.emptied_at,
            replaces=True,  # tasks are consolidated between two env steps
        )

    def save_not_finite(self, error: NotFiniteError) -> Path:
        more = {"what": str(error), "seen": error.seen, "learner": self.learner.state_dict(), "env": self.env_state()}
        self.checkpoints.save_aside(self.folder.not_finite, more)
        return self.folder.not_finite

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the agent, the learner and this recorder where a checkpoint was taken; the env is the caller's.

        Raises:
            CheckpointError: If it belongs to another run, or a file that it names is missing or was edited.
        """
        check_is_of_run(state, self.identity)
        grows = {"baseline": Each(0.0), "returns": Each(Each(0.0)), "successes": Each(Each(0.0)), "seen": Named(0.0)}
        learner = self.learner.state_dict()
        self.checkpoints.check(
            state,
            {
                "run": ANYTHING,
                "env": ANYTHING,
                "learner": {**dict.fromkeys(learner, ANYTHING), "position": learner["position"]},
                "recorder": {**self._expected(), **grows, "logged_values": Named(0.0)},
            },
        )
        recorder = state["recorder"]
        self.checkpoints.restore(state)
        self.learner.load_state_dict(state["learner"])
        self.baseline = list(recorder["baseline"])
        self.returns = [list(row) for row in recorder["returns"]]
        self.successes = [list(row) for row in recorder["successes"]]
        self._seen = dict(recorder["seen"])
        for key, value in recorder["logged_values"].items():
            self.learner.agent.logger.record(key, value)
        self._load(recorder)

    # Result.

    def result(self) -> dict[str, Any]:
        """What `result.json` says of the run's outcome and cost, once all tasks are learned."""
        learner, agent = self.learner, self.learner.agent
        uses = learner.usage()
        buffer = agent.replay_buffer
        arrays = (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards, buffer.dones)
        kept = learner.border.buffer == "kept"
        return {
            "tasks": len(learner.sequence),
            "task_names": [task.name for task in learner.sequence],
            "returns": self.returns,
            "successes": None if np.isnan(self.successes).any() else self.successes,
            "baseline": self.baseline,
            **reported(summary(self.returns, baseline=self.baseline)),
            "params_nonzero_per_task": self.params_nonzero_per_task,
            "params_nonzero": params_nonzero(self._trained),
            "params_used": params_used(self._trained),
            "params_dense": params_dense(self._trained),
            "connections": _used(uses),
            "connections_frozen": sum(use.frozen for use in uses),
            "connections_free": _free(uses),
            "connections_dense": sum(use.size for use in uses),
            "bytes_parameters": bytes_parameters(self._trained),
            "bytes_optimizer": bytes_optimizer(map(agent.optimizer_of, agent.trained)),
            "bytes_indices": bytes_indices(self._trained),
            "memory": {
                **learner.strategy.memory(),
                **({"replay_buffer": sum(array.nbytes for array in arrays)} if kept else {}),
            },
            **self._spent(),
        }


def _mean(episodes: Sequence[Episode], what: str) -> float:
    """Over stochastic episodes; NaN where an environment does not say."""
    values = [getattr(episode, what) for episode in episodes if episode.stochastic]
    return float("nan") if None in values or not values else float(np.mean(values))


def _used(uses: Sequence[ConnectionUsage]) -> int:
    return sum(use.used for use in uses)


def _free(uses: Sequence[ConnectionUsage]) -> int:
    return sum(use.free for use in uses)
