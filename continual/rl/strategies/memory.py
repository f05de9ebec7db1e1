"""Methods that keep transitions of earlier tasks: replay trains on them again, agem keeps their loss from rising."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.continual.shared.projection import project
from sparserl.errors import ConfigError
from sparserl.ranges import Count, Repeats, check_ranges
from sparserl.seeding import stream


@dataclass(frozen=True)
class ReplayOptions:
    """Size of a batch.

    Raises:
        ConfigError: If a value is out of range.
    """

    batch_scale: Repeats = 4
    """Transitions per update, in units of agent.batch-size: all tasks share a batch. Default: Continual World's."""

    def __post_init__(self) -> None:
        check_ranges(self, "replay.")


class Replay(RLStrategy):
    """Perfect memory: the replay buffer keeps the transitions of all tasks, and a batch is uniform over them.

    Nothing is kept beside it, so `memory` counts nothing.

    Source:
        "Perfect memory" of Wolczyk et al. 2021.
    """

    options: ReplayOptions

    def attach(self, learner: RLLearner) -> None:
        """Widens batches.

        Raises:
            ConfigError: If the buffer is emptied between tasks, or too small for the transitions of all.
        """
        super().attach(learner)
        if learner.border.buffer != "kept":
            raise ConfigError("replay trains on earlier tasks again: use --border.buffer kept")
        if learner.agent.buffer_size < learner.total_steps:
            raise ConfigError(
                f"replay keeps all {learner.total_steps} transitions, "
                f"and agent.buffer-size is {learner.agent.buffer_size}"
            )
        learner.agent.batch_size *= self.options.batch_scale


@dataclass(frozen=True)
class AGEMOptions:
    """Size of the memory and of what is drawn from it.

    Raises:
        ConfigError: If a value is out of range.
    """

    transitions_per_task: Count = 10_000
    """Transitions kept of each task. Default: Continual World's."""
    batch_size: Count = 128
    """Transitions of the memory whose loss must not rise, drawn anew each step. Default: Continual World's."""

    def __post_init__(self) -> None:
        check_ranges(self, "agem.")


class AGEM(RLStrategy):
    """Averaged gradient episodic memory: no step goes, to first order, against the mean loss on the memory.

    Source:
        Chaudhry et al. 2019, eq. 11; Wolczyk et al. 2021 for what is kept.

    Known differences from Continual World's code:
        - Actor and critics are projected each by itself, since one steps before the other's gradient is formed; there,
          jointly.
    """

    options: AGEMOptions

    def attach(self, learner: RLLearner) -> None:
        """Nothing is kept yet."""
        super().attach(learner)
        self._agent = learner.agent
        self._kept: dict[str, np.ndarray] = {}
        self._drawn = 0

    def end_task(self, learner: RLLearner) -> None:
        """Keeps transitions of the task, drawn without replacement."""
        held = min(learner.task_steps, learner.agent.replay_buffer.size())
        places = stream(self.seed, "kept_transitions", str(learner.task)).permutation(held)
        drawn = learner.agent.transitions(learner.latest(places[: self.options.transitions_per_task]))
        for name, array in _arrays(drawn).items():
            self._kept[name] = np.concatenate([self._kept[name], array]) if name in self._kept else array

    def before_step(self, learner: RLLearner, group: str) -> None:
        """Projects the gradient."""
        if not self._kept:
            return
        parameters = list(getattr(learner.agent, group).parameters())
        own = [_gradient(parameter) for parameter in parameters]
        # Where connections grow by gradient, that is the task's own: no layer keeps what it sees of the memory.
        layers = [layer for layer in learner.agent.evolver.groups[group].values() if layer.capture]
        for layer in layers:
            layer.capture = False
        learner.agent.form_gradients(group, self._batch())
        for layer in layers:
            layer.capture = True
        project(own, [_gradient(parameter) for parameter in parameters])
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient

    def _batch(self) -> Any:
        rng = stream(self.seed, "memory_batch", str(self._drawn))
        self._drawn += 1
        rows = rng.integers(len(self._kept["rewards"]), size=self.options.batch_size)
        none = self._agent.transitions(np.empty(0, np.int64))
        return dataclasses.replace(none, **{name: array[rows] for name, array in self._kept.items()})

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {"kept": self._kept, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the memory."""
        self._drawn = state["drawn"]
        self._kept = {name: torch.as_tensor(array).numpy() for name, array in state["kept"].items()}

    def memory(self) -> dict[str, int]:
        """Bytes of the transitions."""
        return {"transitions": sum(array.nbytes for array in self._kept.values())}


def _arrays(batch: Any) -> dict[str, np.ndarray]:
    """By name, those with a row for each transition; the discount is one for all."""
    return {name: array for name, array in vars(batch).items() if name != "discounts"}


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A copy, since the next pass uses the memory again; zeros where a pass does not reach."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
