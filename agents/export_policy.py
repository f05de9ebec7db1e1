"""The deterministic policy of an agent as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecTransposeImage, is_vecenv_wrapped
from torch import nn

from sparserl.agents.networks.chains import chains_of, reads_images, reads_observations_as_they_are
from sparserl.agents.parts import AgentParts
from sparserl.errors import ConfigError
from sparserl.export import ExportedPolicy, PolicyConvolution, PolicyImages, PolicyLayer
from sparserl.layers import SparseMLP
from sparserl.layers.convolution import SparseConv


def exported_policy(agent: AgentParts, about: Mapping[str, str], network: SparseMLP | None = None) -> ExportedPolicy:
    """What an agent does without exploration, on the observations that it reads.

    Args:
        agent: Of `AGENTS`; its observations are vectors or images.
        about: What to say of it in the file.
        network: Answers instead of the actor's own, e.g. for one task; reads the first features of observations.

    Raises:
        ConfigError: If its actor or its actions are of another kind, or it reads something made of observations.
    """
    actor: Any = agent.acting
    space: Any = agent.action_space
    if not isinstance(agent.action_space, spaces.Box | spaces.Discrete):
        raise ConfigError(f"a policy is exported for Box or Discrete actions, not for {space}")
    images = None if reads_observations_as_they_are(actor) else _images_of(agent)
    if network is None:
        [network] = chains_of(actor).values()
    network, parts = network.plain, _layers_of(network.plain, space)
    continuous = isinstance(space, spaces.Box)
    low, high = [bound.astype(np.float32).ravel() for bound in (space.low, space.high)] if continuous else (None, None)
    hidden = [name for name in network.activations[:-1] if name != "identity"]
    activation, clips = hidden[0] if hidden else "relu", not agent.policy.squash_output
    return ExportedPolicy(parts, activation, low, high, dict(about), clips, images)


def acting_layers(agent: AgentParts) -> list[PolicyLayer]:
    """The layers of what acts, those that make features of images first; whatever kind the actions are of.

    Raises:
        ConfigError: If it is of another kind than that of `exported_policy`.
    """
    images = None if reads_observations_as_they_are(agent.acting) else _images_of(agent)
    [network] = chains_of(agent.acting).values()
    return [*([] if images is None else images.layers.values()), *_layers_of(network.plain, agent.action_space)]


def _layers_of(network: SparseMLP, space: Any) -> list[PolicyLayer]:
    """Of a network, up to what a mode is made of: of a Gaussian policy the means come first."""
    ends = [None] * (len(network) - 1) + [int(np.prod(space.shape)) if isinstance(space, spaces.Box) else None]
    nothing = [None] * len(network)
    norms, afters = network.norms or nothing, network.after or nothing
    return [
        PolicyLayer.of(layer, outputs).within(norm, after)
        for layer, outputs, norm, after in zip(network, ends, norms, afters, strict=True)
    ]


def _images_of(agent: AgentParts) -> PolicyImages:
    """How the actor makes features of images.

    Raises:
        ConfigError: If it does not, or not by Stable-Baselines3's `NatureCNN` or our sparse one.
    """
    actor: Any = agent.acting
    extractor, space = actor.features_extractor, agent.observation_space
    if not reads_images(actor):
        name = type(extractor).__name__
        raise ConfigError(f"a policy that reads vectors or images can be exported, not one of {space} through {name}")
    convolutions = [PolicyConvolution.of(one) for one in extractor.cnn if isinstance(one, nn.Conv2d | SparseConv)]
    channels, rows, columns = space.shape  # type: ignore[misc]  # of images
    env = agent.get_env()
    last = env is not None and is_vecenv_wrapped(env, VecTransposeImage)
    shape = (rows, columns, channels) if last else (channels, rows, columns)
    return PolicyImages(shape, last, convolutions, PolicyLayer.of(extractor.linear[0]))
