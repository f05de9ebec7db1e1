"""What a run learned: the policy that answers on each of its tasks, and environments for it; a run of
`sparserl train` has one task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import gymnasium as gym

from sparserl import __version__
from sparserl.agents.agent_state import restore_modules
from sparserl.agents.export_policy import exported_policy
from sparserl.continual.rl.learner import Policy
from sparserl.envs import load_wrapper_state
from sparserl.errors import CheckpointError, ConfigError
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.resuming import restoring
from sparserl.experiment.rl_continual_config import RLContinualConfig
from sparserl.experiment.run_config import (
    is_continual,
    is_of_agents,
    located_config,
    rl_continual_config,
    run_config,
    run_sequence,
)
from sparserl.experiment.train_config import TrainConfig
from sparserl.export import ExportedPolicy
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import BEST, FINAL, RunFolder, WhichCheckpoint, full_checkpoints, step_in
from sparserl.recording.whole_checkpoints import check_step, whole_steps

C = TypeVar("C", bound=TrainConfig | RLContinualConfig)


class TrainedRun(ABC, Generic[C]):
    """A checkpoint of a run, ready to act.

    Args:
        config: Of the run.
        state: The checkpoint.
        which: Which one it is.

    Attributes:
        config: As above.
        which: As above.
        tasks: Names of its tasks; of a run of `sparserl train` its environment alone.
        step: Env step of the checkpoint.
    """

    tasks: Sequence[str]

    def __init__(self, config: C, state: Mapping[str, Any], which: WhichCheckpoint):
        self.config = config
        self.which = which
        self.step = int(state["global_step"])

    @property
    def title(self) -> str:
        """Which run and checkpoint, in words."""
        return f"{self.config.name} seed {self.config.seed}, {self.which} checkpoint (step {self.step:,})"

    @abstractmethod
    def make_env(self, task: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """An environment of a task, behind the wrappers of the run as they were at the checkpoint."""

    @abstractmethod
    def policy(self, task: int) -> Policy:
        """What answers on a task."""

    def exported(self, task: int) -> ExportedPolicy:
        """What answers on a task, as plain arrays; reads the first features of observations, as its hidden layers do.

        Raises:
            ConfigError: If the actor is of a kind that cannot be exported.
        """
        labels = self.config.wrappers.labels
        about = {
            "algorithm": self.config.algo,
            "environment": self._environment(task),
            "seed": str(self.config.seed),
            "global_step": str(self.step),
            "sparserl": __version__,
            "observations": f"behind the wrappers {', '.join(labels)}" if labels else "as they are",
        }
        return self._exported(task, about)

    @abstractmethod
    def _environment(self, task: int) -> str:
        """What to say of where a policy acts."""

    @abstractmethod
    def _exported(self, task: int, about: dict[str, str]) -> ExportedPolicy: ...

    def chosen(self, task: int | None) -> list[int]:
        """The tasks that an option `--task` stands for: one, or all if it is not given.

        Raises:
            ConfigError: If there is no such task.
        """
        if task is not None and not 0 <= task < len(self.tasks):
            raise ConfigError(f"there is no --task {task}; tasks are {self._listing}")
        return list(range(len(self.tasks))) if task is None else [task]

    def only(self, task: int | None) -> int:
        """The one task that an option `--task` stands for; need not be given if there is but one.

        Raises:
            ConfigError: If there is no such task, or it must be said which.
        """
        found = self.chosen(task)
        if len(found) > 1:
            raise ConfigError(f"--task must say which: {self._listing}")
        return found[0]

    @property
    def _listing(self) -> str:
        return ", ".join(f"{task} ({name})" for task, name in enumerate(self.tasks))


class TrainedAgent(TrainedRun[TrainConfig]):
    """A run of `sparserl train`.

    Attributes:
        agent: The agent, with an empty replay buffer.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint):
        config = located_config(run_config(folder), folder)
        state = checkpoint.load(folder.checkpoints / BEST) if which == "best" else _last(folder)
        with restoring():
            super().__init__(config, state, which)
        self.tasks = [config.env]
        name_modules(self.tasks, folder.path)
        self._env = config.make_env()
        self.agent = config.make_agent(self._env, buffer_size=1)
        with restoring():
            restore_modules(self.agent, state["modules"], ["policy"])
            load_wrapper_state(self._env, state["wrappers"])

    def make_env(self, task: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Follows the wrappers' state and does not change it."""
        del task
        return self.config.make_env(render_mode=render_mode, follow=self._env)

    def policy(self, task: int) -> Policy:
        """That of the agent."""
        del task
        return lambda observations, deterministic: self.agent.predict(observations, deterministic=deterministic)[0]

    def _environment(self, task: int) -> str:
        del task
        return self.config.env

    def _exported(self, task: int, about: dict[str, str]) -> ExportedPolicy:
        del task
        return exported_policy(self.agent, about)


class TrainedSequence(TrainedRun[RLContinualConfig]):
    """A run of `sparserl continual` on environments, which has no best checkpoint.

    Attributes:
        learner: The learner, where the checkpoint was taken.
    """

    def __init__(self, folder: RunFolder):
        config = located_config(rl_continual_config(folder), folder)
        state = _last(folder)
        with restoring():
            super().__init__(config, state, "last")
        self._sequence = run_sequence(folder)
        self.tasks = [task.name for task in self._sequence.tasks]
        self.learner = config.make_learner(self._sequence)
        with restoring():
            restore_modules(self.learner.agent, state["modules"], ["policy"])
            self.learner.load_state_dict(state["learner"])

    def make_env(self, task: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """With the task's id at the end of observations, if the agent reads one."""
        return self.config.make_task(self._sequence.tasks[task], len(self._sequence), render_mode=render_mode)

    def policy(self, task: int) -> Policy:
        """By the connections that the method reserves for the task, and its output layer."""
        return self.learner.policy(task)

    def _environment(self, task: int) -> str:
        return f"{self._sequence.tasks[task].env}, {self.tasks[task]}"

    def _exported(self, task: int, about: dict[str, str]) -> ExportedPolicy:
        if self.config.border.task_id == "visible":
            about["observations"] += f", then a one-hot task id of {len(self.tasks)}"
        return exported_policy(self.learner.agent, about, self.learner.strategy.network_for_task(self.learner, task))


def open_trained(path: Path, which: WhichCheckpoint | None) -> TrainedAgent | TrainedSequence:
    """A run's policies.

    Args:
        path: Run folder.
        which: `best` by evaluation, or the `last` one; None is the best, or of a continual run the last.

    Raises:
        ConfigError: If the run has no policy, or no best one.
        CheckpointError: If the checkpoint is missing or damaged.
    """
    folder = RunFolder.open(path)
    if not is_continual(folder):
        return TrainedAgent(folder, which or "best")
    if not is_of_agents(folder):
        raise ConfigError(f"{path} is a run of a classifier, which has no policy; its accuracies are in result.json")
    if which == "best":
        raise ConfigError(f"{path} is a continual run, which has no best checkpoint; use --checkpoint last")
    return TrainedSequence(folder)


def _last(folder: RunFolder) -> dict[str, Any]:
    """The last policy: of a finished run its final one, otherwise that of the newest full checkpoint."""
    final, found = folder.checkpoints / FINAL, full_checkpoints(folder)
    has_best = (folder.checkpoints / BEST).exists()
    if not found and not final.exists():
        raise CheckpointError(
            f"{folder.path} has no full checkpoint yet{'; try --checkpoint best' if has_best else ''}"
        )
    path = final if final.exists() else found[-1]
    try:
        state = checkpoint.load(path)
        if path != final:
            check_step(path, state)
    except CheckpointError as error:
        older = [step for step in whole_steps(folder) if step != step_in(path)] if path != final else []
        ways = ["try --checkpoint best"] if has_best else []
        ways += [f"--resume with --from-step {older[-1]} goes back to one that is whole"] if older else []
        raise CheckpointError("; ".join([str(error), *ways])) from None
    return state
