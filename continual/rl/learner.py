"""An off-policy agent that learns one task of a sequence after another, an env step at a time.

Decides what a step, a border and the end of a task are, and how the position is kept, so that a run can stop after any
step. Interaction is Stable-Baselines3's, updates are the agent's, and what fights forgetting is an `RLStrategy`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from sparserl.continual.rl.borders import BorderConfig, cross_border
from sparserl.continual.rl.networks import task_networks
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.errors import ConfigError
from sparserl.recording.finite import check_transition
from sparserl.seeding import stream

Policy = Callable[[np.ndarray, bool], np.ndarray]


class RLTask(Protocol):
    """A task, as far as a learner needs to know it."""

    @property
    def name(self) -> str:
        """What it is."""

    @property
    def steps(self) -> int:
        """Env steps of training."""


@dataclass(frozen=True)
class Progress:
    """An env step with its gradient updates, or a gradient update after the last step of a task.

    Attributes:
        task: Task that was trained.
        consolidating: Whether it was an update after the task's last step.
    """

    task: int
    consolidating: bool


class _Watch(BaseCallback):
    """Stops a run at an env step that took or gave something that is not finite."""

    def _on_step(self) -> bool:
        check_transition(self.num_timesteps, self.locals)
        return True


class RLLearner:
    """Trains an agent on a sequence.

    Args:
        agent: `DSTD3` or `DSSAC` on an environment that goes from task to task by itself.
        sequence: The tasks.
        strategy: The continual method.
        border: What happens between tasks.
        seed: Root seed.
        fresh_agent: Makes an agent that has learned nothing, given a seed: for what starts anew at a border.

    Attributes:
        networks: The actor, then the critics.
        frozen: Entries that no step moves, by group (`actor`, `critic`).
        task: Task that is being, or will next be, learned.
        task_steps: Env steps taken in it.
        emptied_at: Env step at which the replay buffer was last emptied.

    Raises:
        ConfigError: If the method cannot learn this sequence with this agent, a task ends before learning starts, or
            output layers would be rewired that are not being trained.
    """

    def __init__(
        self,
        agent: Any,
        sequence: Sequence[RLTask],
        strategy: RLStrategy,
        border: BorderConfig,
        *,
        seed: int,
        fresh_agent: Callable[[int], Any],
    ):
        for index, task in enumerate(sequence):
            waits = index == 0 or border.buffer == "emptied" or border.exploration == "random"
            if waits and task.steps <= agent.learning_starts:
                raise ConfigError(
                    f"task {index} ({task.name}) ends after {task.steps} steps, before learning starts: "
                    f"agent.learning-starts is {agent.learning_starts}"
                )
        self.agent, self.sequence, self.strategy, self.border, self.seed = agent, sequence, strategy, border, seed
        self.fresh_agent = fresh_agent
        self.networks = task_networks(agent)
        self.frozen = {group: FrozenEntries() for group in agent.trained}
        self.task = self.task_steps = self.emptied_at = 0
        self._begun = False
        self._consolidated: int | None = None
        self._watch: BaseCallback = _Watch()
        agent.around_step = self
        strategy.attach(self)
        self._check_heads()

    @property
    def steps(self) -> int:
        """Env steps so far."""
        return int(self.agent.num_timesteps)

    @property
    def total_steps(self) -> int:
        """Env steps of the whole sequence."""
        return sum(task.steps for task in self.sequence)

    def latest(self, places: np.ndarray) -> np.ndarray:
        """Rows of the replay buffer where transitions of the present task lie.

        Args:
            places: How many env steps before the newest one, in [0, task_steps); older ones than the buffer holds are
                taken from its end again.
        """
        buffer = self.agent.replay_buffer
        rows: np.ndarray = (buffer.pos - 1 - places % min(self.task_steps, buffer.size())) % buffer.buffer_size
        return rows

    def _check_heads(self) -> None:
        """Raises ConfigError if the agent's topology clock would move connections of other tasks' output layers."""
        evolver = self.agent.evolver
        outputs = {name for layers in evolver.groups.values() for name in layers if ".heads." in name}
        if evolver.rule is not None and outputs:
            raise ConfigError(
                f"topology method {self.agent.topology.method!r} would rewire output layers of tasks that are not "
                "being learned: use --topology.output-layer dense, or --border.heads shared"
            )

    # Training.

    def train(self) -> Iterator[Progress]:
        """Trains the present task from where it stands to its end.

        The learner is whole whenever this yields: its state, with the agent's, continues exactly there.
        """
        agent = self.agent
        _, self._watch = agent._setup_learn(
            self.total_steps - self.steps, self._watch, reset_num_timesteps=self.steps == 0
        )
        if not self._begun:
            self._begin_task()
        while self.task_steps < self.sequence[self.task].steps:
            self._interact()
            yield Progress(self.task, False)
        updates = self.strategy.consolidation_updates(self.task)
        if self._consolidated is None:
            self.strategy.begin_consolidation(self)
            self._consolidated = 0
        while self._consolidated < updates:
            agent.train(gradient_steps=1, batch_size=agent.batch_size)
            self._consolidated += 1
            yield Progress(self.task, True)

    def finish_task(self) -> None:
        """Ends the present task, after `train`; the next one becomes present."""
        self.strategy.end_task(self)
        self.task, self.task_steps, self._begun, self._consolidated = self.task + 1, 0, False, None

    def _begin_task(self) -> None:
        if self.task > 0:
            with self.drawing("border", self.task):
                cross_border(self.agent, self.border)
            if self.border.buffer == "emptied":
                self.emptied_at = self.steps
        self.strategy.begin_task(self)
        self._begun = True

    def _interact(self) -> None:
        agent = self.agent
        began = self.steps - self.task_steps
        random_until = began + agent.learning_starts if self.task == 0 or self.border.exploration == "random" else 0
        rollout = agent.collect_rollouts(
            agent.env,
            train_freq=agent.train_freq,
            action_noise=agent.action_noise,
            callback=self._watch,
            learning_starts=random_until,
            replay_buffer=agent.replay_buffer,
        )
        self.task_steps += rollout.episode_timesteps
        if self.steps > self.emptied_at + agent.learning_starts:
            updates = agent.gradient_steps if agent.gradient_steps >= 0 else rollout.episode_timesteps
            agent.train(gradient_steps=updates, batch_size=agent.batch_size)

    # Around an optimizer's step; the agent calls these.

    def before_step(self, group: str) -> None:
        """Lets the strategy change gradients, and remembers what must not move."""
        self.strategy.before_step(self, group)
        self.frozen[group].before_step()

    def after_step(self, group: str) -> None:
        """Puts back what must not move."""
        self.frozen[group].after_step(getattr(self.agent, group).optimizer)
        self.strategy.after_step(self, group)

    # What answers.

    def policy(self, task: int) -> Policy:
        """What answers for a task, as it is now.

        Returns:
            (observations (B, width), with the task id if the agent reads one; deterministic) -> (B, width) actions in
            the environment's units: the mode, or a draw from torch's global generator.
        """
        actor, network = self.agent.actor, self.strategy.answering(self, task)

        def act(observations: np.ndarray, deterministic: bool) -> np.ndarray:
            features = np.asarray(observations, np.float32)
            if actor.heads is not None:
                features, _ = actor.heads.split_array(features)
            with torch.no_grad():
                outputs = network(torch.from_numpy(np.ascontiguousarray(features)))
            actions: np.ndarray = self.agent.policy.unscale_action(actor.actions_of(outputs.numpy(), deterministic))
            return actions

        return act

    @contextmanager
    def drawing(self, what: str, task: int) -> Iterator[None]:
        """A context in which torch's global generator draws for something of a task beside training, always the same.

        Afterwards all global generators go on as if nothing had been drawn.
        """
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.manual_seed(int(stream(self.seed, "continual", what, str(task)).integers(2**63)))
        try:
            yield
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])

    # State; the agent's own is saved beside it.

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on beside the agent and the environment."""
        groups = self.agent.networks
        return {
            "position": [self.task, self.task_steps, self.emptied_at, self._begun, self._consolidated],
            "frozen": {name: self.frozen[name].state_dict(network) for name, network in groups.items()},
            "strategy": self.strategy.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken, once the agent has been restored."""
        groups = self.agent.networks
        self.task, self.task_steps, self.emptied_at, self._begun, self._consolidated = state["position"]
        for name, network in groups.items():
            self.frozen[name].load_state_dict(network, state["frozen"][name])
        self.strategy.load_state_dict(state["strategy"])
