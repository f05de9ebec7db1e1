"""The whole state of an agent as plain data, so that a run continues where it stopped.

Everything that the next update depends on but the environment and the replay buffer: networks, topology, optimizers,
counters, every generator.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.save_util import recursive_getattr

from sparserl.agents.parts import AgentParts
from sparserl.errors import CheckpointError, SparserlError
from sparserl.layers.fused_adam import check_slots, state_from_tree, state_tree
from sparserl.recording.finite import check_weights


def agent_state(agent: AgentParts) -> dict[str, Any]:
    """A tree that `sparserl.recording.checkpoint` writes; take it between a gradient update and the next env step."""
    modules = {}
    module_names, tensor_names = agent._get_torch_save_params()
    for name in module_names:
        state = recursive_getattr(agent, name).state_dict()
        modules[name] = state_tree(state) if "param_groups" in state else state
    return {
        "modules": modules,
        "tensors": {name: recursive_getattr(agent, name).detach() for name in tensor_names},
        "counters": {name: getattr(agent, name) for name in agent.counters},
        "episodes": list(agent.ep_info_buffer or ()),
        "successes": [float(success) for success in agent.ep_success_buffer or ()],
        "remembered": {name: getattr(agent, name) for name in (*agent.remembered, *agent.described_by)},
        "last_obs": agent._last_obs,
        "last_episode_starts": agent._last_episode_starts,
        "generators": generator_state(),
    }


def check_networks(agent: AgentParts) -> None:
    """Raises NotFiniteError if a weight of a network, or of what is learned beside them, is not finite."""
    _, tensor_names = agent._get_torch_save_params()
    check_weights(agent.num_timesteps, agent.policy.state_dict(), "policy.")
    check_weights(agent.num_timesteps, {name: recursive_getattr(agent, name) for name in tensor_names})


def restore_agent(agent: AgentParts, state: Mapping[str, Any]) -> None:
    """Puts a state of `agent_state` into an agent built from the same config.

    Raises:
        CheckpointError: If the networks, optimizers or topology do not fit.
    """
    module_names, tensor_names = agent._get_torch_save_params()
    restore_modules(agent, state["modules"], module_names)
    for name in tensor_names:
        if name not in state["tensors"]:
            raise CheckpointError(f"the checkpoint holds no {name!r}; it belongs to another algorithm")
        recursive_getattr(agent, name).data.copy_(state["tensors"][name])  # the optimizer holds this very tensor
    for name, value in state["counters"].items():
        setattr(agent, name, value)
    agent.ep_info_buffer = deque(state["episodes"], maxlen=agent._stats_window_size)
    agent.ep_success_buffer = deque(state["successes"], maxlen=agent._stats_window_size)
    for name in (*agent.remembered, *agent.described_by):
        setattr(agent, name, state["remembered"][name])
    agent._last_obs = _numpy(state["last_obs"])
    agent._last_episode_starts = _numpy(state["last_episode_starts"])
    restore_generators(state["generators"])


def restore_modules(agent: AgentParts, modules: Mapping[str, Any], names: list[str]) -> None:
    """Loads networks, optimizers and the topology clock by name.

    Raises:
        CheckpointError: If one is missing or does not fit.
    """
    for name in names:
        if name not in modules:
            raise CheckpointError(f"the checkpoint holds no {name!r}; it belongs to another algorithm")
        state = modules[name]
        try:
            part = recursive_getattr(agent, name)
            part.load_state_dict(state_from_tree(state) if "param_groups" in state else state)
            if isinstance(part, torch.optim.Optimizer):
                check_slots(part)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, SparserlError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"the checkpoint's {name!r} does not fit this agent: {first_line}") from None


def generator_state() -> dict[str, Any]:
    """State of the global generators that Stable-Baselines3 draws from: torch, NumPy, Python."""
    algorithm, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "numpy": {
            "algorithm": algorithm,
            "keys": np.asarray(keys).astype(np.int64),
            "position": position,
            "has_gauss": has_gauss,
            "cached": cached,
        },
        "python": random.getstate(),
    }


def restore_generators(state: Mapping[str, Any]) -> None:
    """Continues the global generators."""
    torch.set_rng_state(state["torch"])
    numpy = state["numpy"]
    keys = np.asarray(numpy["keys"]).astype(np.uint32)
    np.random.set_state((numpy["algorithm"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def _numpy(array: torch.Tensor | np.ndarray | None) -> np.ndarray | None:
    return array.numpy() if isinstance(array, torch.Tensor) else array
