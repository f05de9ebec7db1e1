"""What an agent learned in a run: the policy that answers on each of its tasks, and environments for it; a run of
`sparserl train` has one task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from sparserl import __version__
from sparserl.agents.agent_state import restore_modules
from sparserl.agents.evaluation import Evaluation, Evaluator
from sparserl.agents.export_policy import exported_policy
from sparserl.agents.networks.chains import chains_of_agent, check_reads_vectors
from sparserl.agents.parts import AgentParts
from sparserl.continual.rl.evaluation import Episode, TaskEvaluator
from sparserl.continual.rl.learner import Policy
from sparserl.errors import ConfigError
from sparserl.experiment.opened_run import OpenedRun, last_of_continual
from sparserl.experiment.restored_agent import RestoredAgent, last_state
from sparserl.experiment.resuming import restoring
from sparserl.experiment.rl_continual_config import RLContinualConfig
from sparserl.experiment.run_config import (
    kind_in,
    located_config,
    rl_continual_config,
    run_sequence,
)
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.visited import MOST_SAMPLES, Visited, read_of, visited
from sparserl.export import ExportedPolicy
from sparserl.layers import SparseMLP
from sparserl.layers.linear import linear
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import USUAL_CHECKPOINT, RunFolder, WhichCheckpoint

A = TypeVar("A", bound=TrainConfig | RLContinualConfig)
EVAL_SEED = 10_000
"""Seed of evaluations of a run that is opened, away from the seeds of training."""


class OpenedAgentRun(OpenedRun[A]):
    """A run of an agent, ready to act.

    Attributes:
        tasks: Names of its tasks; of a run of `sparserl train` its environment alone.
    """

    tasks: Sequence[str]

    @abstractmethod
    def make_env(self, task: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """An environment of a task, behind the wrappers of the run as they were at the checkpoint."""

    @abstractmethod
    def policy(self, task: int) -> Policy:
        """What answers on a task."""

    @property
    @abstractmethod
    def acting(self) -> str:
        """Group of the network that chooses actions."""

    @abstractmethod
    def networks(self, task: int) -> dict[str, list[SparseMLP]]:
        """What answers on a task, and what values its actions, by group; that of `acting` first.

        Raises:
            ConfigError: If they are no chains of layers that read vectors.
        """

    def visited(
        self,
        task: int,
        episodes: int,
        *,
        seed: int = EVAL_SEED,
        max_steps: int | None = None,
        most: int = MOST_SAMPLES,
    ) -> Visited:
        """At most so many observations and actions of a task, without exploration; arguments as in `evaluate`."""
        bound = self.config.eval.max_steps if max_steps is None else max_steps
        policy = self.policy(task)
        return visited(lambda: self.make_env(task), policy, episodes=episodes, seed=seed, max_steps=bound, most=most)

    @abstractmethod
    def read_by(self, task: int, samples: Visited) -> dict[str, np.ndarray]:
        """(N, n_in) what the networks of each group read of observations and actions."""

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
        chosen = self.chosen(task)
        if len(chosen) > 1:
            raise ConfigError(f"--task must say which: {self._listing}")
        return chosen[0]

    @property
    def _listing(self) -> str:
        return ", ".join(f"{task} ({name})" for task, name in enumerate(self.tasks))


class TrainedAgent(OpenedAgentRun[TrainConfig]):
    """A run of `sparserl train`.

    Attributes:
        agent: The agent, with an empty replay buffer.
        env: An environment of its, behind the wrappers as they were at the checkpoint; nobody steps it.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint | None = None):
        which = which or USUAL_CHECKPOINT
        restored = RestoredAgent(folder, which)
        with restoring():
            super().__init__(folder, restored.config, restored.state, which)
        self.tasks = [restored.config.env]
        self.env, self.agent = restored.env, restored.agent

    def make_env(self, task: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """Follows the wrappers' state and does not change it."""
        del task
        return self.config.make_env(render_mode=render_mode, follow=self.env)

    def policy(self, task: int) -> Policy:
        """That of the agent, for one episode."""
        del task
        return self.agent.for_an_episode()

    @property
    def acting(self) -> str:
        return self.agent.trained[0]

    def networks(self, task: int) -> dict[str, list[SparseMLP]]:
        del task
        return _by_group(self.agent, chains_of_agent(self.agent))

    def read_by(self, task: int, samples: Visited) -> dict[str, np.ndarray]:
        del task
        return read_of(self.agent, samples)

    def evaluate(self, episodes: int = 10, *, seed: int = EVAL_SEED, max_steps: int | None = None) -> Evaluation:
        """Runs the policy without exploration noise.

        Args:
            episodes: How many.
            seed: Episode i starts from a reset with `seed + i`.
            max_steps: Env steps after which an episode is cut off; as the config says if None.

        Returns:
            Returns and lengths of the episodes.
        """
        bound = self.config.eval.max_steps if max_steps is None else max_steps
        evaluator = Evaluator(lambda: self.make_env(0), episodes, seed=seed, max_steps=bound)
        with closing(evaluator):
            return evaluator(self.agent)

    def to_train_on(self) -> AgentParts:
        """An agent with these networks and all settings of the run, in environments of its own, at the env step of the
        checkpoint; all else is as where an agent begins."""
        agent = self.config.make_agent(self.config.make_envs())
        agent.policy.load_state_dict(self.agent.policy.state_dict())
        agent.num_timesteps = self.step
        return agent

    def _environment(self, task: int) -> str:
        del task
        return self.config.env

    def _exported(self, task: int, about: dict[str, str]) -> ExportedPolicy:
        del task
        return exported_policy(self.agent, about)


class TrainedSequence(OpenedAgentRun[RLContinualConfig]):
    """A run of `sparserl continual` on environments, which has no best checkpoint.

    Attributes:
        learner: The learner, where the checkpoint was taken.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint | None = None):
        which = last_of_continual(folder, which)
        config = located_config(rl_continual_config(folder), folder)
        state = last_state(folder)
        with restoring():
            super().__init__(folder, config, state, which)
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

    @property
    def acting(self) -> str:
        group: str = self.learner.agent.trained[0]
        return group

    def networks(self, task: int) -> dict[str, list[SparseMLP]]:
        """Critics are those of the task that was learned last, unless each task has heads of its own."""
        others = {one.name: one.of_task(task) for one in self.learner.networks if one.group != self.acting}
        answers = self.learner.strategy.network_for_task(self.learner, task)
        return _by_group(self.learner.agent, {self.acting: answers, **others})

    def read_by(self, task: int, samples: Visited) -> dict[str, np.ndarray]:
        """Without the id of the task where hidden layers do not read it."""
        n_features = linear(self.networks(task)[self.acting][0][0]).shape[1]
        observations, actions = samples
        return read_of(self.learner.agent, (observations[:, :n_features], actions))

    def evaluate(
        self,
        episodes: int = 10,
        *,
        tasks: Sequence[int] | None = None,
        seed: int = EVAL_SEED,
        max_steps: int | None = None,
    ) -> dict[str, list[Episode]]:
        """Runs the policy on tasks.

        Args:
            episodes: On each task so many with actions drawn from the policy, and so many with its mode.
            tasks: Their indices; all if None.
            seed: Root seed of resets; that of the run repeats its evaluation.
            max_steps: Env steps after which an episode is cut off; as the config says if None.

        Returns:
            Name of each task -> its episodes.
        """
        evaluator = TaskEvaluator(
            self.make_env,
            len(self.tasks),
            stochastic=episodes,
            deterministic=episodes,
            seed=seed,
            max_steps=self.config.eval.max_steps if max_steps is None else max_steps,
        )
        evaluations = {}
        with closing(evaluator):
            for task in range(len(self.tasks)) if tasks is None else tasks:
                with self.learner.isolated_rng("evaluation", task):  # as in training
                    evaluations[self.tasks[task]] = evaluator(self.policy(task), task)
        return evaluations

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
        which: The `last` one, or the `best` by evaluation; None is the last.

    Raises:
        ConfigError: If the run has no policy, or no best one.
        CheckpointError: If the checkpoint is missing or damaged.
    """
    folder = RunFolder.open(path)
    kind = kind_in(folder)
    if kind not in OF_AGENTS:
        raise ConfigError(f"{path} is a run of a classifier, which has no policy; its accuracies are in result.json")
    return OF_AGENTS[kind](folder, which)


def _by_group(agent: Any, chains: Mapping[str, SparseMLP]) -> dict[str, list[SparseMLP]]:
    check_reads_vectors(agent, "looked into")
    groups: dict[str, list[SparseMLP]] = {}
    for name, chain in chains.items():
        groups.setdefault(name.partition(".")[0], []).append(chain)
    return groups


OF_AGENTS: dict[Kind, type[TrainedAgent] | type[TrainedSequence]] = {
    "train": TrainedAgent,
    "continual_rl": TrainedSequence,
}
"""Kind of run -> what opens one, where an agent learns."""
