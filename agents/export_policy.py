"""The deterministic policy of an agent as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sparserl.agents.networks.chains import chains_of, reads_observations_as_they_are
from sparserl.agents.parts import AgentParts
from sparserl.errors import ConfigError
from sparserl.export import ExportedPolicy, PolicyLayer
from sparserl.layers import SparseMLP


def exported_policy(agent: AgentParts, about: Mapping[str, str], network: SparseMLP | None = None) -> ExportedPolicy:
    """What an agent does without exploration, on the observations that it reads.

    Args:
        agent: Of `AGENTS`; its observations are vectors.
        about: What to say of it in the file.
        network: Answers instead of the actor's own, e.g. for one task; reads the first features of observations.

    Raises:
        ConfigError: If its actor or its actions are of another kind, or it reads something made of observations.
    """
    actor: Any = agent.acting
    space: Any = agent.action_space
    if not isinstance(agent.action_space, spaces.Box | spaces.Discrete):
        raise ConfigError(f"a policy is exported for Box or Discrete actions, not for {space}")
    if not reads_observations_as_they_are(actor):
        extractor, observations = type(actor.features_extractor).__name__, agent.observation_space
        raise ConfigError(f"a policy that reads vectors can be exported, not {observations} through {extractor}")
    if network is None:
        [network] = chains_of(actor).values()
    continuous = isinstance(space, spaces.Box)
    # Of a Gaussian policy the means come first.
    ends = [None] * (len(network) - 1) + [int(np.prod(space.shape)) if continuous else None]
    parts = [PolicyLayer.of(layer, outputs) for layer, outputs in zip(network, ends, strict=True)]
    low, high = [bound.astype(np.float32).ravel() for bound in (space.low, space.high)] if continuous else (None, None)
    activation, clips = network.activations[0] if len(network) > 1 else "relu", not agent.policy.squash_output
    return ExportedPolicy(parts, activation, low, high, dict(about), clips)
