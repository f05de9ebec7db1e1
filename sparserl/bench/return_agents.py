"""The agents that `bench return` compares, each with the settings that its user would get.

TD3, SAC and ours take those of presets of this suite, dense and sparse twins alike: TD3 those of the DS-TD3 paper, SAC
those that Stable-Baselines3 has by default. SBX's TD3 takes those of TD3, without the weight decay that it does not
have. SBX's CrossQ keeps its own defaults. What each was built with is part of its record.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl import config as yaml_config
from sparserl.agents.table import agent_spec, make_agent
from sparserl.bench.compared import OURS
from sparserl.bench.contenders import Entry
from sparserl.bench.options import Record, RunSettings
from sparserl.topology.config import TopologyConfig

SHOWN = (
    "learning_rate",
    "qf_learning_rate",
    "batch_size",
    "buffer_size",
    "learning_starts",
    "gamma",
    "tau",
    "policy_delay",
    "target_policy_noise",
    "target_noise_clip",
    "target_update_interval",
    "ent_coef",
    "ent_coef_init",
    "target_entropy",
    "n_steps",
    "gradient_steps",
)
"""Attributes of an agent that its record says, where it has them."""
WIDTHS = ("net_arch_pi", "net_arch_qf")
"""Likewise of its policy, in SBX."""


def preset_of(algo: str, env: str) -> str:
    """Name of the preset that an agent takes its settings from, e.g. `ds_sac/HalfCheetah-v5`."""
    of_env = (yaml_config.PRESETS / algo / f"{env}.yaml").exists()
    return f"{algo}/{env if of_env else 'default'}"


def make_learner(
    entry: Entry, env: gym.Env[Any, Any], seed: int, settings: RunSettings
) -> tuple[OffPolicyAlgorithm, Record]:
    """An agent that has not learned yet, and what it was built with.

    Args:
        entry: Which; its name is a key of `RETURN_SUMMARIES`.
        env: What it steps; its own.
        seed: Root seed.
        settings: Of all runs.
    """
    given: dict[str, Any] = {}
    if settings.learning_starts is not None:
        given["learning_starts"] = settings.learning_starts
    topology = TopologyConfig(method="dense")
    if entry.name == "sbx_crossq":
        from sbx import CrossQ

        source = "defaults of SBX"
        agent: OffPolicyAlgorithm = CrossQ("MlpPolicy", env, seed=seed, **given)
    else:
        algo = "td3" if entry.name == "sbx_td3" else entry.name
        preset = preset_of(algo, settings.env)
        data = yaml_config.load_yaml(yaml_config.PRESETS / f"{preset}.yaml")
        spec = agent_spec(algo)
        config = yaml_config.build(spec.config, {**data["agent"], **given}, "agent.")
        source = f"preset {preset}"
        if entry.name == "sbx_td3":
            from sbx import TD3

            assert env.action_space.shape is not None
            arguments = config.arguments(env.action_space.shape, seed=seed, acts_only=False)
            arguments["policy_kwargs"] = {"net_arch": list(config.net_arch)}
            source += ", without its weight decay"
            agent = TD3("MlpPolicy", env, seed=seed, **arguments)
        else:
            if entry.name in OURS and entry.density < 1.0:
                of_preset = {key: value for key, value in data["topology"].items() if key != "epsilon"}
                of_entry = {"density": entry.density, "pairs": entry.pairs}
                topology = yaml_config.build(TopologyConfig, {**of_preset, **of_entry}, "topology.")
            made: Any = make_agent(algo, config, topology, env, seed=seed, total_steps=settings.max_steps)
            agent = made
    agent.set_logger(Logger(folder=None, output_formats=[]))
    said = {"source": source, **_parameters(agent)}
    if entry.name in OURS:
        said["topology"] = yaml_config.plain(topology)
    return agent, said


def _parameters(agent: OffPolicyAlgorithm) -> Record:
    """Hyper-parameters of an agent, as plain data."""
    shown = {name: getattr(agent, name) for name in SHOWN if hasattr(agent, name)}
    given = agent.policy_kwargs
    policy: Record = {name: given[name] for name in ("net_arch", "optimizer_kwargs") if name in given}
    policy |= {name: getattr(agent.policy, name) for name in WIDTHS if hasattr(agent.policy, name)}
    plain = {name: value for name, value in shown.items() if isinstance(value, int | float | str)}
    noise = None if agent.action_noise is None else str(agent.action_noise)
    return {**plain, "action_noise": noise, "policy": policy}
