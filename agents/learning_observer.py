"""What learning does to the networks of an agent: their features, how many neurons answer, gradients and weights.

All of it follows from one probe of the agent, whatever it is and whatever its networks are made of. Draws from no
generator of the agent and puts back what it touches, so that watching changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sparserl.agents.networks.chains import chains_of
from sparserl.agents.parts import AgentParts
from sparserl.agents.probe import gradients_on
from sparserl.layers import SparseMLP
from sparserl.layers.activity import hidden_activations, mean_activity
from sparserl.metrics.features import condition, stable_rank
from sparserl.topology.config import TopologyConfig
from sparserl.topology.dormant import dormancy_scores, dormant

When = Literal["evaluations", "events", "never"]
"""At each evaluation; after each topology event, at the next boundary between updates; not at all."""
OF_FEATURES, OF_PARAMETERS = ("stable_rank", "condition", "dormant"), ("gradient_norm", "weight_norm")
MEASURES = (*OF_FEATURES, *OF_PARAMETERS)
LEARNING_COLUMNS = ("global_step", "network", *MEASURES)
"""Of learning.csv: a row for each trained network, each time."""
DORMANT_AT = TopologyConfig().recycle_threshold
"""Dormancy score at or below which a neuron is dormant, whatever an agent recycles: runs are to be comparable."""


class LearningObserver:
    """Measures the trained networks of an agent whenever it is asked.

    Args:
        agent: The agent.
    """

    def __init__(self, agent: AgentParts):
        self._agent: Any = agent

    def measures(self) -> dict[str, dict[str, float]]:
        """Of each trained network (`AgentParts.trained`) those of `MEASURES` that are known.

        `weight_norm` is always known; what features tell, where the agent has a probe; `gradient_norm`, where losses
        can be formed again on it. Of the networks of an ensemble, features are means over them.
        """
        agent, probe = self._agent, self._agent.probe()
        has_gradients = probe is not None and probe.form_gradients is not None
        layers = {} if agent.evolver is None else agent.evolver.layers
        found: dict[str, dict[str, float]] = {}
        with gradients_on(probe, agent.networks, layers) if has_gradients else nullcontext():
            for name, network in agent.networks.items():
                found[name] = {} if probe is None else of_features(_chains(network), probe.inputs[name])
                if has_gradients:
                    found[name]["gradient_norm"] = _norm(one.grad for one in network.parameters())
                found[name]["weight_norm"] = _norm(network.parameters())
        return found


def of_features(chains: Iterable[SparseMLP], inputs: torch.Tensor) -> dict[str, float]:
    """Stable rank, condition and share of dormant neurons of networks that read the same; means over them.

    Args:
        chains: Networks with hidden layers; others do not count.
        inputs: (B, n_in).

    Returns:
        Of `OF_FEATURES` what is defined of any of the networks.
    """
    alone = [dict(zip(OF_FEATURES, _of_chain(chain, inputs), strict=True)) for chain in chains if len(chain) > 1]
    values = {name: [one[name] for one in alone if np.isfinite(one[name])] for name in OF_FEATURES}
    return {name: float(np.mean(defined)) for name, defined in values.items() if defined}


def _of_chain(chain: SparseMLP, inputs: torch.Tensor) -> tuple[float, float, float]:
    """Of what its output layer reads, stable rank and condition; of all hidden neurons, the share that is dormant."""
    flags, last = [], inputs
    for layer, last in zip(chain, hidden_activations(chain, inputs), strict=False):
        flags.append(dormant(dormancy_scores(mean_activity(layer, last)), DORMANT_AT))
    with chain.in_use(), torch.no_grad():
        features = chain.read_by(len(chain) - 1, last).flatten(1).numpy()  # normalised where it normalises
    return stable_rank(features), condition(features), float(np.concatenate(flags).mean())


def _chains(network: nn.Module) -> list[SparseMLP]:
    """The networks that read a probe: those of a sparse agent as they are, of a dense one with the same weights."""
    return list(_outermost(network)) or list(chains_of(network).values())


def _outermost(module: nn.Module) -> Iterator[SparseMLP]:
    if isinstance(module, SparseMLP):
        yield module
    else:
        for part in module.children():
            yield from _outermost(part)


def _norm(tensors: Iterable[torch.Tensor | None]) -> float:
    """2-norm of all of them together; what is None is 0."""
    squares = [tensor.detach().double().square().sum().item() for tensor in tensors if tensor is not None]
    return float(np.sqrt(np.sum(squares)))
