"""The table of agents, and how one is built from its row."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv

from sparserl.agents.action_bounds import check_action_bounds
from sparserl.agents.config import AgentConfig, RunSizes
from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.dense import A2C, DQN, PPO, SAC, TD3
from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.ds_a2c import DSA2C
from sparserl.agents.ds_crossq import CrossQConfig, DSCrossQ
from sparserl.agents.ds_dqn import DSDQN
from sparserl.agents.ds_ppo import DSPPO
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.ds_td3 import DSTD3
from sparserl.agents.ds_tqc import DSTQC, TQCConfig
from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.networks.images import CNN_POLICY, FEATURES, image_shapes, policy_for
from sparserl.agents.on_policy_config import A2CConfig, PPOConfig, RecurrentPPOConfig
from sparserl.agents.parts import AgentParts
from sparserl.errors import ConfigError, unknown_name
from sparserl.extras import how_to_install
from sparserl.machine_memory import DENSE_BYTES, SPARSE_BYTES, check_fits
from sparserl.topology.config import TopologyConfig
from sparserl.topology.config_options import DENSITY_SUFFIX, OWN_DENSITIES


@dataclass(frozen=True)
class AgentSpec:
    """An agent of the command line.

    Attributes:
        agent: Its class, which says what networks it has and which actions it takes.
        config: Its hyper-parameters.
        summary: One line for `sparserl list algos`.
        sparse_twin: Name of the same algorithm on sparse networks; None if it is sparse itself.
    """

    agent: type[AgentParts]
    config: type[AgentConfig]
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
    "ds_tqc": AgentSpec(
        DSTQC, TQCConfig, "Truncated quantile critics (Kuznetsov et al. 2020) on truly sparse networks"
    ),
    "ds_crossq": AgentSpec(
        DSCrossQ, CrossQConfig, "CrossQ (Bhatt et al. 2024): wide normalised critics, truly sparse, no target networks"
    ),
    "ds_dqn": AgentSpec(DSDQN, DQNConfig, "DQN on a truly sparse network that rewires (Graesser et al. 2022)"),
    "dqn": AgentSpec(DQN, DQNConfig, "Stable-Baselines3's dense DQN, for comparison", sparse_twin="ds_dqn"),
    "ds_ppo": AgentSpec(DSPPO, PPOConfig, "PPO on truly sparse networks that rewire (Graesser et al. 2022)"),
    "ppo": AgentSpec(PPO, PPOConfig, "Stable-Baselines3's dense PPO, for comparison", sparse_twin="ds_ppo"),
    "ds_a2c": AgentSpec(DSA2C, A2CConfig, "A2C on truly sparse networks that rewire"),
    "a2c": AgentSpec(A2C, A2CConfig, "Stable-Baselines3's dense A2C, for comparison", sparse_twin="ds_a2c"),
}
OF_EXTRAS = {"ds_recurrent_ppo": "contrib"}
"""Agents that need what only an extra brings; rows of the table where that is installed."""

if find_spec("sb3_contrib") is not None:
    from sparserl.agents.ds_recurrent_ppo import DSRecurrentPPO

    AGENTS["ds_recurrent_ppo"] = AgentSpec(
        DSRecurrentPPO, RecurrentPPOConfig, "sb3-contrib's PPO with memory on truly sparse LSTMs that rewire"
    )


NOT_HERE = {
    "ds_trpo": "it needs second derivatives of the policy, which sparse layers have not: use ds_ppo",
    "crossq": "dense networks have it with --algo ds_crossq --topology.method dense",
    "tqc": "dense networks have it with --algo ds_tqc --topology.method dense",
    "recurrent_ppo": "dense networks have it with --algo ds_recurrent_ppo --topology.method dense",
}
"""Agents of sb3-contrib that are not in the table, and why."""


def agent_spec(algo: str) -> AgentSpec:
    """An entry of the table.

    Raises:
        ConfigError: If there is no such algorithm, with the reason or the closest name, or what it needs is not
            installed.
    """
    if algo in NOT_HERE:
        raise ConfigError(f"there is no {algo}: {NOT_HERE[algo]}")
    if algo in OF_EXTRAS and algo not in AGENTS:
        raise ConfigError(f"{algo} needs a package that is not installed; {how_to_install(OF_EXTRAS[algo])}")
    if algo not in AGENTS:
        raise ConfigError(unknown_name("algorithm", algo, AGENTS))
    return AGENTS[algo]


def _refuse_topology(algo: str, twin: str, topology: TopologyConfig) -> None:
    none = TopologyConfig(method="dense")
    for field in fields(TopologyConfig):
        given = getattr(topology, field.name)
        if given != getattr(none, field.name):
            raise ConfigError(f"{algo} is dense and takes no topology ({field.name} {given!r}); use {twin}")


def _refuse_unread_densities(algo: str, agent: type[AgentParts], topology: TopologyConfig) -> None:
    for name in OWN_DENSITIES:
        if getattr(topology, name) is not None and name.removesuffix(DENSITY_SUFFIX) not in agent.trained:
            raise ConfigError(f"topology.{name} has no effect: {algo} trains {', '.join(agent.trained)}")


def check_options(algo: str, config: AgentConfig) -> None:
    """Refuses options that an agent has not, although its sparse twin has.

    Raises:
        ConfigError: If one is not at its default.
    """
    twin = agent_spec(algo).sparse_twin
    if twin is not None:
        config.check_dense(algo, twin)


def accepted(algo: str) -> dict[str, Any]:
    """What `make_env` takes to make environments for an algorithm alone."""
    return {"actions": agent_spec(algo).agent.action_spaces, "advice": partial(advice, algo)}


def advice(algo: str, space: spaces.Space[Any]) -> str:
    """How a refusal of actions ends: with the algorithms that take them, dense or sparse like the one that does not."""
    sparse = agent_spec(algo).sparse
    others = [name for name, spec in AGENTS.items() if spec.sparse == sparse]
    fit = [name for name in others if isinstance(space, AGENTS[name].agent.action_spaces)]
    return f"; use {' or '.join(fit)}" if fit else f"; {type(space).__name__} actions have no algorithm here"


def check_actions(algo: str, agent: type[AgentParts], space: spaces.Space[Any]) -> None:
    """Refuses actions that an agent cannot choose.

    Raises:
        ConfigError: If they are of another kind, have no bounds, or cannot be scaled to [-1, 1] where that is done.
    """
    if not isinstance(space, agent.action_spaces):
        known = " or ".join(kind.__name__ for kind in agent.action_spaces)
        raise ConfigError(f"{algo} takes {known} actions, got {space}{advice(algo, space)}")
    check_action_bounds(space, scaled=agent.scales_actions)


def _memory(
    spec: AgentSpec, config: AgentConfig, topology: TopologyConfig | None, env: GymEnv, steps: int | None
) -> dict[str, float]:
    """Bytes that an agent takes in a run of so many env steps (`RunSizes`), estimated; by what takes them."""
    n_obs, n_action = (int(np.prod(space.shape or (1,))) for space in (env.observation_space, env.action_space))
    choices = int(env.action_space.n) if isinstance(env.action_space, spaces.Discrete) else n_action
    item = getattr(env.observation_space.dtype, "itemsize", 8)
    policy = policy_for(env.observation_space, tuple(spec.agent.policy_aliases))
    image = image_shapes(env.observation_space) if policy == CNN_POLICY else None
    n_features = n_obs if image is None else FEATURES
    connections = 0.0
    groups = spec.agent.layer_shapes(config, n_features, choices)
    for group, networks in groups.items():
        for shapes in networks:
            densities = [1.0] * len(shapes)
            if topology is not None:
                densities = topology.of(group).first_densities(shapes)
            connections += sum(density * wide * deep for density, (wide, deep) in zip(densities, shapes, strict=True))
    of_networks = connections * (DENSE_BYTES if topology is None else SPARSE_BYTES)
    sizes = RunSizes(n_obs, item, n_action, getattr(env, "num_envs", 1), steps)
    parts = {**config.memory(sizes), "the networks (--agent.net-arch)": of_networks}
    if image is not None:  # each group reads images through convolutions of its own
        weights = sum(wide * deep for wide, deep in image.matrices)
        numbers = image.activations if topology is None else image.activations + image.patches
        parts["convolutions (--agent.batch-size)"] = len(groups) * (
            DENSE_BYTES * weights + 8.0 * getattr(config, "batch_size", 1) * numbers
        )
    return parts


def make_agent(
    algo: str,
    config: AgentConfig,
    topology: TopologyConfig,
    env: GymEnv,
    *,
    seed: int,
    device: str = "cpu",
    acts_only: bool = False,
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
        acts_only: Whether it will never learn from what it meets, and so needs no replay buffer.
        total_steps: Env steps of the run, if known: of a buffer that is larger, only so much memory is ever used.
        heads: For output layers for each task, of an agent on sparse networks.

    Raises:
        ConfigError: If the name is unknown, the hyper-parameters are those of another algorithm, it cannot choose such
            actions, a dense agent is given a sparse topology, or any the density of a network that it has not, or the
            machine has too little memory.
        KernelUnavailable: If a sparse agent is asked to run elsewhere than on the CPU.
    """
    spec = agent_spec(algo)
    if type(config) is not spec.config:
        raise ConfigError(f"{algo} takes a {spec.config.__name__}, got a {type(config).__name__}")
    if spec.sparse_twin is not None:
        _refuse_topology(algo, spec.sparse_twin, topology)
    check_options(algo, config)
    check_actions(algo, spec.agent, env.action_space)
    _refuse_unread_densities(algo, spec.agent, topology)
    assert env.action_space.shape is not None
    of_networks = topology if spec.sparse else None
    check_fits(_memory(spec, config, of_networks, env, 0 if acts_only else total_steps))
    policy = policy_for(env.observation_space, tuple(spec.agent.policy_aliases))
    arguments = config.arguments(env.action_space.shape, seed=seed, acts_only=acts_only)
    if spec.sparse:
        arguments["topology"] = topology
    if heads is not None:
        arguments["policy_kwargs"]["heads"] = heads
    try:
        return spec.agent(policy, env, seed=seed, device=device, **arguments)
    except MemoryError:
        check_fits(_memory(spec, config, of_networks, env, None))
        raise
