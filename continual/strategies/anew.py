"""Methods that begin each task anew: joint trains on all tasks so far, scratch on the present one alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from sparserl.continual.learner import Learner
from sparserl.continual.strategies.strategy import Strategy
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP


class Joint(Strategy):
    """At each task a classifier starts anew from the same initial weights, and is trained on all tasks up to this one.

    What a continual learner could reach if it kept everything: row t of the accuracy matrix is the joint model of tasks
    0..t, which intransigence compares with. The optimizer starts anew too, whatever the learner's options say, and so
    does the clock of a topology that changes.
    """

    begins_anew = True

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self._learner: Any = learner
        self._learned = 0

    def trained_tasks(self, task: int) -> Sequence[int]:
        return range(task + 1)

    def begin_task(self, learner: Learner) -> None:
        if learner.task:
            learner.begin_anew()

    def end_task(self, learner: Learner) -> None:
        self._learned = learner.task + 1

    def state_dict(self) -> dict[str, Any]:
        return {"learned": self._learned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._learned = state["learned"]

    def memory(self) -> dict[str, int]:
        """Bytes of the samples of all tasks so far."""
        finished = self._learner.sequence.tasks[: self._learned]
        return {"samples": sum(task.train.bytes_of(len(task.train)) for task in finished)}


class Scratch(Strategy):
    """A fresh agent per task, of the same size and budget: what forward transfer is measured against.

    Source:
        Single-task SAC of Wolczyk et al. 2021.
    """

    begins_anew = True

    def attach(self, learner: Learner) -> None:
        """No task has been learned yet.

        Raises:
            ConfigError: If later tasks begin otherwise than the first.
        """
        super().attach(learner)
        border: Any = getattr(learner, "border", None)
        fresh = {"buffer": "emptied", "optimizer": "reset", "exploration": "random", "temperature": "reset"}
        for option, value in fresh.items():
            if getattr(border, option) != value:
                raise ConfigError(f"scratch begins each task like a fresh agent: use --border.{option} {value}")
        self._network = learner.networks[0]
        self._learned: list[SparseMLP] = []

    def begin_task(self, learner: Learner) -> None:
        if learner.task:
            learner.begin_anew()

    def end_task(self, learner: Learner) -> None:
        """Keeps a copy of the network that answers."""
        self._learned.append(copy.deepcopy(self._network.of_task(learner.task)))

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """The copy; for a task that has not been learned, what is being trained."""
        return self._learned[task] if task < len(self._learned) else self._network.of_task(task)

    def state_dict(self) -> dict[str, Any]:
        return {"learned": [dict(network.state_dict()) for network in self._learned]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._learned = []
        for task, stored in enumerate(state["learned"]):
            self._learned.append(copy.deepcopy(self._network.of_task(task)))
            self._learned[task].load_state_dict(stored)

    def memory(self) -> dict[str, int]:
        """Bytes of the copies: weights, biases, and where connections are."""
        return {"actors": sum(tensor.nbytes for network in self._learned for tensor in network.state_dict().values())}
