"""Finds NaN and infinity in what a run has computed anyway, so that it stops where they begin.

Nothing here draws at random or changes a value: a run that is watched learns exactly as one that is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sparserl.errors import NotFiniteError

_OF_A_STEP = {"actions": "action", "new_obs": "observation", "rewards": "reward"}
"""Local of Stable-Baselines3's rollout -> what it is; in the order in which one spoils the next."""


def check_transition(step: int, rollout: Mapping[str, Any]) -> None:
    """Raises NotFiniteError if an env step took or gave something that is not finite; before it is stored.

    Args:
        step: Env step.
        rollout: Locals of Stable-Baselines3's `collect_rollouts`.
    """
    for name, what in _OF_A_STEP.items():
        if not _are_finite(rollout[name]):
            raise _of(what, rollout[name], step, {one: rollout[one] for one in _OF_A_STEP})
    if np.count_nonzero(rollout["dones"]):  # the observation at which an episode ended is stored, too
        for info in rollout["infos"]:
            last = info.get("terminal_observation")
            if last is not None and not np.isfinite(last).all():
                raise _of("observation", last, step, {**{one: rollout[one] for one in _OF_A_STEP}, "last": last})


def check_observation(step: int, observation: Any) -> None:
    """Raises NotFiniteError if what the agent is about to see is not finite."""
    if not _are_finite(observation):
        raise _of("observation", observation, step, {"new_obs": observation})


def _are_finite(values: Any) -> bool:
    finite = np.isfinite(values)
    return bool(np.count_nonzero(finite) == finite.size)  # of a few numbers, `all` takes twice as long


def check_losses(step: int, logged: Mapping[str, float]) -> None:
    """Raises NotFiniteError if one of the logged values that training names (`train/`) is not finite."""
    for name, value in logged.items():
        if name.startswith("train/") and not math.isfinite(value):
            raise NotFiniteError(f"{name} became {float(value)}", step, {name: float(value)})


def check_weights(step: int, weights: Mapping[str, torch.Tensor], of: str = "") -> None:
    """Raises NotFiniteError if one of some weights, by name, has an element that is not finite.

    Args:
        step: Of the run.
        weights: As a `state_dict` has them.
        of: What stands before each name in the message.
    """
    for name, tensor in weights.items():
        if torch.is_floating_point(tensor) and not torch.isfinite(tensor).all():
            raise _of(f"weight {of}{name}", tensor.detach().numpy(), step, {})


def _of(name: str, values: Any, step: int, seen: Mapping[str, Any]) -> NotFiniteError:
    flat = np.ravel(values)
    bad = flat[~np.isfinite(flat)]
    where = f" in {bad.size:,} of {flat.size:,} entries" if flat.size > 1 else ""
    return NotFiniteError(f"{name} became {bad[0]}{where}", step, seen)
