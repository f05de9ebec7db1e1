"""The deterministic policy of an agent as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import Actor as DenseSACActor
from stable_baselines3.td3.policies import Actor as DenseTD3Actor
from torch import nn

from sparserl.agents.networks.networks import ACTIVATION_NAMES, SparseActor
from sparserl.agents.parts import AgentParts
from sparserl.errors import ConfigError, unknown_name
from sparserl.export import ExportedPolicy, PolicyLayer
from sparserl.layers import SparseMLP


def _sparse(actor: Any) -> tuple[list[nn.Module], str]:
    return _of_sparse_mlp(actor.network)


def _of_sparse_mlp(network: Any) -> tuple[list[nn.Module], str]:
    if not isinstance(network, SparseMLP):
        raise ConfigError("a policy with an output layer for each task cannot be exported as one")
    return list(network), network.activations[0]


def _dense_td3(actor: Any) -> tuple[list[nn.Module], str]:
    return _of_sequential([*actor.mu])


def _dense_sac(actor: Any) -> tuple[list[nn.Module], str]:
    return _of_sequential([*actor.latent_pi, actor.mu])


def _of_sequential(modules: list[nn.Module]) -> tuple[list[nn.Module], str]:
    layers: list[nn.Module] = [module for module in modules if isinstance(module, nn.Linear)]
    # TD3's last module is a tanh; without hidden layers there is no other, or none at all.
    activation = next((module for module in modules if not isinstance(module, nn.Linear)), nn.ReLU())
    if type(activation) not in ACTIVATION_NAMES:
        raise ConfigError(unknown_name("activation to export", type(activation).__name__, ACTIVATION_NAMES.values()))
    return layers, ACTIVATION_NAMES[type(activation)]


LAYERS_OF: dict[type[nn.Module], Callable[[Any], tuple[list[nn.Module], str]]] = {
    SparseActor: _sparse,
    DenseTD3Actor: _dense_td3,
    DenseSACActor: _dense_sac,
}
"""Kind of actor -> its linear layers, of which the last may give more than actions, and its hidden activation."""


def _as_they_are(actor: Any) -> bool:
    """Whether a network reads the entries of observations: of others it reads codes, of images shares of 255."""
    space = actor.observation_space
    return isinstance(space, spaces.Box) and not (actor.normalize_images and is_image_space(space))


def exported_policy(agent: AgentParts, about: Mapping[str, str], network: SparseMLP | None = None) -> ExportedPolicy:
    """What an agent does without exploration, on the observations that it reads.

    Args:
        agent: Of `AGENTS`; its observations are vectors.
        about: What to say of it in the file.
        network: Answers instead of the actor's own, e.g. for one task; reads the first features of observations.

    Raises:
        ConfigError: If its actor is of another kind, or reads something made of observations.
    """
    actor: Any = agent.acting
    space = agent.action_space
    if not isinstance(space, spaces.Box):
        raise ConfigError(f"a policy is exported for Box actions, not for {space}")
    kind = next((kind for kind in LAYERS_OF if isinstance(actor, kind)), None)
    if kind is None:
        raise ConfigError(f"a {type(actor).__name__} cannot be exported")
    if type(actor.features_extractor) is not FlattenExtractor or not _as_they_are(actor):
        extractor, observations = type(actor.features_extractor).__name__, agent.observation_space
        raise ConfigError(f"a policy that reads vectors can be exported, not {observations} through {extractor}")
    layers, activation = LAYERS_OF[kind](actor) if network is None else _of_sparse_mlp(network)
    # Of a Gaussian policy the means come first.
    ends = [None] * (len(layers) - 1) + [int(np.prod(space.shape))]
    parts = [PolicyLayer.of(layer, outputs) for layer, outputs in zip(layers, ends, strict=True)]
    low, high = (bound.astype(np.float32).ravel() for bound in (space.low, space.high))
    return ExportedPolicy(parts, activation, low, high, dict(about))
