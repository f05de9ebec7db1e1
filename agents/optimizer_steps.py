"""What lets Stable-Baselines3's `train` run for its gradients alone: another agent, other steps of its optimizers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

A = TypeVar("A", bound=BaseAlgorithm)
Step = Callable[[], Any]


def double_of(agent: A, **attributes: Any) -> A:
    """An agent with the same networks, whose counters and log are its own, and some other attributes."""
    double = copy.copy(agent)
    vars(double).update(attributes, _logger=Logger(None, []))
    return double


def no_step(step: Step) -> None:
    """For `instead_of_step`: takes none."""
    del step


@contextmanager
def instead_of_step(optimizer: torch.optim.Optimizer, instead: Callable[[Step], None]) -> Iterator[None]:
    """Inside, a step of an optimizer is handed to another function, which takes it or not.

    No hook of torch: those do not let a step be left out, and an optimizer that has one takes the long way.
    """
    step = optimizer.step
    vars(optimizer)["step"] = lambda: instead(step)
    try:
        yield
    finally:
        del vars(optimizer)["step"]
