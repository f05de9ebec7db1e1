"""The single-task reference: an agent that starts anew at each task, and a copy of its actor for each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.save_util import recursive_getattr

from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.seeding import stream


class Scratch(RLStrategy):
    """A fresh agent per task, of the same size and budget: what forward transfer is measured against.

    Source:
        Single-task SAC of Wolczyk et al. 2021.
    """

    def attach(self, learner: RLLearner) -> None:
        """No task has been learned yet.

        Raises:
            ConfigError: If later tasks begin otherwise than the first.
        """
        super().attach(learner)
        fresh = {"buffer": "emptied", "optimizer": "reset", "exploration": "random", "temperature": "reset"}
        for option, value in fresh.items():
            if getattr(learner.border, option) != value:
                raise ConfigError(f"scratch begins each task like a fresh agent: use --border.{option} {value}")
        self._learner = learner
        self._learned: list[SparseMLP] = []

    def begin_task(self, learner: RLLearner) -> None:
        """Takes networks, topologies, optimizers, temperature and clock of an agent that has learned nothing."""
        if learner.task == 0:
            return
        agent, seed = learner.agent, int(stream(self.seed, "scratch", str(learner.task)).integers(2**31))
        with learner.drawing("scratch", learner.task):
            fresh = learner.fresh_agent(seed)
        names, tensors = fresh._get_torch_save_params()
        for name in names:
            recursive_getattr(agent, name).load_state_dict(recursive_getattr(fresh, name).state_dict())
        for name in tensors:
            recursive_getattr(agent, name).data.copy_(recursive_getattr(fresh, name).data)
        agent._n_updates = 0
        agent.replay_buffer.reset()
        learner.emptied_at = learner.steps

    def end_task(self, learner: RLLearner) -> None:
        """Keeps a copy of the actor's network."""
        self._learned.append(copy.deepcopy(learner.networks[0].of_task(learner.task)))

    def answering(self, learner: RLLearner, task: int) -> SparseMLP:
        """The copy; for a task that has not been learned, what is being trained."""
        return self._learned[task] if task < len(self._learned) else learner.networks[0].of_task(task)

    def state_dict(self) -> dict[str, Any]:
        """The copies."""
        return {"learned": [dict(network.state_dict()) for network in self._learned]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the copies."""
        self._learned = []
        for task, stored in enumerate(state["learned"]):
            self._learned.append(copy.deepcopy(self._learner.networks[0].of_task(task)))
            self._learned[task].load_state_dict(stored)

    def memory(self) -> dict[str, int]:
        """Bytes of the copies: weights, biases, and where connections are."""
        return {"actors": sum(tensor.nbytes for own in self._learned for tensor in own.state_dict().values())}
