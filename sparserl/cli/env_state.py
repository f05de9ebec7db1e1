"""The state of the environment of a run that can be resumed: taken into checkpoints, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.envs import EnvState, capture_state, restore_state


def env_state(env: gym.Env[Any, Any]) -> dict[str, Any] | None:
    """The exact state as a tree that a checkpoint can hold; None if it cannot be had."""
    state = capture_state(env)
    return None if state is None else {"tensors": state.tensors, "scalars": state.scalars}


def restore_env(
    agent: OffPolicyAlgorithm, env: gym.Env[Any, Any], state: dict[str, Any] | None, otherwise: Callable[[], object]
) -> None:
    """Puts an environment into a state of `env_state`.

    Args:
        agent: Acts in it.
        env: The environment.
        state: The state.
        otherwise: What is done, before the agent starts a new episode, where there is none.
    """
    if state is None:
        otherwise()
        agent._last_obs = None
        print("the environment cannot give its state, so a new episode starts and the run is not repeated exactly")
        return
    restore_state(env, EnvState({name: tensor.numpy() for name, tensor in state["tensors"].items()}, state["scalars"]))
