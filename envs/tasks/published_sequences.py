"""The table of task sequences, from the papers that made them: their tasks and order.

Source:
    LPG-FTW (Mendez et al. 2020): gravity and body parts. CSP (Gaya et al. 2023): forgetting, transfer, distraction,
    composability, on Brax there. Dohare et al. 2024: Slippery Ant. Continual World (Wolczyk et al. 2021): cw10, cw20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sparserl.envs.tasks.modified_dynamics import Modification, PartFactors
from sparserl.envs.tasks.sequences import RLSequence, TaskSpec
from sparserl.errors import ConfigError, unknown_name
from sparserl.seeding import stream


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
