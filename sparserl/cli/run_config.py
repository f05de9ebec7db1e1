"""An existing run: its config, its environment and its trained policy."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
from stable_baselines3 import TD3

from sparserl import checkpoint
from sparserl import config as yaml_config
from sparserl.agents.agent_state import restore_modules
from sparserl.agents.run_recorder import full_checkpoints
from sparserl.cli.train_config import TrainConfig
from sparserl.errors import CheckpointError
from sparserl.records import RunFolder

WhichCheckpoint = Literal["best", "last"]


def run_config(folder: RunFolder) -> TrainConfig:
    """The resolved config that a run was started with."""
    return yaml_config.build(TrainConfig, yaml_config.load_yaml(folder.path / "config.yaml"))


def load_policy(folder: RunFolder, which: WhichCheckpoint, env: gym.Env[Any, Any]) -> tuple[TD3, int]:
    """An agent that acts as the checkpoint does.

    Args:
        folder: The run.
        which: `best` by evaluation, or the `last` one.
        env: An environment of the run's kind.

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
    return agent, state["global_step"]
