"""Hyper-parameters of agents with an actor and critics as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from stable_baselines3.common.noise import NormalActionNoise

from sparserl.agents.config import OffPolicyConfig
from sparserl.errors import ConfigError
from sparserl.ranges import Count, NotNegative, Number, Positive, Range, Repeats


@dataclass(frozen=True)
class CriticsConfig(OffPolicyConfig):
    """Hyper-parameters of agents with an actor and several critics.

    Raises:
        ConfigError: If a number is out of range.
    """

    of_policy: ClassVar[tuple[str, ...]] = ("network", "actor_width", "actor_blocks", "critic_width", "critic_blocks")
    ours_alone: ClassVar[tuple[str, ...]] = ("critic_subset", "actor_q", *of_policy)
    of_networks: ClassVar[tuple[str, ...]] = ("net_arch", *of_policy, "n_critics")
    actor_width: Count = 128
    """Neurons between the residual blocks of the actor of network simba; inside a block there are four times as
    many."""
    actor_blocks: Annotated[int, Range("[1, 100]")] = 1
    """Blocks of it."""
    critic_width: Count = 512
    """The same for each critic."""
    critic_blocks: Annotated[int, Range("[1, 100]")] = 2
    """Blocks of it."""
    n_critics: Annotated[int, Range("[2, 20]")] = 2
    """Critics, each with a topology of its own (REDQ: 10)."""
    critic_subset: Annotated[int | None, Range("[1, 20]")] = None
    """Critics, drawn anew at each update, whose lowest value makes the targets (REDQ: 2); None: all of them."""
    actor_q: Literal["first", "min", "mean"] = "min"
    """Value that the actor raises: the first critic's (TD3), the lowest of all (SAC) or their mean (REDQ)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.critic_subset is not None and self.critic_subset > self.n_critics:
            raise ConfigError(
                f"agent.critic_subset must be at most agent.n_critics {self.n_critics}, got {self.critic_subset}"
            )

    def _blocks_arch(self) -> Any:
        return {"pi": self.blocks("actor"), "qf": self.blocks("critic")}

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        given = super().arguments(action_shape, **how)
        return {**given, "policy_kwargs": {**given["policy_kwargs"], "n_critics": self.n_critics}}

    def _kept_neurons(self) -> int:
        return 2 * sum(self.hidden("actor")) + 2 * self.n_critics * sum(self.hidden("critic"))


@dataclass(frozen=True)
class TD3Config(CriticsConfig):
    """Hyper-parameters of TD3; defaults are those of the DS-TD3 paper's code.

    Raises:
        ConfigError: If a number is out of range.
    """

    learning_rate: Positive = 1e-3
    """Of Adam, for actor and critics."""
    weight_decay: NotNegative = 2e-4
    """Coupled L2 of Adam, on weights and biases."""
    batch_size: Count = 100
    """Transitions per gradient update."""
    policy_delay: Count = 2
    """Critic updates per actor and target update."""
    target_policy_noise: NotNegative = 0.2
    """Standard deviation of target policy smoothing, in units of half the action range."""
    target_noise_clip: NotNegative = 0.5
    """Bound of that noise."""
    action_noise_std: NotNegative = 0.1
    """Standard deviation of exploration noise, in units of half the action range."""
    actor_q: Literal["first", "min", "mean"] = "first"
    """As with SAC; the first critic's is TD3's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        noisy = self.target_policy_noise > 0
        self._check_has_effect(("target_noise_clip",), noisy, "agent.target_policy_noise above 0")

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        noise = NormalActionNoise(np.zeros(action_shape), np.full(action_shape, self.action_noise_std))
        own = ("policy_delay", "target_policy_noise", "target_noise_clip")
        return (
            super().arguments(action_shape, **how)
            | {name: getattr(self, name) for name in own}
            | {"action_noise": noise}
        )


@dataclass(frozen=True)
class SACConfig(CriticsConfig):
    """Hyper-parameters of SAC; defaults are those of Haarnoja et al. 2018b and of Stable-Baselines3.

    Raises:
        ConfigError: If a number is out of range.
    """

    ours_alone = (*CriticsConfig.ours_alone, "policy_delay")
    initial_ent_coef: Positive = 1.0
    """Temperature that a learned one begins with."""
    policy_delay: Repeats = 1
    """Critic updates per update of actor and temperature (REDQ: 20)."""
    ent_coef: NotNegative | Literal["auto"] = "auto"
    """Entropy temperature: a number that stays, or auto to learn it."""
    target_entropy: Number | Literal["auto"] = "auto"
    """What a learned temperature aims at; auto is minus the number of actuators."""
    target_update_interval: Count = 1
    """Gradient updates between updates of the target networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        of_learned = ("target_entropy", "initial_ent_coef")
        self._check_has_effect(of_learned, self.ent_coef == "auto", "agent.ent_coef auto")

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        own = ("ent_coef", "target_entropy", "target_update_interval")
        given = super().arguments(action_shape, **how) | {name: getattr(self, name) for name in own}
        if self.initial_ent_coef != 1.0:
            given["ent_coef"] = f"auto_{self.initial_ent_coef!r}"
        return given
