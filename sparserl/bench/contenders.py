"""The agents that `bench update` compares, built alike: same widths, learning rate, replay or rollout, exploration.

Everything else is each library's own default, so that what is timed is what its users get.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import DQN, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sparserl.bench.compared import COMPARED, OURS, needs, with_baselines
from sparserl.bench.masked_dense import hold_masks
from sparserl.envs import make_env
from sparserl.errors import ConfigError
from sparserl.extras import how_to_install

RUN_STEPS = 1_000_000
"""Env steps of the run that is timed a part of, as long as in the papers: its topology changes all the while."""
MANY_CRITICS = 10
"""As in REDQ."""
MASKED_DENSITY = 0.1
"""Of the masked contender; a masked network costs the same at every density."""
TRANSITIONS = 5_000
BATCHES_A_ROLLOUT = 8
"""Of PPO, whose rollout is as long as Stable-Baselines3's with batches of 256. With memory one, as in sb3-contrib."""
EPOCHS = 10
"""Passes of PPO over a rollout, the default of Stable-Baselines3."""


def _replayed(batch: int) -> dict[str, Any]:
    """Sizes of an agent that learns from its first step on, by batches of a replay buffer."""
    return {"learning_rate": 1e-3, "buffer_size": 2 * TRANSITIONS, "learning_starts": 0, "batch_size": batch}


def _in_batches(batch: int, batches: int = BATCHES_A_ROLLOUT) -> dict[str, Any]:
    """Sizes of an agent that takes a rollout in batches; it hardly moves, so the same rollout stays one of its own."""
    return {"learning_rate": 1e-6, "n_steps": batches * batch, "batch_size": batch, "n_epochs": EPOCHS}


def _at_once(batch: int) -> dict[str, Any]:
    """Sizes of an agent that takes a rollout as one batch; likewise."""
    return {"learning_rate": 1e-6, "n_steps": batch}


@dataclass(frozen=True)
class Recipe:
    """How a contender is made.

    Attributes:
        agent: Module and name of its class.
        method: Topology method, of ours.
        options: Further arguments.
        policy: Further arguments of its policy.
        policy_of_width: Likewise, by the width of hidden layers.
        alias: Name of the policy.
        sizes: From a batch size to arguments.
        updates_a_call: Gradient updates per call of `train`.
        noisy: Whether it gets noise to explore with.
    """

    agent: str
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    policy_of_width: Callable[[int], Mapping[str, Any]] = lambda width: {}
    alias: str = "MlpPolicy"
    sizes: Callable[[int], dict[str, Any]] = _replayed
    updates_a_call: int = 2  # whole periods of the delayed policy update
    noisy: bool = False


_td3 = partial(Recipe, "stable_baselines3:TD3", noisy=True)
_in_rollouts = partial(Recipe, sizes=_in_batches, updates_a_call=EPOCHS * BATCHES_A_ROLLOUT)
_with_memory = partial(
    Recipe,
    sizes=partial(_in_batches, batches=1),
    updates_a_call=EPOCHS,
    policy_of_width=lambda width: {"lstm_hidden_size": width},
    alias="MlpLstmPolicy",
)
_crossq = partial(
    Recipe,
    policy={"n_critics": 2},
    policy_of_width=lambda width: {"net_arch": {"pi": [256, 256], "qf": [width, width]}},
    updates_a_call=3,  # a whole period of its delayed policy update
)
SIMBA_ACTOR = [128]
"""Widths of the residual blocks of SimBa's actors."""
_simba = Recipe(
    "sparserl.agents:DSSAC",
    "ds_sac",
    policy={"n_critics": 2, "optimizer_kwargs": {"weight_decay": 0.01, "decoupled_weight_decay": True}},
    policy_of_width=lambda width: {"network": "simba", "net_arch": {"pi": SIMBA_ACTOR, "qf": [width, width]}},
)
_whole_rollouts = partial(Recipe, sizes=_at_once, updates_a_call=1)
RECIPES = {
    "ds_td3": Recipe("sparserl.agents:DSTD3", "ds_td3", policy={"n_critics": 2}, noisy=True),
    "ds_sac": Recipe("sparserl.agents:DSSAC", "ds_sac", policy={"n_critics": 2}),
    "td3": _td3(),
    "td3_fused": _td3(policy={"optimizer_kwargs": {"fused": True}}),
    "sac": Recipe("stable_baselines3:SAC", policy={"n_critics": 2}),
    "ds_redq": Recipe(
        "sparserl.agents:DSSAC", "ds_sac", {"critic_subset": 2, "actor_q": "mean"}, {"n_critics": MANY_CRITICS}
    ),
    "sac_10": Recipe("stable_baselines3:SAC", policy={"n_critics": MANY_CRITICS}),
    "ds_tqc": Recipe("sparserl.agents:DSTQC", "ds_sac", policy={"n_critics": 2}),
    "tqc": Recipe("sb3_contrib:TQC", policy={"n_critics": 2}),
    "ds_crossq": _crossq("sparserl.agents:DSCrossQ", "ds_sac"),
    "crossq": _crossq("sb3_contrib:CrossQ"),
    "ds_simba": _simba,
    "simba": _simba,
    "sac_256": Recipe(
        "stable_baselines3:SAC", policy={"n_critics": 2}, policy_of_width=lambda width: {"net_arch": [256, 256]}
    ),
    "ds_dqn": Recipe("sparserl.agents:DSDQN", "set", {"train_freq": 1}),
    "dqn": Recipe("stable_baselines3:DQN", options={"train_freq": 1}),
    "ds_ppo": _in_rollouts("sparserl.agents:DSPPO", "ds_ppo"),
    "ppo": _in_rollouts("stable_baselines3:PPO"),
    "ds_a2c": _whole_rollouts("sparserl.agents:DSA2C", "ds_ppo"),
    "a2c": _whole_rollouts("stable_baselines3:A2C"),
    "ds_recurrent_ppo": _with_memory("sparserl.agents.ds_recurrent_ppo:DSRecurrentPPO", "ds_ppo"),
    "recurrent_ppo": _with_memory("sb3_contrib:RecurrentPPO"),
    "masked": _td3(policy={"optimizer_kwargs": {"fused": True}}),
    # SBX compiles one loop for all updates of a call.
    "sbx_td3": Recipe("sbx:TD3", updates_a_call=10, noisy=True),
    "sbx_crossq": _crossq("sbx:CrossQ", updates_a_call=12),
    "sbx_simba": Recipe(
        "sbx:SAC",
        policy={"n_critics": 2},
        policy_of_width=lambda width: {"net_arch": {"pi": SIMBA_ACTOR, "qf": [width, width]}},
        alias="SimbaPolicy",
        updates_a_call=10,
    ),
}
"""Contenders of `COMPARED`."""


