"""An existing run: its config, its environment and its trained policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl import checkpoint
from sparserl import config as yaml_config
from sparserl.agents.agent_state import restore_modules
from sparserl.cli.arguments import WhichCheckpoint
from sparserl.cli.continual_config import ContinualConfig
from sparserl.cli.rl_continual_config import RLContinualConfig, build_rl_continual_config
from sparserl.cli.train_config import TrainConfig, build_train_config
from sparserl.envs import load_wrapper_state
from sparserl.errors import CheckpointError, ConfigError
from sparserl.records import RunFolder, full_checkpoints


def is_continual(folder: RunFolder) -> bool:
    """Whether a run is one of `sparserl continual`, and not of `sparserl train`."""
    return "sequence" in yaml_config.load_yaml(folder.path / "config.yaml")


def is_of_agents(folder: RunFolder) -> bool:
    """Whether a run is one of `sparserl continual` on environments."""
    return is_continual(folder) and "algo" in yaml_config.load_yaml(folder.path / "config.yaml")


def run_config(folder: RunFolder) -> TrainConfig:
    """The resolved config that a run of `sparserl train` was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if is_continual(folder):
        raise ConfigError(f"{folder.path} is a run of `sparserl continual`; this takes runs of `sparserl train`")
    return build_train_config(yaml_config.load_yaml(folder.path / "config.yaml"))


def continual_config(folder: RunFolder) -> ContinualConfig:
    """The resolved config that a run of `sparserl continual` was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if not is_continual(folder):
        raise ConfigError(f"{folder.path} is a run of `sparserl train`; this takes runs of `sparserl continual`")
    return yaml_config.build(ContinualConfig, yaml_config.load_yaml(folder.path / "config.yaml"))


def rl_continual_config(folder: RunFolder) -> RLContinualConfig:
    """The resolved config that a run of `sparserl continual` on environments was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if not is_of_agents(folder):
        raise ConfigError(f"{folder.path} is no run of an agent on a sequence of tasks")
    return build_rl_continual_config(yaml_config.load_yaml(folder.path / "config.yaml"))


def load_policy(folder: RunFolder, which: WhichCheckpoint, env: gym.Env[Any, Any]) -> tuple[OffPolicyAlgorithm, int]:
    """An agent that acts as the checkpoint does.

    Args:
        folder: The run.
        which: `best` by evaluation, or the `last` one.
        env: Made by the run's config; its wrappers get the state that the policy was trained with.

    Returns:
        The agent, with an empty replay buffer, and the env step of the checkpoint.

    Raises:
        CheckpointError: If the checkpoint is missing or damaged.
    """
    config = run_config(folder)
    full = full_checkpoints(folder)
    if which == "last" and not full:
        raise CheckpointError(f"{folder.path} has no full checkpoint yet; try --checkpoint best")
    state = checkpoint.load(folder.checkpoints / "best" if which == "best" else full[-1])
    agent = config.make_agent(env, buffer_size=1)
    restore_modules(agent, state["modules"], ["policy"])
    load_wrapper_state(env, state["wrappers"])
    return agent, state["global_step"]
