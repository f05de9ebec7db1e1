"""Multilayer perceptrons of sparse and dense layers that run in as few kernel calls as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import is_
from typing import Any

import torch
from torch import nn

from sparserl.kernels import After, chain, program
from sparserl.kernels.recording import relies_on
from sparserl.layers.activations import READINGS, Function, HiddenUnits, KWinners, functions, identity
from sparserl.layers.fused import JOINED_UP_TO, FusedLayers
from sparserl.layers.linear import linear
from sparserl.layers.one_shot import JudgingBatch, begun_by_scores
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import Shape
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.values import initial_values

IN_ONE_CALL: dict[Function, str] = {torch.relu: "relu", torch.tanh: "tanh"}
"""What may stand between layers of one kernel call, by the name that it has there."""
STATIC = TopologyConfig(method="static")
"""Connections that never change."""


class SparseMLP(nn.ModuleList):
    """Linear layers, an activation after each but the last, and an output activation.

    Neighbouring layers with a ReLU or tanh between them run in one kernel call; a large dense layer is torch's. A list
    of its layers: `mlp[0]` is the first.

    What follows a layer and has a state, or draws, is the layer's child `after`.

    Args:
        layers: `SparseLinear` or `nn.Linear`, in order.
        activation: Name of the hidden activation, in `ACTIVATIONS`, or all that stands after hidden layers.
        output_activation: Name in `PLAIN` of the last one.
        seed: Root seed of dropout.
        name: Of the network, whose dropout has streams of its own.

    Attributes:
        activations: Name of what follows each layer.
        functions: What follows each layer.
        output_reading: Name in `READINGS` of what makes activations of the outputs where growth compares them;
            `output_activation` unless a learner reads them otherwise, as `softmax` say.
        goals: Connections that layers are to have at the end of a density schedule, by their name in the list; empty
            where every layer begins with the number it keeps.
        after: What follows each layer where that is not a single activation; None elsewhere.

    Raises:
        ValueError: If an activation has no such name.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        activation: str | HiddenUnits = "relu",
        output_activation: str = "identity",
        *,
        seed: int = 0,
        name: str = "network",
    ):
        super().__init__(layers)
        units = HiddenUnits(activation) if isinstance(activation, str) else activation
        self.activations = [*[units.activation] * (len(layers) - 1), output_activation]
        widths = [linear(layer).shape[0] for layer in layers]
        self._follow(functions(units, output_activation, widths, seed=seed, name=name))
        self.output_reading = output_activation
        self.after: Sequence[After] | None = None
        self.goals: dict[str, int] = {}
        self._cut: tuple[list[nn.Module], list[tuple[FusedLayers | nn.Linear, Function]]] = ([], [])

    def _follow(self, functions: list[Function]) -> None:
        self.functions = functions
        for layer, function in zip(self, functions, strict=True):
            if isinstance(function, nn.Module) and any(True for _ in function.buffers()):
                layer.after = function

    def with_layers(self, layers: Sequence[nn.Module]) -> SparseMLP:
        """A network of other layers, as many and as wide; what follows them, with its state, belongs to both."""
        network = self._chain_of(layers)
        network.activations, network.output_reading = self.activations, self.output_reading
        network._follow(self.functions)
        return network

    def _chain_of(self, layers: Sequence[nn.Module]) -> SparseMLP:
        """A network of the same kind, whatever follows its layers."""
        return SparseMLP(layers, output_activation=self.activations[-1])

    def read_by(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """What a layer multiplies.

        Args:
            index: Of the layer.
            x: Activations before it; the input of the network, for the first.

        Returns:
            (B, n_in), or (B, places, n_in) of a layer that is applied at several places of a sample.
        """
        del index
        return x

    def activated(self, index: int, y: torch.Tensor) -> torch.Tensor:
        """Activations after a layer, given its (B, n_out) or (B, places, n_out) outputs; what the next one has."""
        return self.functions[index](y)

    @property
    def norms(self) -> list[Any]:
        """What stands before each layer, its child `before`; None where there is nothing."""
        return [layer._modules.get("before") for layer in self]

    def levels(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Layer by layer, given (B, n_in) inputs: what it multiplies, its outputs, and what the next one has."""
        for index, layer in enumerate(self):
            read = self.read_by(index, x)
            outputs = layer(read)
            x = self.activated(index, outputs)
            yield read, outputs, x

    @property
    def widest(self) -> int:
        """Numbers of a sample that the layer that multiplies most of them does."""
        return max(linear(layer).shape[1] for layer in self)

    @property
    def one_call(self) -> FusedLayers | None:
        """What runs all of it in one call, with nothing after it; None where that is not so."""
        (part, function), *others = self.parts
        return part if not others and function is identity and isinstance(part, FusedLayers) else None

    @property
    def has_products_by_torch(self) -> bool:
        """Whether some products are torch's, which do not count their operations themselves."""
        return any(not isinstance(part, FusedLayers) for part, _ in self.parts)

    @property
    def plain(self) -> SparseMLP:
        """A network of nothing but its layers and activations that gives the same in use; itself if it is one."""
        return self

    def used_alone(self) -> SparseMLP:
        """The network of the connections that passes use alone: copies of layers where others are stored, or itself."""
        layers = [linear(layer).in_use.layer for layer in self]
        return self if all(map(is_, layers, self)) else self.with_layers(layers)

    def end_epoch(self) -> None:
        """Tells what follows its layers that an epoch is over."""
        for module in self.modules():
            if isinstance(module, KWinners):
                module.end_epoch()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Puts it into evaluation mode, and back."""
        was = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was)

    def outputs_in_use(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out), as in evaluation."""
        with self.in_use():
            outputs: torch.Tensor = self(x)
        return outputs

    def is_unchanged(self) -> bool:
        """Whether it has the layers that `parts` found."""
        return list(self._modules.values()) == self._cut[0]

    @property
    def parts(self) -> list[tuple[FusedLayers | nn.Linear, Function]]:
        """What runs in one call, each with what follows it."""
        if not self.is_unchanged():  # a layer was replaced
            self._cut = list(self._modules.values()), self._cut_from(0)
        return self._cut[1]

    def _cut_from(self, first: int) -> list[tuple[FusedLayers | nn.Linear, Function]]:
        """The `parts` of the layers from one on."""
        return _parts(list(self._modules.values())[first:], self.functions[first:], READINGS[self.output_reading])

    @classmethod
    def random(
        cls,
        sizes: Sequence[int],
        densities: Sequence[float] | None = None,
        first_densities: Sequence[float | None] | None = None,
        *,
        topology: TopologyConfig = STATIC,
        seed: int,
        name: str,
        activation: str | HiddenUnits = "relu",
        output_activation: str = "identity",
        judging: JudgingBatch | None = None,
    ) -> SparseMLP:
        """A network with topologies of exact size, mostly random; a layer of density 1 is an ordinary `nn.Linear`.

        Args:
            sizes: Neurons of each layer, the input first.
            densities: Of each linear layer, in (0, 1]; those that `topology` gives them if None.
            first_densities: That layers begin with, where `topology.initial_density` says them; likewise if `densities`
                is None.
            topology: Says how layers begin: with more connections where it prunes (`densities` are then those of
                `goals`), with which weights, and how many outputs share their inputs. Other weights of sparse layers
                than torch's come from streams of `seed`, and torch's generator goes on as if there were none.
            seed: Root seed of the topologies, and of dropout. Weights and biases are drawn from torch's global
                generator, as `nn.Linear`'s are.
            name: Of the network, e.g. `"critic.qf0"`; layer l draws from the stream `(name.l)`.
            activation: Of hidden layers, or all that stands after them.
            output_activation: Of the last layer.
            judging: A batch by which connections are judged where the initial topology asks for that.

        Raises:
            TopologyError: As `TopologyConfig.densities` and `TopologyConfig.initial`, or if that batch is missing.
        """
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        if densities is None:
            densities, first_densities = topology.densities(shapes), topology.densities_at_first(shapes)
        elif topology.compares_layers:
            topology = replace(topology, density=tuple(densities))
        first_densities = first_densities or [None] * len(shapes)
        begins = list(zip(shapes, densities, first_densities, strict=True))
        if topology.part("initial_topology") in ONE_SHOT:
            units = HiddenUnits(activation) if isinstance(activation, str) else activation
            after = functions(units, output_activation, list(sizes[1:]), seed=seed, name=name)
            layers = begun_by_scores(topology, begins, after, judging, seed=seed, name=name)
        else:
            layers = [begun(topology, *begin, seed, f"{name}.{index}") for index, begin in enumerate(begins)]
        network = cls(layers, activation, output_activation, seed=seed, name=name)
        network.goals = goals_of(topology, begins)
        return network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out)."""
        for part, function in self.parts:
            x = function(part(x)[0] if isinstance(part, FusedLayers) else part(x))
        return x


class SparseEnsemble:
    """Networks of equal architecture that read the same input, in one kernel call where that is possible.

    Args:
        networks: One or more.

    Attributes:
        output_activation: Name of what follows the last layer.
    """

    def __init__(self, networks: Sequence[SparseMLP]):
        self.networks = list(networks)
        self.output_activation = self.networks[0].activations[-1]
        self._cut: tuple[list[Any], FusedLayers | None] = ([], None)
        self._seen: int | None = None

    def __call__(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """(B, n_in) to a (B, n_out) output of each network."""
        if self.joined is None:
            return [network(x) for network in self.networks]
        return self.networks[0].functions[-1](self.joined(x)).unbind()

    def refresh(self) -> None:
        """Takes up the present weights of what the networks were made of, if they were; called before each pass."""

    @property
    def joined(self) -> FusedLayers | None:
        """All layers of all networks, if they run in one call."""
        stretch = program.stretch()
        if stretch is not None and stretch == self._seen:
            return self._cut[1]
        self._seen = stretch
        parts = [network.parts for network in self.networks]
        if parts != self._cut[0]:
            alone = all(len(run) == 1 and isinstance(run[0][0], FusedLayers) for run in parts)
            names = [network.activations for network in self.networks]
            alone &= len({(frozenset(between), last) for *between, last in names}) == 1
            chains: list[list[Any]] = [list(network) for network in self.networks]
            reading, norms = READINGS[self.networks[0].output_reading], [network.norms for network in self.networks]
            whole = parts[0][0][0]
            after = whole.after if isinstance(whole, FusedLayers) else None
            self._cut = parts, FusedLayers(chains, reading, norms=norms, after=after) if alone else None
        for network in self.networks:
            relies_on(network, network.is_unchanged)
        return self._cut[1]


def goals_of(topology: TopologyConfig, begins: Sequence[tuple[Shape, float, float | None]]) -> dict[str, int]:
    """Connections that layers are to have at the end of a density schedule, by their name in a list.

    Args:
        topology: Says them.
        begins: Shape, density and first density of each layer.
    """
    goals = {
        str(index): topology.goal(shape, density) for index, (shape, density, _) in enumerate(begins) if density < 1.0
    }
    return {index: goal for index, goal in goals.items() if goal is not None}


def begun(
    topology: TopologyConfig, shape: tuple[int, int], density: float, first_density: float | None, seed: int, name: str
) -> nn.Module:
    """A layer with the connections and weights that `topology` lets it begin with, where no scores decide.

    Args:
        topology: Says them.
        shape: (n_out, n_in).
        density: As `TopologyConfig.initial`; at 1 the layer is an `nn.Linear`.
        first_density: As there.
        seed: Root seed.
        name: Of the layer, whose draws have streams of their own.

    Raises:
        TopologyError: As `TopologyConfig.initial`.
    """
    if density == 1.0:
        return nn.Linear(shape[1], shape[0])
    connections = topology.initial(shape, density, seed, name, first_density)
    layer = SparseLinear(connections)
    values = initial_values(topology.part("initial_value"), connections, stream(seed, "initial_value", name))
    if values is not None:
        layer.values.data = torch.from_numpy(values).to(layer.values.dtype)
    layer.begin_use(topology.used(shape, density))
    return layer


def _parts(
    layers: Sequence[nn.Module], functions: Sequence[Function], output_reading: Function
) -> list[tuple[FusedLayers | nn.Linear, Function]]:
    """Cuts a chain into what runs in one call, each with what follows it."""
    readings = [*functions[:-1], output_reading]
    runs: list[list[nn.Module]] = [[]]
    for layer, before in zip(layers, [identity, *functions[:-1]], strict=True):
        if runs[-1] and (before not in IN_ONE_CALL or not joins(layer) or not joins(runs[-1][-1])):
            runs.append([])
        runs[-1].append(layer)
    parts: list[tuple[FusedLayers | nn.Linear, Function]] = []
    position = 0
    for run in runs:
        if not any(linear(layer).is_sparse for layer in run):
            parts += zip(run, functions[position : position + len(run)], strict=True)  # type: ignore[arg-type]
        else:
            last = position + len(run) - 1
            after = chain(IN_ONE_CALL[function] for function in functions[position:last])
            parts.append((FusedLayers([run], readings[last], after=after), functions[last]))  # type: ignore[list-item]
        position += len(run)
    return parts


def join_as_one(layers: Sequence[nn.Module]) -> bool:
    """Whether layers run in one call, all of them, as far as that is up to the layers."""
    return all(map(joins, layers)) and any(linear(layer).is_sparse for layer in layers)


def joins(layer: nn.Module) -> bool:
    """Whether a layer runs in one call with its neighbours."""
    return linear(layer).is_sparse or min(linear(layer).shape) <= JOINED_UP_TO
