"""Which connections the networks of a trained run have."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any

import numpy as np
from torch import nn

from sparserl.agents.networks.chains import chains_of_agent
from sparserl.errors import ConfigError
from sparserl.experiment.opened_agent_run import TrainedAgent, TrainedSequence
from sparserl.experiment.opened_fit_run import TrainedFit
from sparserl.experiment.opened_run import OpenedRun, TrainedClassifier
from sparserl.layers.linear import linear
from sparserl.layers.residual import ResidualMLP
from sparserl.topology.structure import SparseTopology

Topologies = dict[str, list[SparseTopology]]
"""Network -> consecutive layers; a dense one has all its connections."""


@singledispatch
def topologies_of_run(opened: OpenedRun[Any]) -> Topologies:
    """The layers of each network of a run, by the network's full name; of several tasks those that all of them use.

    Raises:
        ConfigError: If its networks are no chains of layers, or have residual blocks: a sum keeps the neurons of all
            its terms in place, so none may be assigned to others.
    """
    raise ConfigError(f"a {type(opened).__name__} has no networks to compare")


@topologies_of_run.register(TrainedAgent)
def _of_agent(opened: TrainedAgent) -> Topologies:
    for name, module in opened.agent.policy.named_modules():
        if isinstance(module, ResidualMLP):
            raise ConfigError(
                f"{name} has residual blocks: topologies are compared of networks whose layers follow one another, "
                "agent.network mlp"
            )
    return {name: _of_layers(chain) for name, chain in chains_of_agent(opened.agent).items()}


@topologies_of_run.register(TrainedSequence)
@topologies_of_run.register(TrainedClassifier)
@topologies_of_run.register(TrainedFit)
def _of_learner(opened: TrainedSequence | TrainedClassifier | TrainedFit) -> Topologies:
    if not opened.learner.networks:
        raise ConfigError("no network was trained in this run")
    return {network.name: _of_layers(network.shared.values()) for network in opened.learner.networks}


def _of_layers(layers: Iterable[nn.Module]) -> list[SparseTopology]:
    views = [linear(layer).in_use for layer in layers]
    return [SparseTopology(*view.shape, view.flat(np.arange(view.weights.numel()))) for view in views]
