"""What happens at the border between two tasks, each thing by a named option; defaults are Continual World's.

Source:
    Wolczyk et al. 2021 (Continual World) and its code: the buffer is emptied, the optimizer starts anew, critics go on,
    each task begins with random actions and has a temperature and output layers of its own.

Known differences from that code:
    - An optimizer that starts anew has no step count either; there, moments are zeroed and the count goes on.
    - One temperature, which starts anew at a border, stands for one of each task; they differ only where transitions of
      earlier tasks are replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers.linear import linear_layers


@dataclass(frozen=True)
class BorderConfig:
    """What stays and what starts anew when a task ends and the next one begins.

    Raises:
        ConfigError: If output layers of earlier tasks are to act, and there are none.
    """

    buffer: Literal["emptied", "kept"] = "emptied"
    """Replay buffer."""
    optimizer: Literal["reset", "kept"] = "reset"
    """Optimizers of actor, critics and temperature."""
    critic: Literal["kept", "reset"] = "kept"
    """Weights of the critics; reset draws them anew in the connections that exist."""
    exploration: Literal["random", "best_return", "policy"] = "random"
    """How a later task begins: with agent.learning-starts random actions; with as many of earlier tasks' policies, each
    for an episode, then the one that returns most (Wolczyk et al. 2022); or with the policy. With an empty buffer,
    updates wait that long in all cases."""
    temperature: Literal["reset", "kept"] = "reset"
    """Learned entropy temperature of SAC."""
    heads: Literal["task", "shared"] = "task"
    """Whether each task has output layers of its own, in actor and critics, or all share one."""
    task_id: Literal["hidden", "visible"] = "hidden"
    """Whether hidden layers read a one-hot task id, or heads alone are chosen by it."""

    def __post_init__(self) -> None:
        if self.exploration == "best_return" and self.heads != "task":
            raise ConfigError(
                f"--border.exploration best_return acts by output layers of earlier tasks, and --border.heads is "
                f"{self.heads}: use --border.heads task, or --border.exploration random"
            )

    @property
    def appends_id(self) -> bool:
        """Whether observations end with a task id."""
        return self.heads == "task" or self.task_id == "visible"


def _empty_buffer(agent: Any) -> None:
    agent.replay_buffer.reset()


def _reset_optimizers(agent: Any) -> None:
    for optimizer in agent._optimizers():
        optimizer.state.clear()


def _reset_critic(agent: Any) -> None:
    """Weights as at the start of a run, and the target with them; torch's global generator draws."""
    redraw(agent.critic, agent.topology.part("initial_value"))
    agent.target_networks["critic"].sync(1.0)  # and what only a lagging target has is 0
    agent.critic.optimizer.state.clear()


def _reset_temperature(agent: Any) -> None:
    if getattr(agent, "log_ent_coef", None) is None:
        return
    first = agent.ent_coef.partition("_")[2] if isinstance(agent.ent_coef, str) else ""
    agent.log_ent_coef.data.fill_(torch.tensor(float(first or 1.0)).log())
    agent.ent_coef_optimizer.state.clear()


AT_A_BORDER: dict[tuple[str, str], Callable[[Any], None]] = {
    ("buffer", "emptied"): _empty_buffer,
    ("optimizer", "reset"): _reset_optimizers,
    ("critic", "reset"): _reset_critic,
    ("temperature", "reset"): _reset_temperature,
}
"""Option and value -> what it does to an agent; values that are not here leave it as it is."""


def check_critics(agent: Any, config: BorderConfig, of_method: Any) -> None:
    """Raises ConfigError if something is to be done with critics that an agent has not.

    Args:
        agent: The agent.
        config: Of its borders.
        of_method: Options of the continual method, or None.
    """
    if "critic" in agent.trained:
        return
    what, trained = type(agent).__name__, ", ".join(agent.trained)
    if config.critic == "reset":
        raise ConfigError(f"--border.critic reset is for agents with critics, and {what} trains {trained}: keep them")
    if getattr(of_method, "critics", False):
        name = of_method.group.replace("_", "-")
        raise ConfigError(f"{name}.critics has no effect: {what} has one network, which the method is for anyway")


def cross_border(agent: Any, config: BorderConfig) -> None:
    """Prepares an agent for the next task."""
    for (option, value), happens in AT_A_BORDER.items():
        if getattr(config, option) == value:
            happens(agent)
    # A gradient of another task's head would move it again.
    for group in agent.trained:
        agent.optimizer_of(group).zero_grad(set_to_none=True)


@torch.no_grad()
def redraw(network: nn.Module, initial_value: str = "dense_fan_in") -> None:
    """Draws all weights and biases anew, in the connections that exist; see `LinearLayer.redraw`."""
    for layer in linear_layers(network).values():
        layer.redraw(initial_value)
