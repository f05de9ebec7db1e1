"""Sequences of tasks for continual reinforcement learning: which environment, modified how, for how many steps.

Independent of what learns them and what happens at a border, which is always a truncation: a task ends because its
steps are over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from sparserl import config
from sparserl.envs.make import make_env
from sparserl.envs.tasks.modified_dynamics import Modification, modify
from sparserl.envs.wrappers.task_id import AppendTaskId
from sparserl.envs.wrapping import WrapperConfig, wrap
from sparserl.errors import ConfigError, shown
from sparserl.ranges import Count, CountOrZero, check_ranges


@dataclass(frozen=True)
class TaskSpec:
    """One task, as plain data.

    Raises:
        ConfigError: If a number is out of range.
    """

    name: str
    """What it is, e.g. `"moon"` or `"gravity 0.5617"`. Two tasks of a sequence may be the same and share a name."""
    env: str
    """Id of its environment."""
    modification: Modification
    """How that differs from what Gymnasium makes."""
    steps: Count
    """Environment steps of training, >= 1."""
    index: CountOrZero
    """Place in the sequence, from 0."""
    episode_steps: Count | None = None
    """Steps after which an episode is truncated, >= 1; None for the environment's own limit."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """What the environment is made with, as `gymnasium.make(env, **kwargs)`."""

    def __post_init__(self) -> None:
        check_ranges(self, "", hyphens=False)


@dataclass(frozen=True)
class RLSequence:
    """Tasks in the order in which they are learned, as plain data.

    Raises:
        ConfigError: If there is no task, or an index is not that of the task.
    """

    name: str
    """Name in `RL_SEQUENCES`, or that of the file."""
    tasks: tuple[TaskSpec, ...]
    """At least one."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError(f"sequence {self.name!r} has no tasks")
        for index, task in enumerate(self.tasks):
            if task.index != index:
                raise ConfigError(f"task {index} of sequence {self.name!r} has index {task.index}")

    def __len__(self) -> int:
        return len(self.tasks)


def load_rl_sequence(path: Path) -> RLSequence:
    """A sequence from a YAML file: a list `tasks` with `env`, `steps` and, if wanted, other keys of `TaskSpec`.

    The keys of a modification are those of `Modification`. What `sparserl.config.dump` writes of a sequence is read as
    well. A sequence without a `name` is called as its file, a task without one as its environment.

    Raises:
        ConfigError: If the file cannot be read, or holds an unknown key or a bad value.
    """
    data = config.load_yaml(path)
    try:
        config.check_keys(RLSequence, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    items = data.get("tasks")
    if not isinstance(items, list):
        raise ConfigError(f"{path}: tasks must be a list, got {shown(items)}")
    tasks = tuple(_task(path, index, item) for index, item in enumerate(items))
    name = data.get("name", path.stem)
    if not isinstance(name, str | int | float) or not str(name).strip():
        raise ConfigError(f"{path}: name must be text, got {name!r}")
    try:
        return RLSequence(str(name), tasks)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _task(path: Path, index: int, item: Any) -> TaskSpec:
    try:
        if not isinstance(item, dict):
            raise ConfigError(f"must hold keys and values, got {shown(item)}")
        config.check_keys(TaskSpec, item)
        usual: dict[str, Any] = {
            "env": None,
            "steps": None,
            "name": item.get("env"),
            "modification": {},
            "index": index,
            "episode_steps": None,
            "kwargs": {},
        }
        missing = {key: value for key, value in usual.items() if key not in item}
        if "name" in item and (isinstance(item["name"], bool) or not str(item["name"]).strip()):
            raise ConfigError(f"name must be text, got {shown(item['name'])}")
        return config.build(TaskSpec, item | missing)
    except ConfigError as error:
        raise ConfigError(f"{path}, task {index}: {error}") from None


def make_task_env(
    task: TaskSpec,
    wrappers: WrapperConfig,
    seed: int,
    *,
    append_id_of: int | None = None,
    follow: gym.Env[Any, Any] | None = None,
    render_mode: str | None = None,
    **accepted: Any,
) -> gym.Env[Any, Any]:
    """Makes the environment of a task: the modified one, in the wrappers of the run.

    Args:
        task: From a sequence.
        wrappers: What the run puts around every task.
        seed: Root seed of the run, as in `wrap`: permutations are the same in all tasks.
        append_id_of: Number of tasks; appends a one-hot id of that length to observations. None appends nothing.
        follow: As in `wrap`, the environment that is trained on; of this task or another.
        render_mode: As in `make_env`.
        accepted: Likewise, `actions` and `advice`.

    Raises:
        ConfigError: If the environment cannot be made, modified or wrapped like that.
    """
    try:
        limits: dict[str, Any] = {"render_mode": render_mode, "episode_steps": task.episode_steps}
        made = make_env(task.env, kwargs=task.kwargs, **limits, **accepted)
        env = modify(made, task.modification)
    except ConfigError as error:
        raise ConfigError(f"task {task.index}: {error}") from None
    env = wrap(env, wrappers, seed, follow=follow)
    return env if append_id_of is None else AppendTaskId(env, task.index, append_id_of)


def check_spaces(sequence: RLSequence, wrappers: WrapperConfig, seed: int, **accepted: Any) -> None:
    """Makes every different task once, since one network shall learn them all.

    Args:
        sequence: The tasks.
        wrappers: As in `make_task_env`.
        seed: As in `make_task_env`.
        accepted: Likewise.

    Raises:
        ConfigError: If a task cannot be made, or its spaces are not those of the first.
    """
    different: list[TaskSpec] = []
    for task in sequence.tasks:
        if not any(_is_same_env(task, one) for one in different):
            different.append(task)
    first, *others = different
    expected = _spaces(first, wrappers, seed, **accepted)
    for task in others:
        for what, space in _spaces(task, wrappers, seed, **accepted).items():
            if space != expected[what]:
                sizes = [one.shape[0] if one.shape else int(one.n) for one in (expected[what], space)]
                ours, theirs = sizes if sizes[0] != sizes[1] else (expected[what], space)
                raise ConfigError(
                    f"tasks {first.index} and {task.index} differ in {what}: "
                    f"{ours} ({first.env}) and {theirs} ({task.env}); one network needs the same in all tasks"
                )


def _is_same_env(task: TaskSpec, other: TaskSpec) -> bool:
    return all(getattr(task, what) == getattr(other, what) for what in ("env", "modification", "kwargs"))


def _spaces(task: TaskSpec, wrappers: WrapperConfig, seed: int, **accepted: Any) -> dict[str, Any]:
    env = make_task_env(task, wrappers, seed, **accepted)
    env.close()
    return {"actions": env.action_space, "observations": env.observation_space}
