"""What watches env steps, and how a later task begins: with policies of earlier tasks, the best of them most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sparserl.recording.finite import check_transition

if TYPE_CHECKING:
    from sparserl.continual.rl.learner import RLLearner


class BestReturn:
    """Acts for an episode with each earlier task's policy, and then with that of the highest mean return so far.

    Args:
        learner: Says what answers for a task.

    Attributes:
        returns: Of each earlier task, those of the episodes in which its policy acted.

    Source:
        Wolczyk et al. 2022, exploration by `best-return`.
    """

    def __init__(self, learner: RLLearner):
        self._learner = learner
        self.returns: list[list[float]] = []
        self._acting, self._so_far, self._acted = 0, 0.0, False

    def begin(self, tasks: int) -> None:
        """Forgets all returns: a task begins, with so many before it."""
        self.returns = [[] for _ in range(tasks)]
        self._acting, self._so_far = 0, 0.0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """(1, width) observations with a task id to (1, width) actions in the environment's units, or discrete (1,).

        They are drawn from the policy that acts, as it answers for its own task now.
        """
        self._acted = True
        seen, tasks = observations.copy(), self._learner.n_tasks
        seen[:, -tasks:] = np.eye(tasks)[self._acting]
        return self._learner.policy(self._acting)(seen, False)

    def see(self, reward: float, done: bool) -> None:
        """Takes note of an env step, if it was one of its own; an episode that is over decides who acts in the next."""
        if not self._acted:
            return
        self._acted = False
        self._so_far += reward
        if done:
            self.returns[self._acting].append(self._so_far)
            self._so_far = 0.0
            untried = [task for task, returns in enumerate(self.returns) if not returns]
            best = max(range(len(self.returns)), key=lambda task: np.mean(self.returns[task] or -np.inf))
            self._acting = untried[0] if untried else best

    def state_dict(self) -> dict[str, Any]:
        """Returns, and the episode that is under way."""
        return {"returns": [list(one) for one in self.returns], "acting": self._acting, "so_far": self._so_far}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with these."""
        self.returns = [list(one) for one in state["returns"]]
        self._acting, self._so_far = state["acting"], state["so_far"]


class Watch(BaseCallback):
    """Stops a run at an env step that took or gave something that is not finite, and lets others see each.

    Args:
        explorer: Sees the reward, and whether an episode is over.
    """

    def __init__(self, explorer: BestReturn | None):
        super().__init__()
        self._explorer = explorer

    def _on_step(self) -> bool:
        check_transition(self.num_timesteps, self.locals)
        if self._explorer is not None:
            self._explorer.see(float(self.locals["rewards"][0]), bool(self.locals["dones"][0]))
        return True
