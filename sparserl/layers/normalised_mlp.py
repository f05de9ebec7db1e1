"""Multilayer perceptrons whose every layer reads features that were normalised over a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from sparserl.kernels.flops import counting
from sparserl.layers.activations import READINGS, Function
from sparserl.layers.batch_renorm import BatchNormOptions, BatchRenorm
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.layers.sparse_mlp import SparseEnsemble, SparseMLP


class NormalisedMLP(SparseMLP):
    """A network with a `BatchRenorm` before each layer, which is the layer's child `before`.

    In use a normalisation is a factor and a summand of each feature, so the layer that reads them can take both up: the
    `folded` network has no normalisation, runs in one kernel call, and gives the same up to rounding.

    Args:
        layers: As of `SparseMLP`; those that have a `before` keep it.
        options: Numbers of the normalisations.
        activation: Name in `PLAIN` of the hidden one.
        output_activation: As of `SparseMLP`.

    Source:
        Bhatt et al. 2024, CrossQ; normalised before each layer as in sb3-contrib.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        options: BatchNormOptions | None = None,
        activation: str = "relu",
        output_activation: str = "identity",
    ):
        super().__init__(layers, activation, output_activation)
        for layer in layers:
            if not hasattr(layer, "before"):
                layer.before = BatchRenorm(linear(layer).shape[1], options)
        # In a list: as children they would be layers of the agent.
        self._folded: list[SparseMLP] = []

    @classmethod
    def of(cls, network: SparseMLP, options: BatchNormOptions) -> NormalisedMLP:
        """A network of the same layers with a normalisation before each.

        Args:
            network: Its activations are those of `PLAIN`.
            options: Numbers of the normalisations.
        """
        made = cls(list(network), options, *_between(network))
        made.goals = network.goals
        return made

    @property
    def norms(self) -> list[BatchRenorm]:
        """What stands before each layer."""
        return [layer.before for layer in self]  # type: ignore[misc]

    def _chain_of(self, layers: Sequence[nn.Module]) -> NormalisedMLP:
        for layer, norm in zip(layers, self.norms, strict=True):
            layer.before = norm
        return NormalisedMLP(layers, output_activation=self.activations[-1])

    def read_by(self, index: int, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norms[index](x)
        return y

    @property
    def one_call(self) -> None:
        return None

    def _cut_from(self, first: int) -> list[tuple[FusedLayers | nn.Linear, Function]]:
        readings = [*self.functions[:-1], READINGS[self.output_reading]]
        return [
            (FusedLayers([[layer]], reading) if linear(layer).is_sparse else layer, function)  # type: ignore[list-item,misc]  # the dense ones are `nn.Linear`
            for layer, function, reading in list(zip(self, self.functions, readings, strict=True))[first:]
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out) by the running statistics."""
        return self._run(x, [norm.forward for norm in self.norms])

    def by_batch(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out) by the statistics of this batch at each layer.

        Raises:
            ConfigError: If it has a single sample.
        """
        return self._run(x, [norm.by_batch for norm in self.norms])

    def _run(self, x: torch.Tensor, normalise: Sequence[Function]) -> torch.Tensor:
        for (part, function), normalised in zip(self.parts, normalise, strict=True):
            y = part(normalised(x))
            x = function(y[0] if isinstance(part, FusedLayers) else y)
        return x

    def follow_batch(self) -> None:
        """Moves the running statistics toward those of the latest pass by a batch."""
        for norm in self.norms:
            norm.follow_batch()

    @property
    def plain(self) -> SparseMLP:
        return SparseMLP([_folded(layer) for layer in self], *_between(self))

    def folded(self) -> SparseMLP:
        """`plain`, brought up to date; the same object each time."""
        if not self._folded:
            self._folded.append(self.plain)
            return self._folded[0]
        [network] = self._folded
        for number, layer in enumerate(self):
            if linear(layer).index is linear(network[number]).index:
                _fold(layer, network[number])
            else:  # after a topology event
                network[number] = _folded(layer)
        return network

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_folded": []}


def _between(network: SparseMLP) -> tuple[str, str]:
    """Names of the hidden and of the last activation."""
    return (network.activations[0] if len(network) > 1 else "relu"), network.activations[-1]


class FoldedEnsemble(SparseEnsemble):
    """Networks that are normalised, by their running statistics, in one kernel call where that is possible.

    Args:
        networks: One or more, of equal architecture, that read the same input.
    """

    def __init__(self, networks: Sequence[NormalisedMLP]):
        self._normalised = list(networks)
        super().__init__([network.folded() for network in networks])

    def refresh(self) -> None:
        self.networks = [network.folded() for network in self._normalised]


def ensemble_of(networks: Sequence[SparseMLP]) -> SparseEnsemble:
    """What runs networks of one kind together, normalised ones by their running statistics."""
    normalised = [network for network in networks if isinstance(network, NormalisedMLP)]
    return FoldedEnsemble(normalised) if normalised else SparseEnsemble(networks)


@torch.no_grad()
def _folded(layer: Any) -> nn.Module:
    """A layer that does what a layer and the normalisation before it do in use; nothing is drawn."""
    weights = linear(layer).weights
    if isinstance(layer, SparseLinear):
        bias = nn.Parameter(torch.empty(layer.n_out, dtype=weights.dtype))
        folded: nn.Module = layer.with_weights(torch.empty_like(weights), bias)
    else:
        folded = skip_init(nn.Linear, layer.in_features, layer.out_features, dtype=weights.dtype)  # type: ignore[no-untyped-call]  # of torch
    _fold(layer, folded)
    return folded


@torch.no_grad()
def _fold(layer: Any, folded: Any) -> None:
    """Writes weights and biases into a layer of the same connections; as what optimizers do, this is not counted."""
    factor, summand = layer.before.in_use()
    if isinstance(layer, SparseLinear):
        factor = factor.index_select(0, layer.col)
    torch.mul(linear(layer).weights, factor, out=linear(folded).weights.data)
    with counting(None):
        folded.bias.copy_(layer(summand[None])[0])
