"""An off-policy agent that learns one task of a sequence after another, an env step at a time.

Decides what a step, a border and the end of a task are, and how the position is kept, so that a run can stop after any
step. Interaction is Stable-Baselines3's, updates are the agent's, and what fights forgetting is a `Strategy`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr

from sparserl.continual.learner import Group, Kind, Objective, Probe
from sparserl.continual.rl.borders import BorderConfig, check_critics, cross_border
from sparserl.continual.rl.exploration import BestReturn, Watch
from sparserl.continual.rl.memory import TransitionMemory
from sparserl.continual.rl.probe import FISHER_FLOOR, likelihood_cotangents, norm_cotangents
from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.strategy import Strategy
from sparserl.errors import ConfigError
from sparserl.layers import MultiHeadMLP, SparseMLP
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


class RLLearner:
    """Trains an agent on a sequence.

    Args:
        agent: An off-policy agent on sparse networks, on an environment that goes from task to task by itself.
        sequence: The tasks.
        strategy: The continual method.
        border: What happens between tasks.
        seed: Root seed.
        fresh_agent: Makes an agent that has learned nothing, given a seed: for what starts anew at a border.

    Attributes:
        groups: As the agent names them, e.g. `actor` and `critic`.
        task: Task that is being, or will next be, learned.
        emptied_at: Env step at which the replay buffer was last emptied.

    Raises:
        ConfigError: If the method cannot learn this sequence with this agent, a task ends before learning starts, or
            output layers would be rewired that are not being trained.
    """

    def __init__(
        self,
        agent: Any,
        sequence: Sequence[RLTask],
        strategy: Strategy,
        border: BorderConfig,
        *,
        seed: int,
        fresh_agent: Callable[[int], Any],
    ):
        for index, task in enumerate(sequence):
            waits = index == 0 or border.buffer == "emptied" or border.exploration != "policy"
            if waits and task.steps <= agent.learning_starts:
                raise ConfigError(
                    f"task {index} ({task.name}) ends after {task.steps} steps, before learning starts: "
                    f"agent.learning-starts is {agent.learning_starts}"
                )
        check_critics(agent, border, strategy.options)
        self.agent, self.sequence, self.strategy, self.border, self.seed = agent, sequence, strategy, border, seed
        self.fresh_agent = fresh_agent
        self.groups = groups_of(agent)
        self.task = self.emptied_at = 0
        self._begun = False
        self._consolidated: int | None = None
        self._explorer = BestReturn(self) if border.exploration == "best_return" else None
        self._watch: BaseCallback = Watch(self._explorer)
        agent.around_step = self
        strategy.attach(self)
        self._check_heads()

    @property
    def steps(self) -> int:
        """Env steps so far."""
        return int(self.agent.num_timesteps)

    @property
    def task_steps(self) -> int:
        """Env steps taken in the present task, which the environment leaves after as many as the task has."""
        return self.steps - sum(task.steps for task in self.sequence[: self.task])

    @property
    def total_steps(self) -> int:
        """Env steps of the whole sequence."""
        return sum(task.steps for task in self.sequence)

    def latest(self, ages: np.ndarray) -> np.ndarray:
        """Rows of the replay buffer where transitions of the present task lie.

        Args:
            ages: How many env steps before the newest one, in [0, task_steps); older ones than the buffer holds are
                taken from its end again.
        """
        buffer = self.agent.replay_buffer
        rows: np.ndarray = (buffer.pos - 1 - ages % min(self.task_steps, buffer.size())) % buffer.buffer_size
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
            if self.strategy.begins_anew:
                agent.begin_schedules(self.sequence[self.task].steps)
            self._begin_task()
        while self.task_steps < self.sequence[self.task].steps:
            self._interact()
            yield Progress(self.task, False)
        updates = self.strategy.consolidation(self.task, self.n_tasks)
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
        self.task, self._begun, self._consolidated = self.task + 1, False, None

    def _begin_task(self) -> None:
        if self.task > 0:
            with self.isolated_rng("border", self.task):
                cross_border(self.agent, self.border)
            if self.border.buffer == "emptied":
                self.emptied_at = self.steps
            if self._explorer is not None:
                self._explorer.begin(self.task)
        self.strategy.begin_task(self)
        self._begun = True

    def _interact(self) -> None:
        agent = self.agent
        began = self.steps - self.task_steps
        explores = self.task == 0 or self.border.exploration != "policy"
        agent.explorer = None if self.task == 0 else self._explorer
        rollout = agent.collect_rollouts(
            agent.env,
            train_freq=agent.train_freq,
            action_noise=agent.action_noise,
            callback=self._watch,
            learning_starts=began + agent.learning_starts if explores else 0,
            replay_buffer=agent.replay_buffer,
        )
        if self.steps > self.emptied_at + agent.learning_starts:
            updates = agent.gradient_steps if agent.gradient_steps >= 0 else rollout.episode_timesteps
            agent.train(gradient_steps=updates, batch_size=agent.batch_size)

    # Around an optimizer's step; the agent calls these.

    def before_step(self, group: str) -> None:
        """Lets the strategy change gradients, and remembers what must not move."""
        of_group = self.groups[group]
        self.strategy.before_step(self, of_group)
        of_group.frozen.before_step()

    def after_step(self, group: str) -> None:
        """Puts back what must not move."""
        of_group = self.groups[group]
        of_group.frozen.after_step(of_group.optimizer)
        self.strategy.after_step(self, of_group)

    # What a method asks for; see `sparserl.continual.learner.Learner`.

    kind: Kind = "agent"
    fisher_floor = FISHER_FLOOR

    @property
    def n_tasks(self) -> int:
        """Tasks of the sequence."""
        return len(self.sequence)

    @property
    def networks(self) -> list[TaskNetwork]:
        """The one that acts, then critics."""
        return [network for group in self.groups.values() for network in group.networks]

    @property
    def frozen(self) -> dict[str, FrozenEntries]:
        """Entries that no step moves, by group."""
        return {name: group.frozen for name, group in self.groups.items()}

    @property
    def updates(self) -> int:
        """Gradient updates so far."""
        return int(self.agent._n_updates)

    def is_within(self, share: float) -> bool:
        """Whether no more than this share of the env steps of the present task is over."""
        return self.task_steps <= share * self.sequence[self.task].steps

    def require_heads(self) -> None:
        """Raises ConfigError unless each task has output layers of its own."""
        if not self.networks[0].has_heads:
            raise ConfigError("this method answers for each task by itself: use --border.heads task")

    def begin_anew(self) -> None:
        """Takes networks, topologies, optimizers, temperature and clock of an agent that has learned nothing."""
        agent, seed = self.agent, int(stream(self.seed, "scratch", str(self.task)).integers(2**31))
        with self.isolated_rng("scratch", self.task):
            fresh = self.fresh_agent(seed)
        fresh.env.close()
        names, tensors = fresh._get_torch_save_params()
        for name in names:
            recursive_getattr(agent, name).load_state_dict(recursive_getattr(fresh, name).state_dict())
        for name in tensors:
            recursive_getattr(agent, name).data.copy_(recursive_getattr(fresh, name).data)
        agent._n_updates = 0
        agent.replay_buffer.reset()
        self.emptied_at = self.steps

    def probe(self, network: TaskNetwork, objective: Objective, count: int, labels: str | None) -> Iterator[Probe]:
        """Transitions of the present task, drawn with replacement; they have no labels."""
        del labels
        x = self.probed(network, count)
        with torch.no_grad():
            outputs = network.of_task(self.task)(x)
        gaussian = network.group == self.agent.trained[0] and self.is_gaussian
        if objective == "outputs":
            yield Probe(x, [norm_cotangents(outputs, gaussian)], 1.0)
        else:
            yield Probe(x, likelihood_cotangents(outputs, gaussian), 1.0)

    @property
    def is_gaussian(self) -> bool:
        """Whether what the network that acts gives are means and log standard deviations of actions."""
        return bool(self.agent.acting.outputs_per_action == 2)

    def outputs_on(self, observations: np.ndarray) -> torch.Tensor:
        """(B, n_out) what the network that acts says of observations, with the task id if the agent reads one."""
        outputs: torch.Tensor = self.agent.acting.outputs(torch.from_numpy(observations))
        return outputs

    def probed(self, network: TaskNetwork, count: int) -> torch.Tensor:
        """(count, n_in) what a network reads of transitions of the present task, drawn with replacement."""
        rng = stream(self.seed, "importance_samples", str(self.task))
        batch = self.agent.transitions(self.latest(rng.integers(self.task_steps, size=count)))
        heads = self.agent.acting.heads
        features = batch.observations if heads is None else heads.split_array(batch.observations)[0]
        return torch.from_numpy(np.ascontiguousarray(self.agent.read_by(features, batch.actions)[network.group]))

    def gradients(self, group: Group, batch: Any) -> list[torch.Tensor]:
        """Gradients of the agent's loss; those of the task become copies, since a pass uses their memory again."""
        parameters = list(group.module.parameters())
        kept = [None if parameter.grad is None else parameter.grad.clone() for parameter in parameters]
        with group.uncaptured():
            self.agent.form_gradients(group.name, batch)
        formed = [_gradient(parameter) for parameter in parameters]
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
        return formed

    def new_memory(self) -> TransitionMemory:
        """One of transitions."""
        return TransitionMemory(self)

    def remember(self, memory: TransitionMemory, count: int) -> Any:
        """Transitions, another draw at each call."""
        return memory.batch(count)

    def rehearse(self, options: Any) -> None:
        """Widens batches; the replay buffer keeps the transitions of all tasks.

        Raises:
            ConfigError: If the buffer is emptied between tasks, or too small for the transitions of all.
        """
        if self.border.buffer != "kept":
            raise ConfigError("replay trains on earlier tasks again: use --border.buffer kept")
        if self.agent.buffer_size < self.total_steps:
            raise ConfigError(
                f"replay keeps all {self.total_steps} transitions, and agent.buffer-size is {self.agent.buffer_size}"
            )
        self.agent.batch_size *= options.batch_scale

    def usage(self) -> list[ConnectionUsage]:
        """Which tasks use the connections of each layer now."""
        return [use for network in self.networks for use in self.strategy.usage(self, network)]

    # What answers.

    def policy(self, task: int) -> Policy:
        """What answers for a task, as it is now.

        Returns:
            (observations (B, width), with the task id if the agent reads one; deterministic) -> (B, width) actions in
            the environment's units, or (B,) discrete ones: the mode, or a draw from torch's global generator.
        """
        actor, network = self.agent.acting, self.strategy.network_for_task(self, task)

        def act(observations: np.ndarray, deterministic: bool) -> np.ndarray:
            features = np.asarray(observations, np.float32)
            if actor.heads is not None:
                features, _ = actor.heads.split_array(features)
            with torch.no_grad():
                outputs = network(torch.from_numpy(np.ascontiguousarray(features)))
            actions: np.ndarray = actor.actions_of(outputs.numpy(), deterministic)
            return self.agent.policy.unscale_action(actions) if actor.squashes else actions

        return act

    @contextmanager
    def isolated_rng(self, what: str, task: int) -> Iterator[None]:
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
        return {
            "position": [self.task, self.task_steps, self.emptied_at, self._begun, self._consolidated],
            "frozen": {name: group.frozen.state_dict(group.module) for name, group in self.groups.items()},
            "strategy": self.strategy.state_dict(),
            **({} if self._explorer is None else {"exploration": self._explorer.state_dict()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken, once the agent has been restored."""
        self.task, _, self.emptied_at, self._begun, self._consolidated = state["position"]
        for name, group in self.groups.items():
            group.frozen.load_state_dict(group.module, state["frozen"][name])
        self.strategy.load_state_dict(state["strategy"])
        if self._explorer is not None:
            self._explorer.load_state_dict(state["exploration"])


def groups_of(agent: Any) -> dict[str, Group]:
    """The trained networks of an agent, by group; the one that acts comes first."""
    groups = {}
    for group, module in agent.networks.items():
        children = {name: mlp for name, mlp in module.named_children() if isinstance(mlp, SparseMLP | MultiHeadMLP)}
        networks = [TaskNetwork(f"{group}.{name}", mlp) for name, mlp in children.items()]
        groups[group] = Group(group, networks, module, partial(agent.optimizer_of, group), agent.evolver)
    return groups


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A copy; zeros where a pass does not reach."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
