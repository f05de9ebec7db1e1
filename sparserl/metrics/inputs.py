"""How much a network depends on each of its inputs: by its connections, its weights, or its derivatives.

Decides what is measured of a trained network as it is. Independent of what the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.linear import linear
from sparserl.topology.structure import Flags, Slots

Floats = npt.NDArray[np.float64]
SAMPLES_AT_A_TIME = 1024
"""Samples of a pass, at most."""
MEASURES = ("attribution", "strength", "degree")
"""Of an input, the one that says most first."""


@dataclass(frozen=True)
class InputUse:
    """How much something depends on each of its inputs.

    Attributes:
        network: What it is, e.g. `actor`.
        names: (n_in,) of the inputs.
        attribution: (n_in,) as `input_attribution`.
        strength: (n_in,) as `input_strength`; of pictures that convolutions read, summed over all places of a kernel.
        degree: (n_in,) as `input_degree`, likewise.
        image: Channels, height and width, where the first inputs are the pixels of an image in this order.
    """

    network: str
    names: Sequence[str]
    attribution: Floats
    strength: Floats
    degree: Floats
    image: tuple[int, int, int] | None = None

    def picture(self, measure: str) -> Floats:
        """(channels, height, width) a measure of the pixels of an image.

        Args:
            measure: In `MEASURES`.
        """
        assert self.image is not None
        channels, height, width = self.image
        pixels: Floats = getattr(self, measure)[: channels * height * width].reshape(self.image)
        return pixels

    @property
    def order(self) -> Slots:
        """(n_in,) inputs by attribution, the most used first; among equals the earlier one."""
        order: Slots = np.argsort(-self.attribution, kind="stable")
        return order

    @property
    def agreement(self) -> float:
        """Spearman's rank correlation of attribution and strength, in [-1, 1]; NaN where one of them is constant."""
        if min(np.ptp(self.attribution), np.ptp(self.strength)) == 0.0:
            return float("nan")
        return float(spearmanr(self.attribution, self.strength).statistic)

    def share(self, chosen: Flags) -> float:
        """Share of the attribution that some inputs have, in [0, 1]; NaN where there is none.

        Args:
            chosen: (n_in,) which.
        """
        total = float(self.attribution.sum())
        return float(self.attribution[chosen].sum()) / total if total > 0.0 else float("nan")


def input_use(
    network: str,
    names: Sequence[str],
    chains: Sequence[SparseMLP],
    x: torch.Tensor,
    outputs: Callable[[torch.Tensor], torch.Tensor] = lambda y: y,
) -> InputUse:
    """All measures of networks that read the same inputs, as means over the networks.

    Args:
        network: What they are.
        names: (n_in,) of their inputs.
        chains: At least one.
        x: (B, n_in) samples.
        outputs: Makes of a network's outputs what is differentiated.

    Raises:
        ConfigError: If there is no sample.
    """
    return InputUse(
        network,
        names,
        np.mean([input_attribution(lambda x, chain=chain: outputs(chain(x)), x) for chain in chains], axis=0),  # type: ignore[misc]  # bound at once
        np.mean([_at_all_places(chain, input_strength(chain[0]), x.shape[1]) for chain in chains], axis=0),
        np.mean([_at_all_places(chain, input_degree(chain[0]), x.shape[1]) for chain in chains], axis=0),
    )


def _at_all_places(chain: SparseMLP, of_layer: Floats, n_in: int) -> Floats:
    """(n_in,) of the inputs of a network, given that of the inputs of its first layer: the sum over all places of it.

    That is the derivative of what the first layer reads, all places together, in that direction.
    """
    if any(chain.norms):  # which reads each input once, and is not to be weighed by how that is normalised
        return of_layer
    x = torch.zeros(1, n_in, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        read = chain.read_by(0, x) @ torch.from_numpy(of_layer)
    (found,) = torch.autograd.grad(read.sum(), x)
    summed: Floats = found[0].numpy()
    return summed


def input_degree(layer: nn.Module) -> Floats:
    """(n_in,) connections out of each input of a linear layer.

    Args:
        layer: Sparse or dense.

    Raises:
        ConfigError: If it is no linear layer.
    """
    view = linear(layer).in_use
    if view.index is None:
        n_out, n_in = view.shape
        return np.full(n_in, float(n_out))
    return np.bincount(view.index.col, minlength=view.shape[1]).astype(np.float64)


def input_strength(layer: nn.Module) -> Floats:
    """(n_in,) sum of the |weights| out of each input of a linear layer; 0 of one without connections.

    Args:
        layer: Sparse or dense.

    Raises:
        ConfigError: If it is no linear layer.

    Source:
        Atashgahi et al. 2022 (QuickSelection), neuron strength.
    """
    view = linear(layer).in_use
    magnitudes = view.weights.detach().abs().double().numpy()
    if view.index is None:
        strength: Floats = magnitudes.sum(axis=0)
        return strength
    return np.bincount(view.index.col, magnitudes, minlength=view.shape[1]).astype(np.float64)


def input_attribution(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Floats:
    """(n_in,) mean over samples of |d output / d input|, summed over outputs; one backward pass for each output.

    Args:
        network: (B, n_in) to (B, n_out), each sample by itself; differentiated as it is now. Its parameters keep the
            gradients that they have.
        x: (B, n_in) samples, B >= 1.

    Raises:
        ConfigError: If there is no sample.

    Source:
        Atashgahi et al. 2024 (ECAI; SET-Attr), attribution of an input; there it is summed over training, here it is
        of one moment.
    """
    if len(x) == 0:
        raise ConfigError("attribution needs at least one sample, got none")
    total = np.zeros(x.shape[1])
    for samples in torch.split(x.detach(), SAMPLES_AT_A_TIME):
        inputs = samples.requires_grad_()
        with torch.enable_grad():
            outputs = network(inputs)
            for output in range(outputs.shape[1]):
                more = output + 1 < outputs.shape[1]
                (gradient,) = torch.autograd.grad(outputs[:, output].sum(), inputs, retain_graph=more)
                total += gradient.abs().double().sum(dim=0).numpy()
    return total / len(x)
