"""Recycling: two layers worked by hand, the masked dense twin, what the network computes, and the clock of an agent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from oracle.masked_dense import ACTIVATION, MaskedAdam, MaskedMLP
from support.recycling import DTYPES, RNG, chain, sparse
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.linear import Layer
from sparserl.layers.recycle import Recycler, recycle
from sparserl.seeding import stream
from sparserl.topology.rewire import random_topology

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "fused adam": lambda p: FusedAdam(p, lr=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
}


def flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


def stepped(optimizer: torch.optim.Optimizer, *parameters: torch.Tensor) -> torch.optim.Optimizer:
    """After three steps, so that every entry of its state has a value."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype) + 0.5
        optimizer.step()
    return optimizer


# x . x x   slots 0 1 2         x x .   slots 0 1
# . x x .         3 4           . x x         2 3
# . . x x         5 6           Neurons 1 and 2: slots 3 to 6 lead in, 1, 2 and 3 lead out.
PAIRS: dict[str, Callable[[], tuple[Layer, Layer]]] = {
    "sparse": lambda: (sparse(3, 4, [0, 2, 3, 5, 6, 10, 11]), sparse(2, 3, [0, 1, 4, 5])),
    "dense": lambda: (nn.Linear(4, 3), nn.Linear(3, 2)),
    "sparse before dense": lambda: (sparse(3, 4, [0, 2, 3, 5, 6, 10, 11]), nn.Linear(3, 2)),
    "dense before sparse": lambda: (nn.Linear(4, 3), sparse(2, 3, [0, 1, 4, 5])),
}
INTO = {"values": flags(0, 0, 0, 1, 1, 1, 1), "weight": np.repeat(flags(0, 1, 1), 4).reshape(3, 4)}
OUT_OF = {"values": flags(0, 1, 1, 1), "weight": np.tile(flags(0, 1, 1), (2, 1))}


