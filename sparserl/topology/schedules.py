"""Schedules as pure functions of the gradient-update index."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Decay = Callable[[int, int | None], float]


def constant(update: int, last_update: int | None) -> float:
    """1 at every update."""
    del update, last_update
    return 1.0


def cosine(update: int, last_update: int | None) -> float:
    """Half a cosine from 1 at update 0 to 0 at `last_update`, and 0 after it.

    The clock is the global update index and is not shifted by the first event, as in RigL's code.

    Raises:
        ValueError: If `last_update` is None: the curve has no end to aim at.

    Source:
        Evci et al. 2020 (RigL), section 3, `f_decay`.

    Example:
        >>> [round(0.3 * cosine(t, 750), 4) for t in (0, 100, 375, 600, 750)]
        [0.3, 0.287, 0.15, 0.0286, 0.0]
    """
    if last_update is None:
        raise ValueError("a cosine drop fraction needs `last_update`, the update at which it reaches 0")
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, update / max(1, last_update))))


def cosine_floor(update: int, last_update: int | None) -> float:
    """The same down to a hundredth, where it stays: .5 falls to .005.

    Raises:
        ValueError: If `last_update` is None.

    Source:
        Dettmers and Zettlemoyer 2019 (SNFS), Liu et al. 2021 (ITOP, GraNet): .5 annealed to .005 in their code.

    Example:
        >>> [round(0.5 * cosine_floor(t, 100), 5) for t in (0, 50, 100, 200)]
        [0.5, 0.2525, 0.005, 0.005]
    """
    return 0.01 + 0.99 * cosine(update, last_update)


STAGES = (90 / 160, 120 / 160)
"""Shares of a run at which the stages of MEST end."""


def staged(update: int, last_update: int | None) -> float:
    """1, then a half, then 0: the three stages of MEST, which end at 56 % and 75 % of the updates.

    Raises:
        ValueError: If `last_update` is None.

    Source:
        Yuan et al. 2021 (MEST), code for a density of .1: epochs 90 and 120 of 160.

    Example:
        >>> [staged(t, 160) for t in (1, 90, 91, 120, 121)]
        [1.0, 0.5, 0.5, 0.0, 0.0]
    """
    if last_update is None:
        raise ValueError("a staged drop fraction needs `last_update`, of which its stages are shares")
    return 1.0 - 0.5 * sum(update >= share * last_update for share in STAGES)


DECAY: dict[str, Decay] = {"constant": constant, "cosine": cosine, "cosine_floor": cosine_floor, "staged": staged}
"""(update, last update) -> share of the drop fraction."""

Reached = Callable[[int, int, int | None], float]


def unpruned(update: int, first_update: int, last_update: int | None) -> float:
    """0 at every update: every layer keeps its number of connections."""
    del update, first_update, last_update
    return 0.0


def linear(update: int, first_update: int, last_update: int | None) -> float:
    """From 0 at `first_update` evenly to exactly 1 at `last_update`; 1 at both if they are one.

    Raises:
        ValueError: If `last_update` is None: the line has no end to aim at.

    Source:
        Bibikar et al. 2022 (FedDST), code: density between a first and a final one.
    """
    return 1.0 - _left(update, first_update, last_update)


def _left(update: int, first_update: int, last_update: int | None) -> float:
    if last_update is None:
        raise ValueError("a density schedule needs `last_update`, the update at which it reaches its end")
    left = (last_update - update) / max(1, last_update - first_update)
    return min(1.0, max(0.0, left))


def cubic(update: int, first_update: int, last_update: int | None) -> float:
    """The same, fast at first.

    Source:
        Zhu and Gupta 2017, section 3; from a density below 1 as in Liu et al. 2021 (GraNet).

    Example:
        >>> [round(0.9 * cubic(t, 200, 600), 4) for t in (200, 300, 400, 500, 600)]
        [0.0, 0.5203, 0.7875, 0.8859, 0.9]
    """
    return 1.0 - _left(update, first_update, last_update) ** 3


def in_stages(update: int, first_update: int, last_update: int | None) -> float:
    """0, then a half, then 1: the stages of `staged`, as shares of the updates from `first_update` to `last_update`."""
    progress = linear(update, first_update, last_update)
    return 0.5 * sum(progress >= share for share in STAGES)


SURPLUS = 0.2
"""Connections on trial in the first stage of MEST, as a share of those that a layer is to have."""


def evenly(reached: float, first: int, goal: int) -> int:
    """Connections after a share of the way from `first` to `goal`: that share of the difference is gone."""
    return first - math.floor(round(reached * (first - goal), 9))


def by_ratio(reached: float, first: int, goal: int) -> int:
    """The same where equal parts of the way take equal shares of what is left.

    Source:
        Frankle and Carbin 2019 (iterative magnitude pruning): a fifth of the weights that are left, each round.

    Example:
        >>> [by_ratio(part / 4, 1000, 81) for part in range(5)]
        [1000, 533, 285, 152, 81]
    """
    return goal if reached >= 1.0 else round(first * (max(1, goal) / max(1, first)) ** reached)


@dataclass(frozen=True)
class DensitySchedule:
    """How the number of connections of layers goes from their first one to their goal.

    Attributes:
        reached: (update, first update, last update) -> share of the way.
        first: (size of the dense layer, goal) -> connections that it begins with, where no initial density is given.
        on_trial: Whether every event drops all that is beyond the goal and grows what the schedule leaves of it.
        left: (share of the way, first, goal) -> connections.
    """

    reached: Reached
    first: Callable[[int, int], int] = lambda size, goal: size
    on_trial: bool = False
    left: Callable[[float, int, int], int] = evenly


DENSITY: dict[str, DensitySchedule] = {
    "constant": DensitySchedule(unpruned, first=lambda size, goal: goal),
    "linear": DensitySchedule(linear),
    "cubic": DensitySchedule(cubic),
    "geometric": DensitySchedule(linear, left=by_ratio),
    # Yuan et al. 2021 (MEST, EM&S): .12, .11 and .10 where the density is .10.
    "surplus": DensitySchedule(in_stages, lambda size, goal: min(size, round((1.0 + SURPLUS) * goal)), on_trial=True),
}
