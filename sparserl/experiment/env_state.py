"""The state of the environments of a run that can be resumed: taken into checkpoints, and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

from sparserl.envs import EnvState, capture_state, restore_state
from sparserl.errors import CheckpointError
from sparserl.seeding import stream


def env_state(envs: Sequence[gym.Env[Any, Any]]) -> Any:
    """The exact state as a tree that a checkpoint can hold: of one environment, or a list of those of several.

    None stands for one that cannot be had.
    """
    states = [_tree(capture_state(env)) for env in envs]
    return states[0] if len(states) == 1 else states


def _tree(state: EnvState | None) -> dict[str, Any] | None:
    return None if state is None else {"tensors": state.tensors, "scalars": state.scalars}


def restore_env(
    agent: BaseAlgorithm,
    envs: Sequence[gym.Env[Any, Any]],
    state: Mapping[str, Any],
    otherwise: Callable[[], object],
    *,
    seed: int,
) -> None:
    """Puts environments where a checkpoint was taken.

    Args:
        agent: Acts in them.
        envs: The environments.
        state: The checkpoint; `env` of it is from `env_state`.
        otherwise: What is done, before the agent starts a new episode in each, where one of them has no state.
        seed: Root seed of the run. Such episodes are others than those with which the run, or an earlier part, began.

    Raises:
        CheckpointError: If it is of other environments, or of another number of them.
    """
    of_envs = state["env"]
    states = of_envs if isinstance(of_envs, list) else [of_envs]
    if len(states) != len(envs):
        raise CheckpointError(f"the checkpoint holds the states of {len(states)} environments, not of {len(envs)}")
    if None in states:
        otherwise()
        assert agent.env is not None
        agent.env.seed(int(stream(seed, "envs", "resumed", str(state["global_step"])).integers(2**31)))
        agent._last_obs = None
        print("the environment cannot give its state, so a new episode starts and the run is not repeated exactly")
        return
    for env, one in zip(envs, states, strict=True):
        restore_state(env, EnvState({name: tensor.numpy() for name, tensor in one["tensors"].items()}, one["scalars"]))