@DTYPES
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("pair", PAIRS)
def test_worked_by_hand(pair: str, make: Callable[..., torch.optim.Optimizer], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    incoming, outgoing = (layer.to(dtype) for layer in PAIRS[pair]())
    parameters = [*incoming.parameters(), *outgoing.parameters()]
    optimizer = stepped(make(parameters), *parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    states = {p: {name: (s, copy.deepcopy(s)) for name, s in optimizer.state[p].items()} for p in parameters}
    shapes = [layer.topology for layer in (incoming, outgoing) if isinstance(layer, SparseLinear)]

    recycle(incoming, outgoing, flags(0, 1, 1), optimizer, RNG(7))

    into = INTO[next(iter(dict(incoming.named_parameters())))]
    out_of = OUT_OF[next(iter(dict(outgoing.named_parameters())))]
    touched = [into, flags(0, 1, 1), out_of, flags(0, 0)]
    new = [RNG(7).uniform(-0.5, 0.5, into.sum()), 0.0, 0.0, 0.0]  # 4 inputs: within 1/2
    for parameter, old, where, value in zip(parameters, before, touched, new, strict=True):
        expected = old.numpy().copy()
        expected[where] = value
        np.testing.assert_array_equal(parameter.detach().numpy(), expected)
        assert set(optimizer.state[parameter]) == set(states[parameter])
        for name, (state, held) in states[parameter].items():
            assert optimizer.state[parameter][name] is state
            if torch.is_tensor(held) and held.dim() == 0:
                assert state == held == 3  # the step count
            elif torch.is_tensor(held):
                assert (held != 0).all()
                np.testing.assert_array_equal(state.numpy(), np.where(where, 0.0, held.numpy()))
    for layer, topology in zip([x for x in (incoming, outgoing) if isinstance(x, SparseLinear)], shapes, strict=True):
        assert layer.topology is topology
        topology.check_valid()
    optimizer.step()


def test_without_biases() -> None:
    incoming, outgoing = sparse(3, 4, [0, 5, 6], bias=False), sparse(2, 3, [0, 4], bias=False)
    optimizer = torch.optim.Adam([incoming.values, outgoing.values])
    recycle(incoming, outgoing, flags(0, 1, 0), optimizer, RNG(0))
    assert incoming.values[1:].tolist() == RNG(0).uniform(-0.5, 0.5, 2).astype(np.float32).tolist()
    assert outgoing.values[1] == 0
    assert not optimizer.state[incoming.values]


def test_nobody_to_recycle_draws_nothing() -> None:
    incoming, outgoing = PAIRS["sparse"]()
    before = [parameter.detach().clone() for parameter in (*incoming.parameters(), *outgoing.parameters())]
    rng = RNG(0)
    recycle(incoming, outgoing, flags(0, 0, 0), torch.optim.SGD(incoming.parameters()), rng)
    assert rng.bit_generator.state == RNG(0).bit_generator.state
    for parameter, old in zip((*incoming.parameters(), *outgoing.parameters()), before, strict=True):
        assert torch.equal(parameter.detach(), old)


@pytest.mark.parametrize("neurons", [flags(1, 0), flags(1, 0, 0, 1), np.ones((3, 1), bool)])
def test_flags_of_another_layer_are_refused(neurons: np.ndarray) -> None:
    incoming, outgoing = PAIRS["sparse"]()
    with pytest.raises(TopologyError, match="neurons do not fit a layer of 3 outputs and one of 3 inputs"):
        recycle(incoming, outgoing, neurons, torch.optim.SGD(incoming.parameters()), RNG(0))


def test_layers_that_are_not_neighbours_are_refused() -> None:
    incoming, _ = PAIRS["sparse"]()
    with pytest.raises(TopologyError, match="3 neurons do not fit a layer of 3 outputs and one of 4 inputs"):
        recycle(incoming, nn.Linear(4, 2), flags(0, 1, 0), torch.optim.SGD(incoming.parameters()), RNG(0))


@pytest.mark.parametrize("touched", ["values", "bias"])
def test_optimizer_state_of_an_odd_shape_is_refused(touched: str) -> None:
    incoming, outgoing = PAIRS["sparse"]()
    optimizer = torch.optim.SGD([*incoming.parameters(), *outgoing.parameters()])
    optimizer.state[getattr(incoming, touched)]["odd"] = torch.zeros(2, 2)
    with pytest.raises(TopologyError, match=r"optimizer state 'odd' of shape \(2, 2\)"):
        recycle(incoming, outgoing, flags(0, 1, 0), optimizer, RNG(0))


def test_memory_follows_the_number_of_connections() -> None:
    n = 2_000_000  # one byte a position would be 4 TB
    rng = RNG(0)
    incoming, outgoing = (SparseLinear(random_topology(n, n, 1000, rng)) for _ in range(2))
    neurons = np.zeros(n, bool)
    neurons[incoming.topology.outputs[:3]] = True
    before = incoming.values.detach().clone()
    recycle(incoming, outgoing, neurons, torch.optim.SGD([incoming.values]), rng)
    assert (incoming.values != before).sum() == neurons[incoming.topology.outputs].sum() == 3


# --- against the masked dense twin ------------------------------------------------------------------


def recycle_densely(twin: MaskedMLP, x: torch.Tensor, threshold: float, streams: Sequence[np.random.Generator]) -> int:
    """ReDo on whole matrices that are masked again: first all weights in, then all weights out.

    Returns:
        Connections between two recycled neurons.
    """
    history: dict[int, MaskedAdam] = {id(adam.tensor): adam for adam in twin.adam}
    recycled, h = [], x
    with torch.no_grad():
        for weight, bias, activation in zip(twin.weights, twin.biases, twin.activations, strict=True):
            h = h @ weight.T
            h = ACTIVATION[activation](h if bias is None else h + bias)
            activity = h.abs().double().mean(0)
            recycled.append((activity / activity.mean() <= threshold).numpy())
        for level, neurons in enumerate(recycled[:-1]):
            weight, mask = twin.weights[level], twin.masks[level].numpy().astype(bool)
            bound = weight.shape[1] ** -0.5
            wanted = mask & neurons[:, None]
            fresh = np.zeros(weight.shape)
            fresh[wanted] = streams[level].uniform(-bound, bound, wanted.sum())
            weight[neurons] = torch.from_numpy(fresh).to(weight.dtype)[neurons]
            for moment in (history[id(weight)].m, history[id(weight)].v):
                moment[neurons] = 0.0
            bias = twin.biases[level]
            if bias is not None:
                for part in (bias, history[id(bias)].m, history[id(bias)].v):
                    part[neurons] = 0.0
        for level, neurons in enumerate(recycled[:-1]):
            weight = twin.weights[level + 1]
            for part in (weight, history[id(weight)].m, history[id(weight)].v):
                part[:, neurons] = 0.0
        for weight, mask in zip(twin.weights, twin.masks, strict=True):
            weight *= mask
    return int(
        sum(
            mask[after][:, before].sum().item()
            for mask, before, after in zip(twin.masks[1:-1], recycled[:-2], recycled[1:-1], strict=True)
        )
    )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("optimizer", ["adam", "fused adam"])
@DTYPES
def test_learning_equals_redo_on_the_masked_dense_twin(dtype: torch.dtype, optimizer: str, activation: str) -> None:
    mlp = chain(dtype, activation)
    twin = MaskedMLP(mlp, mlp.activations, lr=1e-2)
    adam = {"adam": torch.optim.Adam, "fused adam": FusedAdam}[optimizer](mlp.parameters(), lr=1e-2)
    topologies = [layer.topology.flat.copy() for layer in mlp if isinstance(layer, SparseLinear)]
    recycler = Recycler({"net": (mlp, adam)}, interval=4, threshold=0.6, seed=5)
    streams = [stream(5, "recycle", f"net.{level}") for level in range(4)]
    counts, between = np.zeros(4, int), 0
    generator = torch.Generator().manual_seed(0)
    for update in range(1, 13):
        x = torch.randn(40, 9, dtype=dtype, generator=generator)
        adam.zero_grad()
        mlp(x).sub(1.0).square().mean().backward()
        twin(x).sub(1.0).square().mean().backward()
        adam.step()
        twin.step()
        recycled = recycler.recycle_if_due(update, {"net": x})
        if update % 4 == 0:
            counts += list(recycled.values())
            between += recycle_densely(twin, x, 0.6, streams)
    assert counts.min() > 0, "a layer was never recycled: the comparison says nothing of it"
    assert between > 0, "no connection between recycled neurons: the order of layers was not tested"
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    for level, layer in enumerate(mlp):
        dense = twin.weights[level].detach()
        if isinstance(layer, SparseLinear):
            torch.testing.assert_close(layer.values.detach(), twin.gather(level, dense), **close)
        else:
            torch.testing.assert_close(layer.weight.detach(), dense, **close)
        if layer.bias is not None:
            torch.testing.assert_close(layer.bias.detach(), twin.biases[level].detach(), **close)
    after = [layer.topology.flat for layer in mlp if isinstance(layer, SparseLinear)]
    assert all(map(np.array_equal, topologies, after))
    assert list(recycler.recycled_total.values()) == counts.tolist()
