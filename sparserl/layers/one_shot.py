"""The layers of a network that begins with the best connections of a dense one, which is passed a block at a time.

Weights of the dense network are drawn again for every product, activations of the batch are kept: memory is that of the
sparse network, the batch at every neuron, and one block of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.kernels.flops import count
from sparserl.layers.activations import Function
from sparserl.layers.dense_layers import Weight
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import Shape
from sparserl.topology.group_sizes import check_divides
from sparserl.topology.one_shot import ONE_SHOT, Block, StreamedWeights, chosen
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology


@dataclass(frozen=True)
class JudgingBatch:
    """A batch that a network is judged by before it begins.

    Attributes:
        x: (B, n_in) what it reads.
        loss: (B, n_out) outputs -> a number.
    """

    x: torch.Tensor
    loss: Callable[[torch.Tensor], torch.Tensor]


def begun_by_scores(
    topology: TopologyConfig,
    begins: Sequence[tuple[Shape, float, float | None]],
    functions: Sequence[Function],
    judging: JudgingBatch | None,
    *,
    seed: int,
    name: str,
) -> list[nn.Module]:
    """The layers of a network, `SparseLinear` where they take part and `nn.Linear` elsewhere.

    Args:
        topology: Its initial topology is one of `ONE_SHOT`.
        begins: Shape, density and first density of each layer.
        functions: What follows each layer; of this pass alone, in evaluation mode from now on.
        judging: The batch; None where there is none.
        seed: Root seed of weights and biases.
        name: Of the network; layer l is `name.l`.

    Raises:
        TopologyError: If scores need a batch and there is none, or outputs do not come in groups of `topology.pairs`.
    """
    kind = topology.part("initial_topology")
    rule, pairs = ONE_SHOT[kind], topology.pairs
    for function in functions:
        if isinstance(function, nn.Module):
            function.eval()
    last = len(begins) - 1
    stays_dense = [
        index == last and topology.output_layer_is_dense if topology.compares_layers else density == 1.0
        for index, (_, density, _) in enumerate(begins)
    ]
    weights = [StreamedWeights(*shape, seed, f"{name}.{index}") for index, (shape, *_) in enumerate(begins)]
    sparse = [index for index, dense in enumerate(stays_dense) if not dense]
    scored: list[Callable[[], Iterator[Block]]] = []
    if rule.order == 0:
        scored = [_by_weights(rule.score, one, pairs) for one in weights]
    elif judging is None:
        raise TopologyError(
            f"topology.initial_topology {kind} judges weights by a batch with a loss, and there is none when these "
            "networks begin: take largest, or another method"
        )
    else:
        derivatives = _Derivatives(weights, functions, judging, rule.order)
        scored = [derivatives.scores(rule.score, index, pairs) for index in range(len(begins))]
    names = [f"{name}.{index}" for index in sparse]
    found = _topologies(topology, [scored[i]() for i in sparse], names, [begins[i] for i in sparse], seed)
    topologies = dict(zip(sparse, found, strict=True))
    layers: list[nn.Module] = []
    for index, drawn in enumerate(weights):
        bias = nn.Parameter(torch.from_numpy(drawn.biases()))
        if index not in topologies:
            layers.append(_dense(drawn, bias))
            continue
        values = torch.from_numpy(drawn.at(topologies[index].flat))
        layer = SparseLinear.of(topologies[index], values, bias)
        layer.begin_use(topology.used(*begins[index][:2]))
        layers.append(layer)
    return layers


def judged(
    topology: TopologyConfig,
    weights: Mapping[str, Weight],
    begins: Sequence[tuple[Shape, float, float | None]],
    loss: Callable[[], torch.Tensor] | None,
    seed: int,
) -> dict[str, SparseTopology]:
    """Connections that dense layers of a model keep, by the weights that they have.

    Args:
        topology: Its initial topology is one of `ONE_SHOT`.
        weights: Of each, by its name.
        begins: Shape, density and first density of each.
        loss: Of a batch, differentiable by the weights; called once if scores need it.
        seed: Root seed, of random connections.

    Raises:
        TopologyError: If a loss is missing, or a layer has no part in it.
    """
    if not weights:
        return {}
    kind = topology.part("initial_topology")
    rule = ONE_SHOT[kind]
    parameters = [weight.parameter for weight in weights.values()]
    known: list[tuple[torch.Tensor, ...]] = [(parameter,) for parameter in parameters]
    if rule.order > 0:
        if loss is None:
            raise TopologyError(f"initial_topology {kind} judges by a batch: give loss, which returns it")
        gradients = torch.autograd.grad(loss(), parameters, create_graph=rule.order == 2, allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is None:
                raise TopologyError(f"layer {name!r} has no part in the loss that is to judge it; exclude it")
        known = list(zip(parameters, gradients, strict=True))
        if rule.order == 2:
            of_layers = [weight.of(one) for weight, one in zip(weights.values(), gradients, strict=True)]
            squared = torch.stack([(gradient * gradient.detach()).sum() for gradient in of_layers]).sum()
            known = [(*own, _or_zeros(squared, own[0], torch.ones(()))) for own in known]
    scores = [
        iter([(0, rule.score(*(weight.of(one.detach()).numpy() for one in own)))])
        for weight, own in zip(weights.values(), known, strict=True)
    ]
    return dict(zip(weights, _topologies(topology, scores, list(weights), begins, seed), strict=True))


def _topologies(
    topology: TopologyConfig,
    scores: Sequence[Iterator[Block]],
    names: Sequence[str],
    begins: Sequence[tuple[Shape, float, float | None]],
    seed: int,
) -> list[SparseTopology]:
    """What scores, and chance where they decide numbers alone, make of them."""
    if not names:
        return []
    pairs, shapes = topology.pairs, [shape for shape, *_ in begins]
    for name, (n_out, _) in zip(names, shapes, strict=True):
        check_divides(pairs, name, n_out)
    found = chosen(scores, shapes, topology.judged_counts(begins), pairs)
    if not ONE_SHOT[topology.part("initial_topology")].at_random:
        return [SparseTopology(*shape, flat, pairs) for shape, flat in zip(shapes, found, strict=True)]
    return [
        random_topology(*shape, flat.size, stream(seed, "initial_topology", name), pairs)
        for name, shape, flat in zip(names, shapes, found, strict=True)
    ]


@torch.no_grad()
def _dense(weights: StreamedWeights, bias: nn.Parameter) -> nn.Linear:
    layer = nn.Linear(weights.n_in, weights.n_out)
    for first, block in weights.blocks():
        layer.weight[first : first + len(block)] = torch.from_numpy(block)
    layer.bias = bias
    return layer


def _by_weights(
    score: Callable[..., np.ndarray], weights: StreamedWeights, pairs: int
) -> Callable[[], Iterator[Block]]:
    return lambda: ((first, score(block)) for first, block in weights.blocks(pairs))


class _Derivatives:
    """First derivatives of a loss by dense weights, and the products of its Hessian with them, as factors.

    The gradient of a layer is `delta^T h` for a batch of inputs h and gradients delta at its outputs, so that products
    with it need neither. Those of the Hessian with it are derivatives along it, by the rules of products
    (Pearlmutter 1994): (dot delta)^T h + delta^T (dot h).

    Args:
        weights: Of each layer.
        functions: What follows each.
        judging: The batch.
        order: 1 for gradients alone, 2 for both.
    """

    def __init__(
        self, weights: Sequence[StreamedWeights], functions: Sequence[Function], judging: JudgingBatch, order: int
    ):
        self._weights, self._functions, self._order = weights, functions, order
        self._inputs: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []  # each activation
        h = judging.x.detach()
        for layer, function in zip(weights, functions, strict=True):
            self._inputs.append(h)
            self._before.append(_forward(layer, h) + torch.from_numpy(layer.biases()))
            with torch.no_grad():
                h = function(self._before[-1])
        outputs = h.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(judging.loss(outputs), outputs, create_graph=order == 2)
        self._after = [gradient.detach()]  # gradients after each activation, the last layer first
        self._deltas: list[torch.Tensor] = []
        for index in reversed(range(len(weights))):
            self._deltas.insert(0, self._through(index, self._after[0]))
            if index:
                self._after.insert(0, _backward(weights[index], self._deltas[0]))
        if order == 2:
            self._differentiate(outputs, gradient)

    def _through(self, index: int, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient before an activation, of that after it."""
        before = self._before[index].requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self._functions[index](before), before, gradient)
        return found

    def _differentiate(self, outputs: torch.Tensor, gradient: torch.Tensor) -> None:
        """All of the above along the gradient by the weights."""
        self._dot_inputs = [torch.zeros_like(self._inputs[0])]
        dot_before = []
        for index, (weights, h) in enumerate(zip(self._weights, self._inputs, strict=True)):
            dot_before.append(h @ h.T @ self._deltas[index] + _forward(weights, self._dot_inputs[-1]))
            self._dot_inputs.append(self._tangent(index, dot_before[-1]))
        dot_after = _or_zeros(gradient, outputs, self._dot_inputs[-1])
        self._dot_deltas: list[torch.Tensor] = []
        for index in reversed(range(len(self._weights))):
            delta = self._deltas[index]
            before = self._before[index].requires_grad_()
            with torch.enable_grad():
                after = self._functions[index](before)
                (of_before,) = torch.autograd.grad(after, before, self._after[index], create_graph=True)
            curved = _or_zeros(of_before, before, dot_before[index])
            self._dot_deltas.insert(0, self._through(index, dot_after) + curved)
            if index:
                backward = _backward(self._weights[index], self._dot_deltas[0])
                dot_after = delta @ delta.T @ self._inputs[index] + backward

    def _tangent(self, index: int, direction: torch.Tensor) -> torch.Tensor:
        """Derivative of an activation along a direction before it."""
        before = self._before[index].requires_grad_()
        cotangent = torch.zeros_like(direction, requires_grad=True)
        with torch.enable_grad():
            after = self._functions[index](before)
            (pulled,) = torch.autograd.grad(after, before, cotangent, create_graph=True)
        return _or_zeros(pulled, cotangent, direction)

    def scores(self, score: Callable[..., np.ndarray], index: int, pairs: int) -> Callable[[], Iterator[Block]]:
        """Scores of a layer, block by block."""

        def blocks() -> Iterator[Block]:
            h, delta = self._inputs[index], self._deltas[index]
            for first, block in self._weights[index].blocks(pairs):
                rows = slice(first, first + len(block))
                count(2 * block.size * len(h) * (1 if self._order == 1 else 3))
                derivatives = [delta[:, rows].T @ h]
                if self._order == 2:
                    derivatives.append(
                        self._dot_deltas[index][:, rows].T @ h + delta[:, rows].T @ self._dot_inputs[index]
                    )
                yield first, score(block, *(one.detach().numpy() for one in derivatives))

        return blocks


@torch.no_grad()
def _forward(weights: StreamedWeights, x: torch.Tensor) -> torch.Tensor:
    """(B, n_in) to (B, n_out), without biases."""
    count(2 * weights.n_out * weights.n_in * len(x))
    return torch.cat([x @ torch.from_numpy(block).T for _, block in weights.blocks()], dim=1)


@torch.no_grad()
def _backward(weights: StreamedWeights, delta: torch.Tensor) -> torch.Tensor:
    """(B, n_out) gradients to (B, n_in)."""
    count(2 * weights.n_out * weights.n_in * len(delta))
    total = torch.zeros(len(delta), weights.n_in)
    for first, block in weights.blocks():
        total += delta[:, first : first + len(block)] @ torch.from_numpy(block)
    return total


def _or_zeros(of: torch.Tensor, by: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """Gradient of `of` by `by`; zeros where it does not depend on it."""
    if not of.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(of, by, cotangent, allow_unused=True, retain_graph=True)
    return torch.zeros_like(by) if found is None else found
