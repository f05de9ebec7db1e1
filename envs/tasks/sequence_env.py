"""A sequence of tasks as one environment: each task for its number of steps, then the next one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.simulation_state import EnvState, NotCapturable, capture_state, restore_state
from sparserl.envs.tasks.sequences import RLSequence, TaskSpec
from sparserl.errors import CheckpointError, ConfigError
from sparserl.seeding import stream

BORDER = "border"
"""Key of the info of a step that is its task's last one."""


class SequenceEnv(gym.Env[Any, Any]):
    """Goes through the tasks of a sequence, one environment at a time.

    A task ends because its steps are over: that step is truncated, and terminated only if the environment said so
    itself. Its observation is the task's own; the first one of the next task comes with the reset that must follow.
    After the last task the environment can be reset, as vectorised environments do at once, and not be stepped.

    Args:
        sequence: The tasks.
        make_task: Makes the environment of a task; all of them have the same spaces.
        seed: Root seed; the first reset of each task but the first is seeded by it.

    Attributes:
        task: Index of the task that the environment is in.
        task_steps: Steps taken in it.

    Raises:
        ConfigError: At a reset, if the next task has other spaces than the first.

    Example:
        >>> from sparserl.envs import SequenceEnv, WrapperConfig, build_rl_sequence, make_task_env
        >>> sequence = build_rl_sequence("hopper_gravity", seed=0, steps=1000)
        >>> env = SequenceEnv(sequence, lambda task: make_task_env(task, WrapperConfig(), 0), seed=0)
        >>> _ = env.reset(seed=0)
    """

    def __init__(self, sequence: RLSequence, make_task: Callable[[TaskSpec], gym.Env[Any, Any]], *, seed: int):
        self.sequence, self._make_task, self._seed = sequence, make_task, seed
        self.task = self.task_steps = 0
        self.current = make_task(sequence.tasks[0])
        # Copies, whose generators are not those of the first task.
        self.action_space = copy.deepcopy(self.current.action_space)
        self.observation_space = copy.deepcopy(self.current.observation_space)
        self.metadata, self.render_mode = self.current.metadata, self.current.render_mode

    @property
    def steps_left(self) -> int:
        """Steps that the present task still has."""
        return self.sequence.tasks[self.task].steps - self.task_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode: of the next task, if the steps of the present one are over."""
        if self.steps_left == 0 and self.task + 1 < len(self.sequence):
            self.enter(self.task + 1)
            if seed is None:
                seed = int(stream(self._seed, "envs", "task", str(self.task)).integers(2**31))
        return self.current.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step of the present task.

        Raises:
            RuntimeError: If its steps are over.
        """
        if self.steps_left == 0:
            raise RuntimeError(
                f"the {self.task_steps} steps of task {self.task} are over: call reset, or stop after the last"
            )
        observation, reward, terminated, truncated, info = self.current.step(action)
        self.task_steps += 1
        if self.steps_left == 0:
            truncated, info = truncated or not terminated, {**info, BORDER: True}
        return observation, float(reward), terminated, truncated, info

    def render(self) -> Any:
        """A picture of the present task."""
        return self.current.render()

    def close(self) -> None:
        """Closes the present task."""
        self.current.close()

    def enter(self, task: int, task_steps: int = 0) -> None:
        """Puts the environment before an episode of a task.

        Args:
            task: Index.
            task_steps: Steps that count as taken in it.
        """
        self.current.close()
        self.current, self.task, self.task_steps = self._make_task(self.sequence.tasks[task]), task, task_steps
        for what in ("action_space", "observation_space"):
            if getattr(self.current, what) != getattr(self, what):
                raise ConfigError(f"task {task} has another {what.replace('_', ' ')} than task 0")

    # Its exact state; see `sparserl.envs.simulation_state`.

    def state_dict(self) -> dict[str, Any]:
        """Task, steps, and the state of the task's environment.

        Raises:
            NotCapturable: If that cannot be had.
        """
        state = capture_state(self.current)
        if state is None:
            raise NotCapturable(f"the state of task {self.task} cannot be captured")
        return {"task": self.task, "taken": self.task_steps, "scalars": state.scalars, **state.tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken.

        Raises:
            CheckpointError: If it belongs to another sequence.
        """
        if state["task"] >= len(self.sequence):
            raise CheckpointError(f"the stored state is of task {state['task']}, of {len(self.sequence)} here")
        self.enter(state["task"], state["taken"])
        tensors = {name: array for name, array in state.items() if isinstance(array, np.ndarray)}
        restore_state(self.current, EnvState(tensors, state["scalars"]))
