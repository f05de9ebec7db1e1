"""The state of the environments of a run that can be resumed: taken into checkpoints, and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from sparserl.envs import EnvState, capture_state, restore_state
from sparserl.errors import CheckpointError


def env_state(envs: Sequence[gym.Env[Any, Any]]) -> Any:
    """The exact state as a tree that a checkpoint can hold: of one environment, or a list of those of several.

    None stands for one that cannot be had.
    """
    states = [_tree(capture_state(env)) for env in envs]
    return states[0] if len(states) == 1 else states


def _tree(state: EnvState | None) -> dict[str, Any] | None:
    return None if state is None else {"tensors": state.tensors, "scalars": state.scalars}


def restore_env(
    agent: BaseAlgorithm, envs: Sequence[gym.Env[Any, Any]], state: Any, otherwise: Callable[[], object]
) -> None:
    """Puts environments into a state of `env_state`.

    Args:
        agent: Acts in them.
        envs: The environments.
        state: The state.
        otherwise: What is done, before the agent starts a new episode in each, where one of them has none.

    Raises:
        CheckpointError: If it is of other environments, or of another number of them.
    """
    states = state if isinstance(state, list) else [state]
    if len(states) != len(envs):
        raise CheckpointError(f"the checkpoint holds the states of {len(states)} environments, not of {len(envs)}")
    if None in states:
        otherwise()
        agent._last_obs = None
        print("the environment cannot give its state, so a new episode starts and the run is not repeated exactly")
        return
    for env, one in zip(envs, states, strict=True):
        restore_state(env, EnvState({name: tensor.numpy() for name, tensor in one["tensors"].items()}, one["scalars"]))
