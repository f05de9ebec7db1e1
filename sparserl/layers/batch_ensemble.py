"""Normalised networks side by side, by the statistics of a batch, in one kernel call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sparserl.kernels import chain
from sparserl.layers.activations import READINGS
from sparserl.layers.fused import FusedLayers
from sparserl.layers.normalised_mlp import NormalisedMLP
from sparserl.layers.sparse_mlp import IN_ONE_CALL, join_as_one


class BatchEnsemble:
    """Networks of equal architecture that read the same input, each `NormalisedMLP.by_batch`; for passes that train.

    Args:
        networks: One or more.

    Attributes:
        output_activation: Name of what follows the last layer.
    """

    def __init__(self, networks: Sequence[NormalisedMLP]):
        self.networks = list(networks)
        self.output_activation = networks[0].activations[-1]
        self._cut: tuple[list[nn.Module], FusedLayers | None] = ([], None)

    def refresh(self) -> None:
        """Tells the normalisations that a batch comes; called before each pass."""
        for network in self.networks:
            for norm in network.norms:
                norm.begin_batch()

    @property
    def joined(self) -> FusedLayers | None:
        """All layers, if they run in one call; wide dense ones do not, nor do activations but ReLU and tanh."""
        layers: list[Any] = [layer for network in self.networks for layer in network]
        if layers != self._cut[0]:
            between = self.networks[0].activations[:-1]
            alike = all(network.activations[:-1] == between for network in self.networks)
            alike &= set(between) <= set(IN_ONE_CALL.values()) and join_as_one(layers)
            chains: list[list[Any]] = [list(network) for network in self.networks]
            norms, reading = [network.norms for network in self.networks], READINGS[self.networks[0].output_reading]
            self._cut = layers, FusedLayers(chains, reading, norms=norms, after=chain(between)) if alike else None
        return self._cut[1]
