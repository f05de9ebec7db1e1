"""Hyper-parameters of the agents as plain data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
from stable_baselines3.common.noise import NormalActionNoise

from sparserl.agents.replay.buffer import DynamicCapacity, check_n_steps, replay_options
from sparserl.errors import ConfigError
from sparserl.ranges import (
    Count,
    CountOrZero,
    NotNegative,
    Number,
    Positive,
    PositiveShare,
    Range,
    Repeats,
    check_ranges,
)


@dataclass(frozen=True)
class OffPolicyConfig:
    """Hyper-parameters that every agent has, under Stable-Baselines3's names.

    Raises:
        ConfigError: If a number is out of range.
    """

    learning_rate: Positive = 3e-4
    """Of Adam, for actor and critics."""
    weight_decay: NotNegative = 0.0
    """Coupled L2 of Adam, on weights and biases."""
    batch_size: Count = 256
    """Transitions per gradient update."""
    buffer_size: Count = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: CountOrZero = 25_000
    """Env steps with random actions before the first gradient update."""
    train_freq: Repeats = 1
    """Env steps, in each environment, between two rounds of gradient updates."""
    gradient_steps: Annotated[int, Range("[-1, 1e6]")] = 1
    """Gradient updates of a round; -1 for as many as transitions came since the last one."""
    gamma: PositiveShare = 0.99
    """Discount."""
    tau: PositiveShare = 0.005
    """Polyak factor of the target networks; 1 copies them."""
    net_arch: tuple[Count, ...] = (256, 256)
    """Hidden widths of actor and critics."""
    n_steps: Repeats = 1
    """Rewards that a target sums before it bootstraps (multi-step targets)."""
    n_steps_delay: CountOrZero = 0
    """Gradient updates with one-step targets before that (RLx2: 300,000, then 3 steps)."""
    replay: Literal["stored", "redraw_noise"] = "stored"
    """Draw transitions as they were stored, or with fresh noise in the features that `wrappers.noise-fraction` appends
    (as in the ANF paper)."""
    dynamic_capacity: bool = False
    """Forget the oldest 10 % of the transitions when the policy has moved away from them (RLx2)."""
    forget_interval_steps: Count = 10_000
    """Env steps between two looks at that."""
    forget_threshold: NotNegative = 0.2
    """Half the mean squared difference of the actions, then and now, from which on transitions are forgotten."""
    forget_minimum: CountOrZero = 100_000
    """Transitions that are never forgotten (RLx2: 100,000 with TD3, 200,000 with SAC)."""

    def __post_init__(self) -> None:
        check_ranges(self, "agent.", hyphens=False)
        if not self.net_arch:
            raise ConfigError(f"agent.net_arch needs at least one hidden width >= 1, got {list(self.net_arch)}")
        if self.gradient_steps == 0:
            raise ConfigError("agent.gradient_steps must be at least 1, or -1 for one update per transition, got 0")
        check_n_steps(self.n_steps, self.n_steps_delay)
        of_capacity = ("forget_interval_steps", "forget_threshold", "forget_minimum")
        self._check_has_effect(of_capacity, self.dynamic_capacity, "agent.dynamic_capacity")
        if self.capacity is not None and self.forget_minimum >= self.buffer_size:
            raise ConfigError(
                f"agent.forget_minimum {self.forget_minimum} must be below agent.buffer_size {self.buffer_size}, "
                "or nothing is ever forgotten"
            )

    def _check_has_effect(self, names: tuple[str, ...], works: bool, needed: str) -> None:
        """Raises ConfigError if one of some options is not at its default although nothing reads it."""
        usual = {field.name: field.default for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            if not works and value != usual[name]:
                raise ConfigError(f"agent.{name} {value} has no effect: it needs {needed}")

    @property
    def capacity(self) -> DynamicCapacity | None:
        """When transitions are forgotten; None for never."""
        if not self.dynamic_capacity:
            return None
        return DynamicCapacity(
            interval_steps=self.forget_interval_steps,
            threshold=self.forget_threshold,
            minimum=self.forget_minimum,
            compared=8 * self.batch_size,
        )

    def replay_arguments(self, seed: int) -> dict[str, Any]:
        """What the agent's constructor takes for the replay options; empty where none is on."""
        return replay_options(
            gamma=self.gamma,
            n_steps=self.n_steps,
            n_steps_delay=self.n_steps_delay,
            capacity=self.capacity,
            redraw_seed=seed if self.replay == "redraw_noise" else None,
        )

    def arguments(self, action_shape: tuple[int, ...]) -> dict[str, Any]:
        """What the agent's constructor takes.

        Args:
            action_shape: Of the environment's actions.
        """
        del action_shape
        of_updates = ("learning_starts", "train_freq", "gradient_steps")
        own = ("learning_rate", "batch_size", "buffer_size", "gamma", "tau", *of_updates)
        return {name: getattr(self, name) for name in own} | {
            "policy_kwargs": {
                "net_arch": list(self.net_arch),
                "optimizer_kwargs": {"weight_decay": self.weight_decay},
            }
        }


@dataclass(frozen=True)
class TD3Config(OffPolicyConfig):
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
    """Standard deviation of target policy smoothing, in units of the action range."""
    target_noise_clip: NotNegative = 0.5
    """Bound of that noise."""
    action_noise_std: NotNegative = 0.1
    """Standard deviation of exploration noise, in units of the action range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        noisy = self.target_policy_noise > 0
        self._check_has_effect(("target_noise_clip",), noisy, "agent.target_policy_noise above 0")

    def arguments(self, action_shape: tuple[int, ...]) -> dict[str, Any]:
        noise = NormalActionNoise(np.zeros(action_shape), np.full(action_shape, self.action_noise_std))
        own = ("policy_delay", "target_policy_noise", "target_noise_clip")
        return super().arguments(action_shape) | {name: getattr(self, name) for name in own} | {"action_noise": noise}


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    """Hyper-parameters of SAC; defaults are those of Haarnoja et al. 2018b and of Stable-Baselines3.

    Raises:
        ConfigError: If a number is out of range.
    """

    ent_coef: NotNegative | Literal["auto"] = "auto"
    """Entropy temperature: a number that stays, or auto to learn it from 1 on."""
    target_entropy: Number | Literal["auto"] = "auto"
    """What a learned temperature aims at; auto is minus the number of actuators."""
    target_update_interval: Count = 1
    """Gradient updates between updates of the target networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_has_effect(("target_entropy",), self.ent_coef == "auto", "agent.ent_coef auto")

    def arguments(self, action_shape: tuple[int, ...]) -> dict[str, Any]:
        own = ("ent_coef", "target_entropy", "target_update_interval")
        return super().arguments(action_shape) | {name: getattr(self, name) for name in own}
