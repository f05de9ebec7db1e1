"""The agents that `bench update` compares, built alike: same widths, learning rate, replay and exploration.

Everything else is each library's own default, so that what is timed is what its users get.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.agents import DSDQN, DSSAC, DSTD3
from sparserl.bench.masked_dense import hold_masks
from sparserl.bench.options import OF_CHOICES, SUMMARIES
from sparserl.envs import make_env
from sparserl.errors import ConfigError
from sparserl.extras import how_to_install

BASELINE = "td3"
RUN_STEPS = 1_000_000
"""Env steps of the run that is timed a part of, as long as in the papers: its topology changes all the while."""
BASELINES = {"ds_sac": "sac", "ds_redq": "sac", "sac_10": "sac", "ds_dqn": "dqn", "dqn": "dqn"}
"""Contenders whose ratios are to another one than `BASELINE`, and that one."""
MANY_CRITICS = 10
"""As in REDQ."""
MASKED_DENSITY = 0.1
"""Of the masked contender; a masked network costs the same at every density."""
TRANSITIONS = 5_000


@dataclass(frozen=True)
class Ours:
    """An agent of this package.

    Attributes:
        agent: Its class.
        method: Topology method.
        options: Further arguments.
        n_critics: Number of critics; None where there are none.
    """

    agent: type[DSTD3 | DSSAC | DSDQN]
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    n_critics: int | None = 2


OURS = {
    "ds_td3": Ours(DSTD3, "ds_td3"),
    "ds_sac": Ours(DSSAC, "ds_sac"),
    "ds_dqn": Ours(DSDQN, "set", {"train_freq": 1}, None),
    "ds_redq": Ours(DSSAC, "ds_sac", {"critic_subset": 2, "actor_q": "mean"}, MANY_CRITICS),
}


@dataclass(frozen=True)
class Entry:
    """A contender of one configuration.

    Attributes:
        name: Key of `SUMMARIES`.
        density: Of its hidden layers.
        pairs: Neurons of ours that share their inputs.
    """

    name: str
    density: float
    pairs: int = 1

    @property
    def label(self) -> str:
        """Which it is, in words: ours with its density, and pairs where it has any."""
        if self.name not in OURS:
            return self.name
        return f"{self.name} {self.density}" + (f", pairs {self.pairs}" if self.pairs > 1 else "")

    @property
    def baseline(self) -> Entry:
        """What its ratios are to."""
        return Entry(BASELINES.get(self.name, BASELINE), 1.0)

    @property
    def is_jax(self) -> bool:
        """Whether it runs in JAX and not in torch."""
        return self.name.startswith("sbx_")

    @property
    def updates_a_call(self) -> int:
        """Gradient updates per call of `train`: whole periods of the delayed policy update.

        SBX compiles one loop for all updates of a call, so it gets several.
        """
        return 10 if self.is_jax else 2


def is_missing(name: str) -> bool:
    """Whether a contender needs a library that is not installed."""
    return name.startswith("sbx_") and importlib.util.find_spec("sbx") is None


def said_missing(name: str) -> str:
    """The line for it."""
    return f"{name}: sbx is not installed, skipped; {how_to_install('bench')}"


def installed() -> dict[str, str]:
    """Versions of what only some contenders need."""
    return {package.name: package.version for package in metadata.distributions() if package.name in ("sbx-rl", "jax")}


def ours(name: str, densities: Sequence[float], pairs: Sequence[int]) -> list[Entry]:
    """One of ours at each density with each number of neurons that share inputs; those of a dense one are all alike."""
    return [Entry(name, density, group) for density in densities for group in (pairs if density < 1.0 else (1,))]


def entries(
    names: Sequence[str], densities: Sequence[float], pairs: Sequence[int] = (1,)
) -> tuple[list[Entry], list[str]]:
    """The contenders that can run here, and a line for each that cannot; baselines are always among them."""
    there, missing = [], []
    wanted = {*names, *(Entry(name, 1.0).baseline.name for name in names)}
    wanted |= {Entry(name, 1.0).baseline.name for name in wanted}  # that of dense SAC
    for name in SUMMARIES:
        if name not in wanted:
            continue
        if is_missing(name):
            missing.append(said_missing(name))
        elif name in OURS:
            there += ours(name, densities, pairs)
        else:
            there.append(Entry(name, MASKED_DENSITY if name == "masked" else 1.0))
    return there, missing


def env_for(names: Sequence[str], env_id: str) -> gym.Env[Any, Any]:
    """An environment that all contenders can act in.

    Raises:
        ConfigError: If there is no such environment, or it is not for one of them.
    """
    env = make_env(env_id, actions=(gym.spaces.Box, gym.spaces.Discrete))
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    for name in names:
        if (name in OF_CHOICES) != discrete:
            have = "discrete" if discrete else "continuous"
            others = ", ".join(one for one in SUMMARIES if (one in OF_CHOICES) == discrete)
            raise ConfigError(f"{name} is not for {env_id}, whose actions are {have}: give --only {others}")
    return env


def make(entry: Entry, env: gym.Env[Any, Any], width: int, seed: int, **topology: Any) -> OffPolicyAlgorithm:
    """Builds a contender with two hidden layers that learns from its first step on.

    Args:
        entry: Which.
        env: What it steps; its own.
        width: Neurons of a hidden layer.
        seed: Root seed.
        topology: Further fields of `TopologyConfig`, for ours.
    """
    n_action = int(np.prod(env.action_space.shape or (1,)))
    common: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": env,
        "learning_rate": 1e-3,
        "buffer_size": 2 * TRANSITIONS,
        "learning_starts": 0,
        "policy_kwargs": {"net_arch": [width, width]},
        "seed": seed,
        "device": "cpu",
    }
    fused = {**common, "policy_kwargs": {"net_arch": [width, width], "optimizer_kwargs": {"fused": True}}}
    noise = NormalActionNoise(np.zeros(n_action), np.full(n_action, 0.1))
    agent: OffPolicyAlgorithm
    if entry.name in OURS:
        made = OURS[entry.name]
        sparse = {"method": made.method, "density": entry.density, "pairs": entry.pairs}
        method = {"method": "dense"} if entry.density == 1.0 else sparse
        if made.agent is DSTD3:
            common["action_noise"] = noise
        if made.n_critics is not None:
            common["policy_kwargs"]["n_critics"] = made.n_critics
        learner = made.agent(**common, **made.options, topology={**method, **topology})
        learner.bind_run_length(RUN_STEPS)
        agent = learner
    elif entry.name in ("sac", "sac_10"):
        common["policy_kwargs"]["n_critics"] = MANY_CRITICS if entry.name == "sac_10" else 2
        agent = SAC(**common)
    elif entry.name == "dqn":
        agent = DQN(**common, train_freq=1)
    elif entry.is_jax:
        from sbx import TD3 as SbxTD3

        agent = SbxTD3(**common, action_noise=noise)
    else:
        agent = TD3(**(common if entry.name == "td3" else fused), action_noise=noise)
        if entry.name == "masked":
            hold_masks(agent, entry.density, seed)
    agent.set_logger(Logger(folder=None, output_formats=[]))
    return agent


def random_replay(env: gym.Env[Any, Any], seed: int) -> ReplayBuffer:
    """A replay buffer, half full with transitions of a random policy."""
    kind: type[DQN | TD3] = DQN if isinstance(env.action_space, gym.spaces.Discrete) else TD3
    collector: OffPolicyAlgorithm = kind(
        "MlpPolicy",
        env,
        learning_starts=TRANSITIONS,
        buffer_size=2 * TRANSITIONS,
        policy_kwargs={"net_arch": [1]},
        seed=seed,
        device="cpu",
    )
    collector.learn(TRANSITIONS)
    assert collector.replay_buffer is not None
    return collector.replay_buffer


def give_replay(agent: OffPolicyAlgorithm, replay: ReplayBuffer) -> None:
    """Makes a copy of `replay` the agent's own."""
    agent.replay_buffer = copy.deepcopy(replay)
