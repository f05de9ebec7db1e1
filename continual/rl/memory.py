"""What an agent keeps of transitions of earlier tasks beside its replay buffer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from sparserl.continual.shared.numbers import count_numbers
from sparserl.seeding import stream

if TYPE_CHECKING:
    from sparserl.continual.rl.learner import RLLearner


class ArrayMemory:
    """What is kept of transitions of each task so far, which are drawn at random when it ends.

    Args:
        learner: What the transitions are of.
    """

    named: ClassVar[str]
    """What it is, beside its bytes."""

    def __init__(self, learner: RLLearner):
        self._learner = learner
        self._kept: dict[str, np.ndarray] = {}
        self._drawn = 0

    def __len__(self) -> int:
        return len(next(iter(self._kept.values()), ()))

    def keep(self, count: int) -> None:
        """Adds up to `count` transitions of the present task, without replacement."""
        learner = self._learner
        held = min(learner.task_steps, learner.agent.replay_buffer.size())
        ages = stream(learner.seed, "kept_transitions", str(learner.task)).permutation(held)
        for name, array in self._taken(learner.agent.transitions(learner.latest(ages[:count]))).items():
            self._kept[name] = np.concatenate([self._kept[name], array]) if name in self._kept else array

    def _taken(self, transitions: Any) -> Mapping[str, np.ndarray]:
        """What is kept of some transitions: arrays with a row for each, by name."""
        raise NotImplementedError

    def draw(self, size: int) -> dict[str, np.ndarray]:
        """`size` rows of each array, drawn uniformly among all, with replacement, another draw at each call."""
        rng = stream(self._learner.seed, "memory_batch", str(self._drawn))
        self._drawn += 1
        rows = rng.integers(len(self), size=size)
        return {name: array[rows] for name, array in self._kept.items()}

    def sizes(self) -> dict[str, int]:
        """Bytes of what is kept."""
        return {self.named: sum(array.nbytes for array in self._kept.values())}

    def numbers(self) -> int:
        """Entries of what is kept."""
        return count_numbers(self._kept)

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and how often was drawn from it."""
        return {"kept": self._kept, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps this."""
        self._drawn = state["drawn"]
        self._kept = {name: torch.as_tensor(array).numpy() for name, array in state["kept"].items()}


class TransitionMemory(ArrayMemory):
    """Whole transitions."""

    named = "transitions"

    def _taken(self, transitions: Any) -> Mapping[str, np.ndarray]:
        return {name: array for name, array in vars(transitions).items() if name != "discounts"}  # one for all

    def batch(self, size: int) -> Any:
        """`size` transitions as `draw` draws them."""
        none = self._learner.agent.transitions(np.empty(0, np.int64))
        return dataclasses.replace(none, **self.draw(size))


class OutputMemory(ArrayMemory):
    """Observations, with what the network that acts said of them: `observations` and `outputs`."""

    named = "observations and outputs"

    def _taken(self, transitions: Any) -> Mapping[str, np.ndarray]:
        with torch.no_grad():
            outputs = self._learner.outputs_on(transitions.observations).numpy()
        return {"observations": transitions.observations, "outputs": outputs}
