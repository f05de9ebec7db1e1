"""What a continual method may do around an agent's ordinary training: seams that do nothing unless a method fills them.

The learner calls them; a method sees the agent's networks and its replay buffer, never its loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from sparserl.continual.rl.networks import TaskNetwork
from sparserl.continual.supervised.strategy import LayerUse
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP

if TYPE_CHECKING:
    from sparserl.continual.rl.learner import RLLearner


class RLStrategy:
    """Plain fine-tuning. A method overrides the seams it needs.

    Args:
        options: The method's own, of the type that its class says; None for a method without any.
        n_tasks: Tasks that will be learned.
        seed: Root seed of everything random.
    """

    needs_heads: ClassVar[bool] = False
    """Whether an old task's answers stay only if it has output layers of its own."""

    def __init__(self, options: Any = None, *, n_tasks: int, seed: int):
        self.options, self.n_tasks, self.seed = options, n_tasks, seed

    # Before anything is trained.

    def densities(self, hidden: int) -> Mapping[str, tuple[float, ...]]:
        """Densities that hidden layers of `actor` or `critic` must begin with, by network; empty if any will do.

        Args:
            hidden: Number of hidden layers.
        """
        del hidden
        return {}

    def attach(self, learner: RLLearner) -> None:
        """Gets to know the agent, which has learned nothing yet (or will be restored).

        Raises:
            ConfigError: If the method cannot learn with this agent.
        """
        if self.needs_heads and not learner.networks[0].has_heads:
            raise ConfigError("this method answers for each task by itself: use --border.heads task")

    # Around a task.

    def begin_task(self, learner: RLLearner) -> None:
        """Before the first step of `learner.task`, after what happens at a border."""

    def begin_consolidation(self, learner: RLLearner) -> None:
        """After the last env step of `learner.task`."""

    def consolidation_updates(self, task: int) -> int:
        """Gradient updates that then follow, from the task's replay buffer."""
        del task
        return 0

    def end_task(self, learner: RLLearner) -> None:
        """After `learner.task`, before it is evaluated; its replay buffer is still there."""

    # Around an optimizer's step.

    def before_step(self, learner: RLLearner, group: str) -> None:
        """After the gradients of `group` are formed; may change them."""

    def after_step(self, learner: RLLearner, group: str) -> None:
        """After the optimizer's step, before a topology event."""

    # What it leaves behind.

    def answering(self, learner: RLLearner, task: int) -> SparseMLP:
        """The actor's network that answers for a task."""
        return learner.networks[0].of_task(task)

    def uses(self, learner: RLLearner, network: TaskNetwork) -> list[LayerUse]:
        """Who uses each layer of a network now."""
        return network.uses(learner.task)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors, arrays, numbers and strings."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; the agent's own state is loaded before."""

    def memory(self) -> dict[str, int]:
        """Bytes kept between tasks beside the networks, by what they are for."""
        return {}
