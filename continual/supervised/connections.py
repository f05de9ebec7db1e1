"""The connections of a classifier that learns tasks: those that it begins with, and the clock that moves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from sparserl.continual.shared.task_network import TaskNetwork
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner_config import ClassifierConfig
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.activations import HiddenUnits
from sparserl.layers.convolution import convolution_shapes
from sparserl.layers.linear import biases_of
from sparserl.layers.one_shot import JudgingBatch
from sparserl.layers.sparse_cnn import ImageShape, SparseCNN, cnn_shapes
from sparserl.topology.config import TopologyConfig
from sparserl.topology.config_options import OWN_DENSITIES
from sparserl.topology.density import Shape
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import SparseTopology

DENSE = TopologyConfig(method="dense")
NOT_HERE = {
    **dict.fromkeys(OWN_DENSITIES, "agents: a classifier has neither actor nor critic"),
    "target": "agents: a classifier has no target networks",
    "budget_scope": "agents: a classifier is one network",
    **dict.fromkeys(
        ("recycle_interval", "recycle_threshold", "recycle_by"), "`sparserl train`: neurons serve earlier tasks as well"
    ),
}
"""Fields of a `TopologyConfig` that a classifier does not have, and what they are for."""


def check_topology(topology: TopologyConfig, strategy: Strategy) -> None:
    """Raises ConfigError if a classifier cannot have a topology, or not under a method."""
    for field in fields(topology):
        if field.name in NOT_HERE and getattr(topology, field.name) != field.default:
            raise ConfigError(f"--topology.{field.name.replace('_', '-')} is for {NOT_HERE[field.name]}")
    strategy.check_topology("classifier", topology)


def image_of(sequence: TaskSequence) -> ImageShape:
    """Channels, height and width of the samples.

    Raises:
        ConfigError: If they are no pictures.
    """
    if sequence.image is None:
        raise ConfigError(
            f"learner.convolutions read pictures, and samples of {sequence.name} are rows of numbers: leave it out"
        )
    return sequence.image


def layer_shapes(config: ClassifierConfig, sequence: TaskSequence, outputs: Sequence[int]) -> list[Shape]:
    """(outputs, inputs) of each layer of the network of a classifier.

    Args:
        config: Of the network.
        sequence: What it reads.
        outputs: Neurons of the layers behind the hidden ones.

    Raises:
        ConfigError: If it has convolutions, and samples are no pictures or too small.
    """
    sizes = [*config.hidden, *outputs]
    if config.convolutions:
        return cnn_shapes(image_of(sequence), config.convolution_layers, sizes)
    return list(zip(sizes, [sequence.n_features, *sizes], strict=False))


def patch_bytes(config: ClassifierConfig, sequence: TaskSequence) -> float:
    """What the patches of a batch that convolutions multiply take, copied and kept for the way back; estimated."""
    if not config.convolutions:
        return 0.0
    shapes = convolution_shapes(image_of(sequence), config.convolution_layers)
    return 2.0 * 4 * config.batch_size * sum(one.matrix[1] * one.n_places for one in shapes)


def random_network(
    config: ClassifierConfig,
    sequence: TaskSequence,
    sizes: Sequence[int],
    judging: JudgingBatch | None,
    **options: Any,
) -> SparseMLP:
    """A network of a classifier, with the connections that its topology begins with.

    Args:
        config: Says whether it has convolutions.
        sequence: What it reads.
        sizes: Features, and neurons of each layer behind convolutions.
        judging: As of `SparseMLP.random`.
        options: Those that `SparseMLP.random` and `SparseCNN.of_images` have in common.

    Raises:
        ConfigError: If it has convolutions, and samples are no pictures or too small.
        TopologyError: As these functions.
    """
    if convolutions := config.convolution_layers:
        return SparseCNN.of_images(image_of(sequence), convolutions, sizes[1:], **options)
    return SparseMLP.random(sizes, judging=judging, **options)


def without_connections(sizes: Sequence[int], units: HiddenUnits, seed: int) -> SparseMLP:
    """A network to which a method gives connections later; biases are 0.

    Args:
        sizes: Neurons of each layer, the input first.
        units: What follows hidden layers.
        seed: Root seed of dropout.
    """
    layers = [SparseLinear(SparseTopology(n_out, n_in, np.empty(0, np.int64))) for n_in, n_out in pairwise(sizes)]
    for layer in layers:
        nn.init.zeros_(biases_of(layer))
    return SparseMLP(layers, units, seed=seed)


def bound(topology: TopologyConfig, steps: int, epochs: int) -> TopologyConfig:
    """A topology for a network that learns for `steps` gradient steps; events are an epoch apart unless it says more.

    Args:
        topology: What is wished; its method has a rule.
        steps: Gradient steps in all, >= 1.
        epochs: That these are.

    Raises:
        TopologyError: If pruning would end before it begins, or after the last step.
    """
    if topology.update_interval is None:
        topology = replace(topology, update_interval=round(steps / epochs))
    return topology.for_run(steps)


def evolver_of(network: TaskNetwork, topology: TopologyConfig, seed: int) -> TopologyEvolver:
    """What moves the connections of a classifier, by the rule of its topology if that has one.

    Raises:
        ConfigError: If the rule would find no connection to drop for another.
    """
    layers = {name: layer for name, layer in network.shared.items() if isinstance(layer, SparseLinear)}
    goals = {f"{network.name}.{index}": goal for index, goal in network.network.goals.items()}
    rule = topology.rule()
    if rule is not None and all(_is_full(layer, goals.get(name)) for name, layer in layers.items()):
        method = topology.method
        raise ConfigError(f"--topology.method {method} moves connections, and all exist: lower --topology.density")
    new_value = topology.part("new_value")
    return TopologyEvolver({network.group: layers}, rule, seed=seed, new_value=new_value, goals=goals)


def _is_full(layer: SparseLinear, goal: int | None) -> bool:
    """Whether a layer has all connections in the end, and passes use them."""
    topology = layer.topology
    return topology.used is None and (topology.nnz if goal is None else goal) == topology.size
