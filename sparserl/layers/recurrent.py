"""Recurrent layers whose connections alone are stored and multiplied: LSTM and GRU.

Decides how gates become a state, and that they share their connections. Independent of which connections exist
(`sparserl.topology`) and how products are computed (`sparserl.layers.sparse_linear`).

Forward and back on one thread, against torch's own layers, 32 inputs, density .1: an LSTM of 256 neurons takes 2.9
times as long with 8 sequences of 32 steps and 1.2 times with 64; one of 1024 as long, and half as long. A GRU, for
which torch has no fused code, takes .74 and .65 of the time with 256 neurons, .14 and .24 with 1024.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers.linear import linear
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.layers.sparse_mlp import STATIC, begun
from sparserl.layers.unrolled import BY_HAND_UP_TO, GRUSteps, LSTMSteps, State, Steps, unrolled
from sparserl.topology.config import TopologyConfig
from sparserl.topology.one_shot import ONE_SHOT


class SparseRecurrent(nn.Module, ABC):
    """Layers with a state that read a sequence step by step; called as torch's.

    Layer l is two linear layers, its children `ih_l<l>` and `hh_l<l>`: the product of the input, computed for the whole
    sequence at once, and that of the hidden state, at each step. Each has the rows of all gates, one gate after the
    other as in torch, so that whatever drops and grows connections in a layer moves them from gate to gate.

    Args:
        products: Both of each layer, `SparseLinear` or `nn.Linear`, with biases or without.
        batch_first: Whether sequences are (N, L, n_in) and not (L, N, n_in).
        dropout: Share of what a layer gives to the next one that is 0 in training, in [0, 1]; drawn from torch's
            global generator.

    Attributes:
        goals: Connections that layers are to have at the end of a density schedule, by the name of the child; empty
            where every layer begins with the number it keeps.

    Raises:
        TopologyError: If the shapes of the products do not fit.
        ConfigError: If dropout is out of range. In a call: if the sequence is packed, has another shape or no step, or
            the state another shape.

    Source:
        One matrix for all gates, so that they compete for connections: Liu et al. 2021 (Selfish-RNN), "cell weight
        redistribution".
    """

    gates: ClassVar[int]
    """Gates of a neuron."""
    kept: ClassVar[int]
    """Numbers that a neuron remembers."""
    steps: ClassVar[type[Steps]]
    """All steps by hand, where the hidden product is sparse."""
    bidirectional = False
    proj_size = 0

    def __init__(
        self, products: Sequence[tuple[nn.Module, nn.Module]], *, batch_first: bool = False, dropout: float = 0.0
    ):
        super().__init__()
        if not 0.0 <= dropout <= 1.0:
            raise ConfigError(f"dropout must be in [0, 1], got {dropout}")
        self.batch_first, self.dropout, self.num_layers = batch_first, dropout, len(products)
        self.goals: dict[str, int] = {}
        self.input_size, self.hidden_size = (linear(product).shape[1] for product in products[0])
        width = self.input_size
        for number, pair in enumerate(products):
            for name, product, n_in in zip(self.names(number), pair, (width, self.hidden_size), strict=True):
                expected, shape = (self.gates * self.hidden_size, n_in), linear(product).shape
                if shape != expected:
                    raise TopologyError(f"{name} of {type(self).__name__} must be {expected}, got {shape}")
                self.add_module(name, product)
            width = self.hidden_size

    @staticmethod
    def names(number: int) -> tuple[str, str]:
        """Names of the products of a layer: of the input, of the hidden state."""
        return f"ih_l{number}", f"hh_l{number}"

    @classmethod
    def shapes(cls, input_size: int, hidden_size: int, num_layers: int = 1) -> dict[str, tuple[int, int]]:
        """(n_out, n_in) of each product by its name."""
        widths = [input_size, *[hidden_size] * (num_layers - 1)]
        pairs = [zip(cls.names(number), (width, hidden_size), strict=True) for number, width in enumerate(widths)]
        return {name: (cls.gates * hidden_size, n_in) for pair in pairs for name, n_in in pair}

    @classmethod
    def random(
        cls,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        densities: Sequence[float] | None = None,
        first_densities: Sequence[float | None] | None = None,
        *,
        topology: TopologyConfig = STATIC,
        seed: int,
        name: str,
        batch_first: bool = False,
        dropout: float = 0.0,
    ) -> Self:
        """Layers with random topologies of exact size; a product of density 1 is an `nn.Linear`.

        Every product takes part: none is the output layer of a network. Weights and biases begin as torch's, uniform in
        +-1/sqrt(hidden_size), from its global generator, unless `topology.initial_value` says otherwise.

        Args:
            input_size: Features of a step.
            hidden_size: Neurons of each layer.
            num_layers: One after another.
            densities: Of each product, in the order of `shapes`, in (0, 1]; those that `topology` gives them if None.
            first_densities: That products begin with, as in `SparseMLP.random`; likewise if `densities` is None.
            topology: How many connections there are, and which.
            seed: Root seed of the topologies.
            name: Of the network; a product draws from the stream `(name.<its name>)`.
            batch_first: As above.
            dropout: As above.

        Raises:
            ConfigError: If the initial topology goes by scores.
            TopologyError: As `TopologyConfig.shared_out` and `TopologyConfig.initial`.
        """
        if (initial := topology.part("initial_topology")) in ONE_SHOT:
            raise ConfigError(
                f"topology.initial_topology {initial} judges the weights of perceptrons, not those of {cls.__name__}: "
                "use random"
            )
        shapes = cls.shapes(input_size, hidden_size, num_layers)
        of_shapes = list(shapes.values())
        if densities is None:
            densities, first_densities = topology.shared_out(of_shapes), topology.shared_out_at_first(of_shapes)
        shares = zip(shapes, densities, first_densities or [None] * len(shapes), strict=True)
        products, goals = {}, {}
        for own, density, first_density in shares:
            products[own] = begun(topology, shapes[own], density, first_density, seed, f"{name}.{own}")
            if topology.part("initial_value") == "dense_fan_in":
                for parameter in products[own].parameters():
                    nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
            if isinstance(product := products[own], SparseLinear):
                product.begin_use(topology.used(shapes[own], density))  # of the weights that it has now
            if density < 1.0:
                goals[own] = topology.goal(shapes[own], density)
        layers = [cls.names(number) for number in range(num_layers)]
        network = cls([(products[ih], products[hh]) for ih, hh in layers], batch_first=batch_first, dropout=dropout)
        network.goals = {own: goal for own, goal in goals.items() if goal is not None}
        return network

    @property
    def products(self) -> list[tuple[nn.Module, nn.Module]]:
        """Both of each layer."""
        return [tuple(map(self.get_submodule, self.names(number))) for number in range(self.num_layers)]  # type: ignore[misc]

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """(L, N, n_in) and the state before to (L, N, H) and the state after; one sequence without the N, too.

        A state is a tensor (layers, N, H), or two of them, as torch's; zeros if None.
        """
        if isinstance(x, nn.utils.rnn.PackedSequence):
            raise ConfigError(f"{type(self).__name__} takes no packed sequences: pad them, and mask what they end with")
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            expected = "(N, L, {})" if self.batch_first else "(L, N, {})"
            raise ConfigError(
                f"{type(self).__name__} takes sequences {expected.format(self.input_size)}, got {tuple(x.shape)}"
            )
        is_batch, swaps = x.dim() == 3, x.dim() == 3 and self.batch_first
        steps = x.transpose(0, 1) if swaps else x if is_batch else x.unsqueeze(1)
        if not len(steps):
            raise ConfigError(f"{type(self).__name__} takes sequences of one step or more, got {tuple(x.shape)}")
        ends = []
        for number, (pair, begin) in enumerate(zip(self.products, self._begin(state, steps, is_batch), strict=True)):
            if number and self.dropout:
                steps = nn.functional.dropout(steps, self.dropout, self.training)
            steps, end = self._through(*pair, steps, begin)
            ends.append(end)
        after = [torch.stack(part) for part in zip(*ends, strict=True)]
        if not is_batch:
            after, steps = [part.squeeze(1) for part in after], steps.squeeze(1)
        return steps.transpose(0, 1) if swaps else steps, after[0] if self.kept == 1 else tuple(after)

    def flatten_parameters(self) -> None:
        """Does nothing, as torch's on a CPU."""

    def _begin(self, state: Any, steps: torch.Tensor, is_batch: bool) -> list[State]:
        """The state before the first step, by layer."""
        shape = (self.num_layers, steps.shape[1], self.hidden_size) if is_batch else (self.num_layers, self.hidden_size)
        if state is None:
            parts = [steps.new_zeros(shape)] * self.kept
        else:
            parts = [state] if isinstance(state, torch.Tensor) else list(state)
        shapes = [tuple(part.shape) for part in parts]
        if shapes != [shape] * self.kept:
            raise ConfigError(f"the state of {type(self).__name__} must be {self.kept} x {shape}, got {shapes}")
        return list(zip(*(part if is_batch else part.unsqueeze(1) for part in parts), strict=True))

    def _through(
        self, of_input: nn.Module, of_hidden: nn.Module, steps: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, State]:
        """(L, N, n_in) through one layer: (L, N, H), and the state at its end."""
        if isinstance(of_hidden, SparseLinear) and len(steps) > 1 and steps.shape[1] <= BY_HAND_UP_TO:
            return unrolled(self.steps, of_hidden, of_input(steps), state)
        outputs = []
        for by_input in of_input(steps):
            state = self._step(by_input, of_hidden(state[0]), state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    @staticmethod
    @abstractmethod
    def _step(by_input: torch.Tensor, by_hidden: torch.Tensor, state: State) -> State:
        """The next state, given (N, gates * H) of both products."""

    def extra_repr(self) -> str:
        """Shape, and what differs from the defaults."""
        said = {"num_layers": self.num_layers, "batch_first": self.batch_first, "dropout": self.dropout}
        usual = {"num_layers": 1, "batch_first": False, "dropout": 0.0}
        parts = [f"{name}={value}" for name, value in said.items() if value != usual[name]]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *parts])


class SparseLSTM(SparseRecurrent):
    """`nn.LSTM` of sparse products: one direction, no projections.

    Source:
        Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000), in the order of torch: input, forget,
        cell, output.
    """

    gates, kept, steps = 4, 2, LSTMSteps

    @staticmethod
    def _step(by_input: torch.Tensor, by_hidden: torch.Tensor, state: State) -> State:
        enter, forget, new, leave = (by_input + by_hidden).chunk(4, dim=-1)
        cell = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class SparseGRU(SparseRecurrent):
    """`nn.GRU` of sparse products: one direction.

    Source:
        Cho et al. 2014, with the reset gate after the product of the hidden state, as in torch, whose order of gates it
        has: reset, update, new.
    """

    gates, kept, steps = 3, 1, GRUSteps

    @staticmethod
    def _step(by_input: torch.Tensor, by_hidden: torch.Tensor, state: State) -> State:
        width = state[0].shape[-1]
        reset, update = (by_input[..., : 2 * width] + by_hidden[..., : 2 * width]).sigmoid().chunk(2, dim=-1)
        new = (by_input[..., 2 * width :] + reset * by_hidden[..., 2 * width :]).tanh()
        return (new + update * (state[0] - new),)
