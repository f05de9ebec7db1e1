"""Hyper-parameters of the agents as plain data, and the table of agents that the command line knows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise

from sparserl.agents.ds_td3 import DSTD3
from sparserl.agents.topology_config import TopologyConfig
from sparserl.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class AgentSpec:
    """An agent of the command line.

    Attributes:
        agent: Its class.
        sparse: Whether it takes a topology.
        summary: One line for `sparserl list algos`.
    """

    agent: type[TD3]
    sparse: bool
    summary: str


AGENTS: dict[str, AgentSpec] = {
    "ds_td3": AgentSpec(DSTD3, True, "TD3 on truly sparse networks that rewire (Sokar et al. 2022)"),
    "td3": AgentSpec(TD3, False, "Stable-Baselines3's dense TD3, for comparison"),
}


@dataclass(frozen=True)
class TD3Config:
    """Hyper-parameters of TD3, under Stable-Baselines3's names; defaults are those of the DS-TD3 paper's code.

    Raises:
        ConfigError: If a number is out of range.
    """

    learning_rate: float = 1e-3
    """Of Adam, for actor and critics."""
    weight_decay: float = 2e-4
    """Coupled L2 of Adam, on weights and biases."""
    batch_size: int = 100
    """Transitions per gradient update."""
    buffer_size: int = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: int = 25_000
    """Env steps with random actions before the first gradient update."""
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak factor of the target networks."""
    policy_delay: int = 2
    """Critic updates per actor and target update."""
    target_policy_noise: float = 0.2
    """Standard deviation of target policy smoothing, in units of the action range."""
    target_noise_clip: float = 0.5
    """Bound of that noise."""
    action_noise_std: float = 0.1
    """Standard deviation of exploration noise, in units of the action range."""
    net_arch: tuple[int, ...] = (256, 256)
    """Hidden widths of actor and critics."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "batch_size", "buffer_size", "policy_delay")
        for name in positive:
            if not getattr(self, name) > 0:  # NaN is not
                raise ConfigError(f"agent.{name} must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "learning_starts", "target_policy_noise", "target_noise_clip", "action_noise_std"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"agent.{name} must not be negative, got {getattr(self, name)}")
        for name in ("gamma", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"agent.{name} must be in (0, 1], got {getattr(self, name)}")
        if not self.net_arch or min(self.net_arch) < 1:
            raise ConfigError(f"agent.net_arch needs at least one hidden width >= 1, got {list(self.net_arch)}")


def _refuse_topology(algo: str, topology: TopologyConfig) -> None:
    none = TopologyConfig(method="dense")
    for field in fields(TopologyConfig):
        given = getattr(topology, field.name)
        if given != getattr(none, field.name):
            raise ConfigError(f"{algo} is dense and takes no topology ({field.name} {given!r}); use ds_td3")


def make_agent(
    algo: str,
    config: TD3Config,
    topology: TopologyConfig,
    env: gym.Env[Any, Any],
    *,
    seed: int,
    device: str = "cpu",
    buffer_size: int | None = None,
) -> TD3:
    """Builds an agent of the table.

    Args:
        algo: Name in `AGENTS`.
        config: Its hyper-parameters.
        topology: Of its networks; must be the `dense` method for a dense agent.
        env: The environment that it trains on.
        seed: Root seed.
        device: `"cpu"`.
        buffer_size: Replaces `config.buffer_size`, for an agent that only acts.

    Raises:
        ConfigError: If the name is unknown, or a dense agent is given a sparse topology.
        KernelUnavailable: If a sparse agent is asked to run elsewhere than on the CPU.
    """
    if algo not in AGENTS:
        raise ConfigError(unknown_name("algorithm", algo, AGENTS))
    spec = AGENTS[algo]
    sparse: dict[str, Any] = {"topology": topology} if spec.sparse else {}
    if not spec.sparse:
        _refuse_topology(algo, topology)
    assert env.action_space.shape is not None
    return spec.agent(
        "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        buffer_size=buffer_size or config.buffer_size,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        tau=config.tau,
        gamma=config.gamma,
        policy_delay=config.policy_delay,
        target_policy_noise=config.target_policy_noise,
        target_noise_clip=config.target_noise_clip,
        action_noise=NormalActionNoise(
            np.zeros(env.action_space.shape), np.full(env.action_space.shape, config.action_noise_std)
        ),
        policy_kwargs={
            "net_arch": list(config.net_arch),
            "optimizer_kwargs": {"weight_decay": config.weight_decay},
        },
        seed=seed,
        device=device,
        **sparse,
    )
