"""Networks of residual blocks with layer normalisation, as SimBa has them, on truly sparse layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.kernels import After
from sparserl.layers.activations import PLAIN, READINGS, Function, identity
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear
from sparserl.layers.norms import RunningNorm
from sparserl.layers.sparse_mlp import SparseMLP, begun, goals_of, join_as_one
from sparserl.topology.config import TopologyConfig
from sparserl.topology.one_shot import ONE_SHOT

EXPANSION = 4
"""Hidden neurons of a block for each of its inputs."""
EPSILON = 1e-6
"""Added to variances, as in Flax, in which SimBa's code is written."""


class ResidualMLP(SparseMLP):
    """A linear embedding, blocks `x + W2 relu(W1 norm(x))`, and a linear head behind a last norm.

    A list of its layers: the embedding, two of each block, the head. Biases and norms are dense. All of it runs in one
    kernel call, or layer by layer where a large layer is dense.

    Args:
        layers: `SparseLinear` or `nn.Linear`, in order, an even number of them and at least 4.
        output_activation: Name in `PLAIN`.
        running: Normalises what the embedding reads, or None.
        norms: `nn.LayerNorm`s before the blocks and the head; made anew if None.

    Source:
        Lee et al. 2024 (SimBa, arXiv 2410.09754), section 4, and its code (SonyResearch/simba).

    Known differences from that code: initial values as in `random`.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        output_activation: str = "identity",
        *,
        running: RunningNorm | None = None,
        norms: Sequence[nn.LayerNorm] | None = None,
    ):
        if len(layers) % 2 or len(layers) < 4:
            raise TopologyError(f"residual blocks need an even number of layers, at least 4, got {len(layers)}")
        super().__init__(layers, "relu", output_activation)
        depth = len(layers)
        # Inside a block a ReLU follows the first layer; the second one is added to what the block read.
        names = ["relu" if i % 2 == 1 and i + 1 < depth else "identity" for i in range(depth)]
        self.after = [After(name, i - 1 if i % 2 == 0 and i else None) for i, name in enumerate(names)]
        self.activations = [*names[:-1], output_activation]
        self._follow([PLAIN[name] for name in self.activations])
        if norms is None:
            norms = [nn.LayerNorm(linear(layer).shape[1], EPSILON) for layer in layers[1::2]]
        if running is not None:
            self[0].before = running
        for layer, norm in zip(layers[1::2], norms, strict=True):
            layer.before = norm

    def _chain_of(self, layers: Sequence[nn.Module]) -> ResidualMLP:
        return ResidualMLP(layers, self.activations[-1], running=self.norms[0], norms=self.norms[1::2])

    @classmethod
    def blocks(
        cls,
        n_in: int,
        width: int,
        blocks: int,
        n_out: int,
        *,
        topology: TopologyConfig,
        seed: int,
        name: str,
        output_activation: str = "identity",
        running: RunningNorm | None = None,
    ) -> ResidualMLP:
        """A network with random topologies of exact size; a layer of density 1 is an ordinary `nn.Linear`.

        Weights are those of SimBa that exist: in blocks normal with variance 2 / n_in, of a dense embedding or head
        orthogonal, of a sparse one normal with the variance that an orthogonal matrix has; all biases are 0. Where
        `topology.initial_value` is another than `dense_fan_in`, that says the weights of sparse layers.

        Args:
            n_in: Inputs.
            width: Neurons between blocks, >= 1.
            blocks: At least 1.
            n_out: Outputs.
            topology: Says how layers begin.
            seed: Root seed of the topologies; weights are drawn from torch's global generator.
            name: Of the network; layer l is `name.l`.
            output_activation: Name in `PLAIN`.
            running: Normalises the inputs, or None.

        Raises:
            TopologyError: As `TopologyConfig.densities` and `TopologyConfig.initial`, or if connections are to be
                chosen by scores.
        """
        if topology.part("initial_topology") in ONE_SHOT and not topology.base.dense:
            kind = topology.part("initial_topology")
            raise TopologyError(f"topology.initial_topology {kind} is for networks without residual blocks; use random")
        widths = block_widths(n_in, width, blocks, n_out)
        shapes = [(n_after, n_before) for n_before, n_after in pairwise(widths)]
        begins = list(zip(shapes, topology.densities(shapes), topology.densities_at_first(shapes), strict=True))
        layers = [begun(topology, *begin, seed, f"{name}.{index}") for index, begin in enumerate(begins)]
        for index, layer in enumerate(layers):
            _draw(layer, in_block=0 < index < len(layers) - 1, given=topology.part("initial_value") != "dense_fan_in")
        network = cls(layers, output_activation, running=running)
        network.goals = goals_of(topology, begins)
        return network

    def read_by(self, index: int, x: torch.Tensor) -> torch.Tensor:
        norm = self.norms[index]
        read: torch.Tensor = x if norm is None else norm(x)
        return read

    def levels(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        assert self.after is not None
        levels = [x]
        for index, (layer, after) in enumerate(zip(self, self.after, strict=True)):
            read = self.read_by(index, levels[-1])
            outputs = layer(read)
            sums = outputs if after.added is None else outputs + levels[after.added]
            levels.append(self.functions[index](sums))
            yield read, outputs, levels[-1]

    @property
    def parts(self) -> list[tuple[FusedLayers | nn.Linear, Function]]:
        """All of it where it runs in one call, else its layers, one by one."""
        if not self.is_unchanged():
            layers: list[Any] = list(self._modules.values())
            last = self.functions[-1]
            if join_as_one(layers):
                reading = READINGS[self.output_reading]
                whole = FusedLayers([layers], reading, norms=[self.norms], after=self.after)
                cut: list[tuple[Any, Function]] = [(whole, last)]
            else:
                alone = [layer.fused if linear(layer).is_sparse else layer for layer in layers]
                cut = [(part, identity) for part in alone]
            self._cut = list(self._modules.values()), cut
        return self._cut[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out)."""
        (part, function), *others = self.parts
        if not others and isinstance(part, FusedLayers):
            return function(part(x)[0])
        for _, _, level in self.levels(x):
            x = level
        return x


def block_widths(n_in: int, width: int, blocks: int, n_out: int) -> list[int]:
    """Neurons of each level of a network, the input first."""
    return [n_in, width, *[EXPANSION * width, width] * blocks, n_out]


@torch.no_grad()
def _draw(layer: nn.Module, *, in_block: bool, given: bool) -> None:
    """Draws weights as `ResidualMLP.blocks` says; `given` if those of a sparse layer stay as they are."""
    view = linear(layer)
    weights, (n_out, n_in) = view.weights, view.shape
    if view.bias is not None:
        view.bias.zero_()
    if view.is_sparse and given:
        return
    if in_block:
        weights.normal_(0.0, math.sqrt(2.0 / n_in))
    elif view.is_sparse:
        weights.normal_(0.0, math.sqrt(1.0 / max(n_out, n_in)))
    else:
        nn.init.orthogonal_(weights)
