"""What stands between two layers: an activation, winners, dropout.

Decides what hidden neurons give on, and how much of it in training. Independent of layers and connections.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sparserl.seeding import stream

Function = Callable[[torch.Tensor], torch.Tensor]
"""(B, n) to (B, n)."""
DUTY_PERIOD = 1000
"""Samples over which the share of samples that a neuron wins is averaged."""


@dataclass(frozen=True)
class HiddenUnits:
    """What stands after each hidden layer of a network.

    Attributes:
        activation: Name in `ACTIVATIONS`.
        slope: `all_relu` multiplies what is negative by -slope in the first, third, ... hidden layer, by slope in the
            others.
        winners: `k_winners` passes this share of a layer's neurons, in (0, 1], at least one.
        boost: How much `k_winners` prefers neurons that win seldom, >= 0.
        boost_decay: Multiplies `boost` after each epoch, in [0, 1].
        dropout: Share of activations that are 0 in training, in [0, 1).
        rescaled_dropout: Whether the others grow by 1 / (1 - dropout) in training; otherwise all shrink by 1 - dropout
            in use.
    """

    activation: str = "relu"
    slope: float = 0.6
    winners: float = 0.1
    boost: float = 1.0
    boost_decay: float = 0.9
    dropout: float = 0.0
    rescaled_dropout: bool = True


class KWinners(nn.Module):
    """Passes the k largest of n activations of each sample, the others are 0; half as many more in use.

    Neurons are chosen by `x * exp(-boost * duty)`, so that those which win seldom win more often; what passes is `x`.

    Args:
        n: Neurons.
        share: Of them that win, in (0, 1].
        boost: Strength at first, >= 0.
        decay: Of it an epoch, in [0, 1].

    Attributes:
        duty: (n,) share of the last samples in training that each neuron won, a running average.
        boost: Its present strength.

    Source:
        Ahmad and Scheinkman 2019, "How can we be so dense?", section 2, and its code (`nupic.torch`).

    Known differences from that code: a batch of more than 1000 samples replaces the average, which there becomes
    negative.
    """

    duty: torch.Tensor
    boost: torch.Tensor

    def __init__(self, n: int, share: float, boost: float, decay: float):
        super().__init__()
        self.k, self.k_in_use = (max(1, min(n, math.floor(share * more * n + 0.5))) for more in (1.0, 1.5))
        self.decay = decay
        self.register_buffer("duty", torch.zeros(n))
        self.register_buffer("boost", torch.tensor(float(boost)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) to (B, n)."""
        boosted = x.detach() * torch.exp(-self.boost * self.duty)
        winners = boosted.topk(self.k if self.training else self.k_in_use, dim=1, sorted=False).indices
        passes = torch.zeros_like(x, dtype=torch.bool).scatter_(1, winners, True)
        if self.training and torch.is_grad_enabled():
            period = max(DUTY_PERIOD, len(x))
            self.duty.mul_(period - len(x)).add_(passes.sum(dim=0)).div_(period)
        return x.where(passes, torch.zeros((), dtype=x.dtype))

    def end_epoch(self) -> None:
        """Lets the boost fall."""
        self.boost.mul_(self.decay)


class Dropout(nn.Module):
    """An activation, then torch's dropout with draws of its own: those of a pass follow from its number alone.

    Args:
        function: The activation.
        share: Of activations that are 0 in training, in (0, 1).
        seed: Of the draws.
        rescaled: As in `HiddenUnits`.

    Attributes:
        passes: Number of passes in training so far.
    """

    passes: torch.Tensor

    def __init__(self, function: Function, share: float, seed: int, *, rescaled: bool = True):
        super().__init__()
        self.function, self.share, self.seed = function, share, seed
        self.factor = 1.0 if rescaled else 1.0 - share
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n) to (B, n)."""
        y = self.function(x)
        if not self.training or not torch.is_grad_enabled():
            return y * self.factor
        draws = torch.Generator().manual_seed(self.seed + int(self.passes))
        self.passes += 1
        kept = torch.empty_like(y).bernoulli_(1.0 - self.share, generator=draws)
        return y * kept.mul_(self.factor / (1.0 - self.share))


def identity(x: torch.Tensor) -> torch.Tensor:
    """What it is given."""
    return x


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, dim=-1)


PLAIN: dict[str, Function] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": identity,
}
"""Activations that are the same function after every layer; those that may follow the last one."""
READINGS: dict[str, Function] = {**PLAIN, "softmax": _softmax}
"""What makes activations of the outputs of a network, where growth compares activations."""


def _plain(function: Function) -> Callable[[HiddenUnits, int, int], Function]:
    return lambda units, number, n: function


ACTIVATIONS: dict[str, Callable[[HiddenUnits, int, int], Function]] = {
    **{name: _plain(function) for name, function in PLAIN.items()},
    # Curci et al. 2021, "Truly sparse neural networks at scale", All-ReLU.
    "all_relu": lambda units, number, n: nn.LeakyReLU(-units.slope if number % 2 else units.slope),
    "k_winners": lambda units, number, n: KWinners(n, units.winners, units.boost, units.boost_decay),
}
"""(options, number of the layer from 1, its neurons) -> what follows a hidden layer; a module where it has a state."""


def functions(units: HiddenUnits, output_activation: str, widths: list[int], *, seed: int, name: str) -> list[Function]:
    """What follows each layer.

    Args:
        units: Of all layers but the last.
        output_activation: Name in `PLAIN` of what follows the last.
        widths: Outputs of each layer.
        seed: Root seed of dropout.
        name: Of the network, which has streams of its own.

    Raises:
        ValueError: If an activation has no such name.
    """
    for activation, known in ((units.activation, ACTIVATIONS), (output_activation, PLAIN)):
        if activation not in known:
            raise ValueError(f"activation must be one of {sorted(known)}, got {activation!r}")
    found: list[Function] = []
    for number, n in enumerate(widths[:-1], 1):
        function = ACTIVATIONS[units.activation](units, number, n)
        if units.dropout:
            draws = stream(seed, "dropout", f"{name}.{number - 1}")
            function = Dropout(function, units.dropout, int(draws.integers(2**62)), rescaled=units.rescaled_dropout)
        found.append(function)
    return [*found, PLAIN[output_activation]]
