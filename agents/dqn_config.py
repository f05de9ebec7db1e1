"""Hyper-parameters of DQN as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sparserl.agents.config import OffPolicyConfig
from sparserl.ranges import Count, CountOrZero, Positive, PositiveShare, Range, Share


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """Hyper-parameters of DQN; defaults are those of Stable-Baselines3, but for one update per env step (there, per 4).

    Raises:
        ConfigError: If a number is out of range.
    """

    of_policy: ClassVar[tuple[str, ...]] = ("network", "q_width", "q_blocks")
    of_networks: ClassVar[tuple[str, ...]] = ("net_arch", *of_policy)
    ours_alone = ("double_q", "loss", *of_policy)
    learning_rate: Positive = 1e-4
    """Of Adam."""
    net_arch: tuple[Count, ...] = (64, 64)
    """Hidden widths."""
    q_width: Count = 128
    """Neurons between the residual blocks of network simba; inside a block there are four times as many."""
    q_blocks: Annotated[int, Range("[1, 100]")] = 2
    """Blocks of it."""
    batch_size: Count = 32
    """Transitions per gradient update."""
    learning_starts: CountOrZero = 100
    """Env steps with random actions before the first gradient update."""
    tau: PositiveShare = 1.0
    """Share of the online network that an update of the target network takes; 1 copies it."""
    target_update_interval: Count = 10_000
    """Env steps between updates of the target network."""
    exploration_fraction: PositiveShare = 0.1
    """Share of the run, of all tasks together (of each with --method scratch), in which the rate of random actions
    falls, along a line."""
    exploration_initial_eps: Share = 1.0
    """Rate of random actions at the start."""
    exploration_final_eps: Share = 0.05
    """Rate of random actions once that share is over."""
    max_grad_norm: Positive | None = 10.0
    """Norm to which the gradients of an update are scaled down; None leaves them as they are."""
    double_q: bool = False
    """Let the online network choose the next action whose value the target network gives (van Hasselt et al. 2016)."""
    loss: Literal["huber", "squared"] = "huber"
    """Mean of what of the temporal-difference errors: Huber's loss with a bend at 1, or their squares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_has_effect(
            ("exploration_fraction",),
            self.exploration_initial_eps != self.exploration_final_eps,
            "agent.exploration_initial_eps and exploration_final_eps that differ",
        )

    @property
    def schedules(self) -> tuple[str, ...]:
        falls = self.exploration_initial_eps != self.exploration_final_eps
        return (*super().schedules, *(["exploration_fraction"] if falls else []))

    def _blocks_arch(self) -> Any:
        return self.blocks("q")

    def _kept_neurons(self) -> int:
        return 6 * sum(self.hidden("q"))

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        own = (
            "target_update_interval",
            "exploration_fraction",
            "exploration_initial_eps",
            "exploration_final_eps",
            "max_grad_norm",
        )
        return super().arguments(action_shape, **how) | {name: getattr(self, name) for name in own}
