"""What stands in for the steps of an optimizer within a `train` that is Stable-Baselines3's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Step = Callable[[], Any]


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