@dataclass(frozen=True)
class Entry:
    """A contender of one configuration.

    Attributes:
        name: Key of `COMPARED`.
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
        return Entry(COMPARED[self.name].baseline, 1.0)

    @property
    def is_jax(self) -> bool:
        """Whether it runs in JAX and not in torch."""
        return self.name.startswith("sbx_")


def is_missing(name: str) -> bool:
    """Whether a contender needs a library that is not installed."""
    needed = needs(name)
    return needed is not None and importlib.util.find_spec(needed[0]) is None


def said_missing(name: str) -> str:
    """The line for it."""
    needed = needs(name)
    assert needed is not None
    module, extra = needed
    return f"{name}: {module} is not installed, skipped; {how_to_install(extra)}"


def installed() -> dict[str, str]:
    """Versions of what only some contenders need."""
    return {package.name: package.version for package in metadata.distributions() if package.name in ("sbx-rl", "jax")}


def ours(name: str, densities: Sequence[float], pairs: Sequence[int]) -> list[Entry]:
    """One of ours at each density with each number of neurons that share inputs; those of a dense one are all alike."""
    return [Entry(name, density, group) for density in densities for group in (pairs if density < 1.0 else (1,))]


def entries(
    names: Sequence[str], densities: Sequence[float], pairs: Sequence[int] = (1,)
) -> tuple[list[Entry], list[str]]:
    """The contenders that can run here, and a line for each that cannot; baselines are always among them.

    Raises:
        ConfigError: If none can run here.
    """
    there, missing = [], []
    wanted = with_baselines(names)
    for name in COMPARED:
        if name not in wanted:
            continue
        lacking = next((one for one in with_baselines([name]) if is_missing(one)), None)
        if lacking is not None:
            missing.append(said_missing(lacking) if lacking == name else f"{name}: skipped, as its baseline {lacking}")
        elif name in OURS:
            there += ours(name, densities, pairs)
        else:
            there.append(Entry(name, MASKED_DENSITY if name == "masked" else 1.0))
    if not there:
        raise ConfigError("; ".join(missing))
    return there, missing


def env_for(names: Sequence[str], env_id: str) -> gym.Env[Any, Any]:
    """An environment that all contenders can act in.

    Raises:
        ConfigError: If there is no such environment, or it is not for one of them.
    """
    env = make_env(env_id, actions=(gym.spaces.Box, gym.spaces.Discrete))
    kind = "discrete" if isinstance(env.action_space, gym.spaces.Discrete) else "continuous"
    for name in names:
        if kind not in COMPARED[name].actions:
            others = ", ".join(one for one, compared in COMPARED.items() if kind in compared.actions)
            raise ConfigError(f"{name} is not for {env_id}, whose actions are {kind}: give --only {others}")
    return env


def make(entry: Entry, env: gym.Env[Any, Any], width: int, seed: int, batch: int = 256, **topology: Any) -> Any:
    """Builds a contender with two hidden layers that learns from its first step on.

    Args:
        entry: Which.
        env: What it steps; its own.
        width: Neurons of a hidden layer, and of an LSTM before them.
        seed: Root seed.
        batch: Samples of a gradient update.
        topology: Further fields of `TopologyConfig`, for ours.
    """
    recipe = RECIPES[entry.name]
    policy = {"net_arch": [width, width], **recipe.policy, **recipe.policy_of_width(width)}
    given = {**recipe.sizes(batch), **recipe.options, "policy_kwargs": policy, "seed": seed, "device": "cpu"}
    if recipe.noisy:
        n_action = int(np.prod(env.action_space.shape or (1,)))
        given["action_noise"] = NormalActionNoise(np.zeros(n_action), np.full(n_action, 0.1))
    if recipe.method is not None:
        sparse = {"method": recipe.method, "density": entry.density, "pairs": entry.pairs}
        given["topology"] = {**({"method": "dense"} if entry.density == 1.0 else sparse), **topology}
    agent = resolve_name(recipe.agent)(recipe.alias, env, **given)
    if recipe.method is not None:
        agent.bind_run_length(RUN_STEPS)
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


def give_rollouts(agents: Mapping[Entry, BaseAlgorithm]) -> None:
    """Lets baselines fill a rollout, and makes copies of it the own of all that are compared with them.

    Args:
        agents: By contender, of one width and batch size, baselines among them; others than those stay as they are.
    """
    with_rollouts = {entry: agent for entry, agent in agents.items() if isinstance(agent, OnPolicyAlgorithm)}
    for entry, agent in with_rollouts.items():
        if entry == entry.baseline:
            agent.learn(agent.n_steps)
    for entry, agent in with_rollouts.items():
        agent.rollout_buffer = copy.deepcopy(with_rollouts[entry.baseline].rollout_buffer)
