"""Sequences of tasks for continual reinforcement learning: which environment, modified how, for how many steps.

Decides the tasks and their order. Independent of what learns them and what happens at a border, which is always a
truncation: a task ends because its steps are over.

Source:
    LPG-FTW (Mendez et al. 2020): gravity and body parts. CSP (Gaya et al. 2023): forgetting, transfer, distraction,
    composability, on Brax there. Dohare et al. 2024: Slippery Ant. Continual World (Wolczyk et al. 2021): cw10, cw20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl import config
from sparserl.envs.make import make_env
from sparserl.envs.tasks.modified_dynamics import Modification, PartFactors, modify
from sparserl.envs.wrappers.task_id import AppendTaskId
from sparserl.envs.wrapping import WrapperConfig, wrap
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.ranges import Count, CountOrZero, check_ranges
from sparserl.seeding import stream


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


@dataclass(frozen=True)
class EnvTaskPlan:
    """A task before its steps and index are known; the attributes are those of `TaskSpec`."""

    name: str
    env: str
    modification: Modification
    episode_steps: int | None = None


@dataclass(frozen=True)
class RLSequenceSpec:
    """A way to make tasks.

    Attributes:
        plan: (seed of the run, number of tasks) -> the tasks.
        n_tasks: Unless another number is asked for.
        most_tasks: As many as the source has.
        summary: One line.
    """

    plan: Callable[[int, int], list[EnvTaskPlan]]
    n_tasks: int
    most_tasks: int
    summary: str


def build_rl_sequence(name: str, *, seed: int, steps: int, n_tasks: int | None = None) -> RLSequence:
    """The tasks of a sequence.

    Args:
        name: Name in `RL_SEQUENCES`.
        seed: Seed of the run, >= 0. It orders the tasks of the gravity and body-part families, whose factors are always
            the same, and draws the frictions of `slippery_ant`; the others are fixed.
        steps: Environment steps per task, >= 1.
        n_tasks: None for the usual number.

    Raises:
        ConfigError: If the name is unknown or a number out of range.

    Example:
        >>> [task.name for task in build_rl_sequence("halfcheetah_forgetting", seed=0, steps=50_000).tasks]
        ['hugefoot', 'moon', 'carry_stuff', 'rainfall']
    """
    if name not in RL_SEQUENCES:
        raise ConfigError(unknown_name("sequence", name, RL_SEQUENCES))
    spec = RL_SEQUENCES[name]
    n_tasks = spec.n_tasks if n_tasks is None else n_tasks
    if n_tasks not in range(1, spec.most_tasks + 1):
        raise ConfigError(f"sequence {name!r} has 1 to {spec.most_tasks} tasks, got {n_tasks}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    plans = spec.plan(seed, n_tasks)
    return RLSequence(
        name,
        tuple(
            TaskSpec(plan.name, plan.env, plan.modification, steps, index, plan.episode_steps)
            for index, plan in enumerate(plans)
        ),
    )


def load_rl_sequence(path: Path) -> RLSequence:
    """A sequence from a YAML file: a list `tasks` with `env`, `steps` and, if wanted, other keys of `TaskSpec`.

    The keys of a modification are those of `Modification`. What `sparserl.config.dump` writes of a sequence is read as
    well. A sequence without a `name` is called as its file, a task without one as its environment.

    Raises:
        ConfigError: If the file cannot be read, or holds an unknown key or a bad value.
    """
    data = config.load_yaml(path)
    for key in data:
        if key not in ("name", "tasks"):
            raise ConfigError(f"{path}: {unknown_name('config key', str(key), ('name', 'tasks'))}")
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
        usual: dict[str, Any] = {
            "env": None,
            "steps": None,
            "name": item.get("env"),
            "modification": {},
            "index": index,
            "episode_steps": None,
        }
        missing = {key: value for key, value in usual.items() if key not in item}
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
) -> gym.Env[Any, Any]:
    """Makes the environment of a task: the modified one, in the wrappers of the run.

    Args:
        task: From a sequence.
        wrappers: What the run puts around every task.
        seed: Root seed of the run, as in `wrap`: permutations are the same in all tasks.
        append_id_of: Number of tasks; appends a one-hot id of that length to observations. None appends nothing.
        follow: As in `wrap`, the environment that is trained on; of this task or another.
        render_mode: As in `make_env`.

    Raises:
        ConfigError: If the environment cannot be made, modified or wrapped like that.
    """
    try:
        env = modify(make_env(task.env, render_mode=render_mode, episode_steps=task.episode_steps), task.modification)
    except ConfigError as error:
        raise ConfigError(f"task {task.index}: {error}") from None
    env = wrap(env, wrappers, seed, follow=follow)
    return env if append_id_of is None else AppendTaskId(env, task.index, append_id_of)


def check_spaces(sequence: RLSequence, wrappers: WrapperConfig, seed: int) -> None:
    """Makes every different task once, since one network shall learn them all.

    Args:
        sequence: The tasks.
        wrappers: As in `make_task_env`.
        seed: As in `make_task_env`.

    Raises:
        ConfigError: If a task cannot be made, or its spaces are not those of the first.
    """
    different: dict[tuple[str, Modification], TaskSpec] = {}
    for task in sequence.tasks:
        different.setdefault((task.env, task.modification), task)
    first, *others = different.values()
    expected = _spaces(first, wrappers, seed)
    for task in others:
        for what, space in _spaces(task, wrappers, seed).items():
            if space != expected[what]:
                sizes = expected[what].shape[0], space.shape[0]
                ours, theirs = sizes if sizes[0] != sizes[1] else (expected[what], space)
                raise ConfigError(
                    f"tasks {first.index} and {task.index} differ in {what}: "
                    f"{ours} ({first.env}) and {theirs} ({task.env}); one network needs the same in all tasks"
                )


def _spaces(task: TaskSpec, wrappers: WrapperConfig, seed: int) -> dict[str, Any]:
    env = make_task_env(task, wrappers, seed)
    env.close()
    return {"actions": env.action_space, "observations": env.observation_space}


# -- LPG-FTW ---------------------------------------------------------------------------------------

# name in the table -> id, NumPy seed of its factors, number of tasks
_LPG_FTW = {
    "halfcheetah": ("HalfCheetah-v5", 500, 20),
    "hopper": ("Hopper-v5", 600, 20),
    "walker2d": ("Walker2d-v5", 700, 50),
}
# Geoms whose radius is scaled -> whether their length is, too. There a factor is on `size` in the model's file, where a
# geom that is given by its two ends has no length of its own.
_LPG_FTW_PARTS = {
    "halfcheetah": {"torso": False, "fthigh": True, "fshin": True, "ffoot": True},
    "hopper": {"torso_geom": False, "thigh_geom": False, "leg_geom": False, "foot_geom": False},
    "walker2d": {"torso_geom": False, "thigh_geom": False, "leg_geom": False, "foot_geom": False},
}


def _gravity(robot: str) -> RLSequenceSpec:
    env, literature_seed, most = _LPG_FTW[robot]

    def plan(seed: int, n_tasks: int) -> list[EnvTaskPlan]:
        factors = np.random.RandomState(literature_seed).uniform(0.5, 1.5, n_tasks).tolist()
        tasks = [EnvTaskPlan(f"gravity {factor:.4f}", env, Modification(gravity=factor)) for factor in factors]
        return _in_order_of_lpg_ftw(tasks, seed)

    return RLSequenceSpec(plan, 4, most, f"{env}, gravity times 0.5 to 1.5")


def _body_parts(robot: str) -> RLSequenceSpec:
    env, literature_seed, most = _LPG_FTW[robot]
    parts = _LPG_FTW_PARTS[robot]

    def plan(seed: int, n_tasks: int) -> list[EnvTaskPlan]:
        drawn = np.random.RandomState(literature_seed).uniform(0.5, 1.5, (n_tasks, len(parts)))
        tasks = []
        for factors in (np.floor(drawn * 10_000) / 10_000).tolist():
            scaled = [
                PartFactors(part, radius=factor, length=factor if longer else 1.0)
                for (part, longer), factor in zip(parts.items(), factors, strict=True)
            ]
            tasks.append(EnvTaskPlan(f"sizes {' '.join(map(str, factors))}", env, Modification(parts=tuple(scaled))))
        return _in_order_of_lpg_ftw(tasks, seed)

    return RLSequenceSpec(plan, 4, most, f"{env}, sizes of {', '.join(parts)} times 0.5 to 1.5")


def _in_order_of_lpg_ftw(tasks: list[EnvTaskPlan], seed: int) -> list[EnvTaskPlan]:
    """All tasks of a family in the order of that run there: runs 0 to 4 have the seeds 50, 60, ..., 90."""
    return [tasks[index] for index in np.random.RandomState((50 + 10 * seed) % 2**32).permutation(len(tasks))]


# -- CSP -------------------------------------------------------------------------------------------


def _scaled(parts: tuple[str, ...], factor: float) -> tuple[PartFactors, ...]:
    """Mass and radius by the same factor."""
    return tuple(PartFactors(part, mass=factor, radius=factor) for part in parts)


_CHEETAH_FEET = ("bfoot", "ffoot")
_HUGE_FOOT = Modification(parts=_scaled(_CHEETAH_FEET, 1.5))
_TINY_FOOT = Modification(parts=_scaled(_CHEETAH_FEET, 0.5))
_CARRY_STUFF = Modification(parts=_scaled(("torso",), 4.0))
_HALFCHEETAH = {
    "normal": Modification(),
    "hugefoot": _HUGE_FOOT,
    "tinyfoot": _TINY_FOOT,
    "moon": Modification(gravity=0.15),
    "rainfall": Modification(friction=0.4),
    "carry_stuff": _CARRY_STUFF,
    "carry_stuff_hugegravity": replace(_CARRY_STUFF, gravity=1.5),
    "hugefoot_rainfall": replace(_HUGE_FOOT, friction=0.4),
    "tinyfoot_moon": replace(_TINY_FOOT, gravity=0.15),
    "defective_module": Modification(broken_sensors=0.5),
    "inverted_actions": Modification(invert_actions=True),
}

# Hip and ankle of the legs 1 to 4 are the actuators 0 to 7 in Brax, in this order. In MuJoCo's model leg 4 comes first.
_ANT_LEGS = {1: (2, 3), 2: (4, 5), 3: (6, 7), 4: (0, 1)}
_ANT_FEET = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")  # their bodies: no names


def _disabled(*legs: int) -> Modification:
    return Modification(disabled_actuators=tuple(sorted(actuator for leg in legs for actuator in _ANT_LEGS[leg])))


_ANT = {
    "normal": Modification(),
    "hugefoot": Modification(parts=_scaled(_ANT_FEET, 3.0)),
    "moon": Modification(gravity=0.7),
    "rainfall": Modification(friction=0.375),
    "disabled_hard1": _disabled(2, 3, 4),
    "disabled_hard2": _disabled(1, 3, 4),
    "disabled_forefeet": _disabled(1, 2),
    "disabled_backfeet": _disabled(3, 4),
    "disabled_first_diagonal": _disabled(1, 3),
    "disabled_second_diagonal": _disabled(2, 4),
    "inverted_actions": Modification(invert_actions=True),
}


def _scenario(env: str, modifications: dict[str, Modification], *names: str) -> RLSequenceSpec:
    """Always the same tasks; more of them than there are names go round again, as in the "long" scenarios."""

    def plan(seed: int, n_tasks: int) -> list[EnvTaskPlan]:
        around = [names[index % len(names)] for index in range(n_tasks)]
        return [EnvTaskPlan(name, env, modifications[name]) for name in around]

    return RLSequenceSpec(plan, len(names), 2 * len(names), f"{env}: {', '.join(names)}")


# -- Slippery Ant ----------------------------------------------------------------------------------


def _slippery_ant(seed: int, n_tasks: int) -> list[EnvTaskPlan]:
    """Frictions are log-uniform in [0.02, 2]; the first n are the same for every number of tasks.

    The source has a table of 50 per seed, drawn from an unknown generator, and changes at the first end of an episode
    after 2,000,000 steps. The friction of the usual model is 1, so a factor is a friction.
    """
    draws = stream(seed, "envs", "slippery_ant").uniform(np.log(0.02), np.log(2.0), n_tasks)
    return [
        EnvTaskPlan(f"friction {friction:.4f}", "Ant-v5", Modification(friction=friction))
        for friction in np.exp(draws).tolist()
    ]


# -- Continual World -------------------------------------------------------------------------------

_CONTINUAL_WORLD = (
    "hammer",
    "push-wall",
    "faucet-close",
    "push-back",
    "stick-pull",
    "handle-press-side",
    "push",
    "shelf-place",
    "window-close",
    "peg-unplug-side",
)


def _continual_world(n_tasks: int, summary: str) -> RLSequenceSpec:
    """Always the same tasks, which may go round again."""

    def plan(seed: int, n_tasks: int) -> list[EnvTaskPlan]:
        around = [_CONTINUAL_WORLD[index % len(_CONTINUAL_WORLD)] for index in range(n_tasks)]
        return [EnvTaskPlan(name, f"Meta-World/{name}-v3", Modification(), episode_steps=200) for name in around]

    return RLSequenceSpec(plan, n_tasks, n_tasks, summary)


RL_SEQUENCES: dict[str, RLSequenceSpec] = {
    **{f"{robot}_gravity": _gravity(robot) for robot in _LPG_FTW},
    **{f"{robot}_bodyparts": _body_parts(robot) for robot in _LPG_FTW},
    "halfcheetah_forgetting": _scenario("HalfCheetah-v5", _HALFCHEETAH, "hugefoot", "moon", "carry_stuff", "rainfall"),
    "halfcheetah_transfer": _scenario(
        "HalfCheetah-v5",
        _HALFCHEETAH,
        "carry_stuff_hugegravity",
        "moon",
        "defective_module",
        "hugefoot_rainfall",
    ),
    "halfcheetah_distraction": _scenario(
        "HalfCheetah-v5", _HALFCHEETAH, "normal", "inverted_actions", "normal", "inverted_actions"
    ),
    "halfcheetah_composability": _scenario(
        "HalfCheetah-v5", _HALFCHEETAH, "tinyfoot", "moon", "carry_stuff_hugegravity", "tinyfoot_moon"
    ),
    "ant_forgetting": _scenario("Ant-v5", _ANT, "normal", "hugefoot", "rainfall", "moon"),
    "ant_transfer": _scenario(
        "Ant-v5",
        _ANT,
        "disabled_first_diagonal",
        "disabled_second_diagonal",
        "disabled_forefeet",
        "disabled_backfeet",
    ),
    "ant_distraction": _scenario("Ant-v5", _ANT, "normal", "inverted_actions", "normal", "inverted_actions"),
    "ant_composability": _scenario(
        "Ant-v5", _ANT, "disabled_hard1", "disabled_hard2", "disabled_forefeet", "disabled_backfeet"
    ),
    "slippery_ant": RLSequenceSpec(_slippery_ant, 10, 50, "Ant-v5, friction between 0.02 and 2"),
    "cw10": _continual_world(10, f"Meta-World v3: {', '.join(_CONTINUAL_WORLD)}"),
    "cw20": _continual_world(20, "Meta-World v3: cw10 twice"),
}
"""Sequences by name. Where MuJoCo differs from the source:

The LPG-FTW families compile the edited file of a model, which for the cheetah keeps the total mass at 14 kg; here the
mass of a part follows its volume and other parts keep theirs. CSP's factors are those of its code, where inertia stays
as it is, and Brax has 23 features of which `defective_module` breaks 11 (here 17 and 8). `slippery_ant`: see its plan.

Where Meta-World differs: `cw10` and `cw20` are on its version 3, the source on 1. Rewards are others, and observations
have 39 features, not 12, so published numbers do not compare. Episodes have the 200 steps of the source, not the 500 of
version 3: over 20 episodes of each task, Meta-World's scripted policies solve 196 of 200 within 500 steps and 190
within 200 (all but 3 of `stick-pull` and 7 of `push-back`).
"""
