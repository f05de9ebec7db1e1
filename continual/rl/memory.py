"""Transitions of earlier tasks that an agent keeps beside its replay buffer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparserl.continual.shared.numbers import count_numbers
from sparserl.seeding import stream

if TYPE_CHECKING:
    from sparserl.continual.rl.learner import RLLearner


class TransitionMemory:
    """Transitions of each task so far, drawn at random when it ends.

    Args:
        learner: What the transitions are of.
    """

    def __init__(self, learner: RLLearner):
        self._learner = learner
        self._kept: dict[str, np.ndarray] = {}
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._kept.get("rewards", ()))

    def keep(self, count: int) -> None:
        """Adds up to `count` transitions of the present task, without replacement."""
        learner = self._learner
        held = min(learner.task_steps, learner.agent.replay_buffer.size())
        ages = stream(learner.seed, "kept_transitions", str(learner.task)).permutation(held)
        drawn = learner.agent.transitions(learner.latest(ages[:count]))
        for name, array in vars(drawn).items():
            if name != "discounts":  # one for all
                self._kept[name] = np.concatenate([self._kept[name], array]) if name in self._kept else array

    def batch(self, size: int) -> Any:
        """`size` transitions, each drawn uniformly among all, with replacement, another draw at each call."""
        rng = stream(self._learner.seed, "memory_batch", str(self._drawn))
        self._drawn += 1
        rows = rng.integers(len(self), size=size)
        none = self._learner.agent.transitions(np.empty(0, np.int64))
        return dataclasses.replace(none, **{name: array[rows] for name, array in self._kept.items()})

    def sizes(self) -> dict[str, int]:
        """Bytes of the transitions."""
        return {"transitions": sum(array.nbytes for array in self._kept.values())}

    def numbers(self) -> int:
        """Entries of the transitions."""
        return count_numbers(self._kept)

    def state_dict(self) -> dict[str, Any]:
        """The transitions, and how often was drawn from them."""
        return {"kept": self._kept, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps these transitions."""
        self._drawn = state["drawn"]
        self._kept = {name: torch.as_tensor(array).numpy() for name, array in state["kept"].items()}
