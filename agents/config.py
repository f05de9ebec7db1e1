"""Hyper-parameters of the agents as plain data, and the table of agents that the command line knows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import GymEnv

from sparserl.agents.action_bounds import check_action_bounds
from sparserl.agents.dense import SAC, TD3
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.ds_td3 import DSTD3
from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.parts import AgentParts
from sparserl.agents.replay.buffer import DynamicCapacity, check_n_steps, replay_options
from sparserl.errors import ConfigError, unknown_name
from sparserl.machine_memory import DENSE_BYTES, SPARSE_BYTES, check_fits
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
from sparserl.topology.config import TopologyConfig


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
        """As `OffPolicyConfig`."""
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
        """As `OffPolicyConfig`."""
        own = ("ent_coef", "target_entropy", "target_update_interval")
        return super().arguments(action_shape) | {name: getattr(self, name) for name in own}


@dataclass(frozen=True)
class AgentSpec:
    """An agent of the command line.

    Attributes:
        agent: Its class.
        config: Its hyper-parameters.
        summary: One line for `sparserl list algos`.
        sparse_twin: Name of the same algorithm on sparse networks; None if it is sparse itself.
    """

    agent: type[AgentParts]
    config: type[OffPolicyConfig]
    summary: str
    sparse_twin: str | None = None

    @property
    def sparse(self) -> bool:
        """Whether it takes a topology."""
        return self.sparse_twin is None


AGENTS: dict[str, AgentSpec] = {
    "ds_td3": AgentSpec(DSTD3, TD3Config, "TD3 on truly sparse networks that rewire (Sokar et al. 2022)"),
    "td3": AgentSpec(TD3, TD3Config, "Stable-Baselines3's dense TD3, for comparison", sparse_twin="ds_td3"),
    "ds_sac": AgentSpec(DSSAC, SACConfig, "SAC on truly sparse networks that rewire (Sokar et al. 2022, appendix)"),
    "sac": AgentSpec(SAC, SACConfig, "Stable-Baselines3's dense SAC, for comparison", sparse_twin="ds_sac"),
}


def agent_spec(algo: str) -> AgentSpec:
    """An entry of the table.

    Raises:
        ConfigError: If there is no such algorithm, with the closest name.
    """
    if algo not in AGENTS:
        raise ConfigError(unknown_name("algorithm", algo, AGENTS))
    return AGENTS[algo]


def _refuse_topology(algo: str, twin: str, topology: TopologyConfig) -> None:
    none = TopologyConfig(method="dense")
    for field in fields(TopologyConfig):
        given = getattr(topology, field.name)
        if given != getattr(none, field.name):
            raise ConfigError(f"{algo} is dense and takes no topology ({field.name} {given!r}); use {twin}")


def _memory(
    config: OffPolicyConfig, topology: TopologyConfig | None, env: GymEnv, transitions: int
) -> dict[str, float]:
    """Bytes that an agent takes with so many transitions, estimated; by what takes them and the option for it."""
    n_obs, n_action = (float(np.prod(space.shape or (1,))) for space in (env.observation_space, env.action_space))
    item = getattr(env.observation_space.dtype, "itemsize", 8)
    connections = 0.0
    for network, copies, n_in, n_out in (("actor", 1, n_obs, n_action), ("critic", 2, n_obs + n_action, 1)):
        widths = [int(n_in), *config.net_arch, int(n_out)]
        shapes = list(zip(widths[1:], widths, strict=False))
        densities = [1.0] * len(shapes)
        if topology is not None and not topology.start_dense:
            densities = topology.of(network).densities(shapes)
        connections += copies * sum(
            density * wide * deep for density, (wide, deep) in zip(densities, shapes, strict=True)
        )
    activations = config.batch_size * (2 * n_obs + 6 * sum(config.net_arch))
    return {
        "the replay buffer (--agent.buffer-size)": transitions * (2 * item * n_obs + 4 * n_action + 12),
        "the networks (--agent.net-arch)": connections * (DENSE_BYTES if topology is None else SPARSE_BYTES),
        "batches (--agent.batch-size)": 4.0 * activations,
    }


def make_agent(
    algo: str,
    config: OffPolicyConfig,
    topology: TopologyConfig,
    env: GymEnv,
    *,
    seed: int,
    device: str = "cpu",
    buffer_size: int | None = None,
    total_steps: int | None = None,
    heads: TaskHeads | None = None,
) -> AgentParts:
    """Builds an agent of the table.

    Args:
        algo: Name in `AGENTS`.
        config: Its hyper-parameters.
        topology: Of its networks; must be the `dense` method for a dense agent.
        env: The environment that it trains on, or a `VecEnv` of several.
        seed: Root seed.
        device: `"cpu"`.
        buffer_size: Replaces `config.buffer_size`, for an agent that only acts.
        total_steps: Env steps of the run, if known: of a buffer that is larger, only so much memory is ever used.
        heads: For output layers for each task, of an agent on sparse networks.

    Raises:
        ConfigError: If the name is unknown, the hyper-parameters are those of another algorithm, a dense agent is given
            a sparse topology, or the machine has too little memory.
        KernelUnavailable: If a sparse agent is asked to run elsewhere than on the CPU.
    """
    spec = agent_spec(algo)
    if type(config) is not spec.config:
        raise ConfigError(f"{algo} takes a {spec.config.__name__}, got a {type(config).__name__}")
    if spec.sparse_twin is not None:
        _refuse_topology(algo, spec.sparse_twin, topology)
    check_action_bounds(env.action_space)
    assert env.action_space.shape is not None
    whole = buffer_size or config.buffer_size
    used = whole if total_steps is None else min(whole, total_steps)
    of_networks = topology if spec.sparse else None
    check_fits(_memory(config, of_networks, env, used))
    arguments = config.arguments(env.action_space.shape)
    # An agent that only acts draws nothing from its buffer.
    arguments |= config.replay_arguments(seed) if buffer_size is None else {"buffer_size": buffer_size}
    if spec.sparse:
        arguments["topology"] = topology
    if heads is not None:
        arguments["policy_kwargs"]["heads"] = heads
    try:
        return spec.agent("MlpPolicy", env, seed=seed, device=device, **arguments)
    except MemoryError:
        check_fits(_memory(config, of_networks, env, whole))
        raise
