"""Recycling: two layers worked by hand, the masked dense twin, what the network computes, and the clock of an agent."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import ACTIVATION, MaskedAdam, MaskedMLP
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.linear import Layer
from sparserl.layers.recycle import Recycler, recycle
from sparserl.seeding import stream
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology

RNG = np.random.default_rng
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
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


def sparse(n_out: int, n_in: int, flat: list[int], bias: bool = True) -> SparseLinear:
    return SparseLinear(SparseTopology(n_out, n_in, np.array(flat, np.int64)), bias)


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


def networks(dtype: torch.dtype, *layers: nn.Module, activation: str = "relu") -> SparseMLP:
    return SparseMLP(layers, activation).to(dtype)


def chain(dtype: torch.dtype, activation: str = "relu") -> SparseMLP:
    torch.manual_seed(0)
    rng = RNG(0)
    return networks(
        dtype,
        SparseLinear(random_topology(24, 9, 80, rng)),
        nn.Linear(24, 30),
        SparseLinear(random_topology(20, 30, 200, rng)),
        SparseLinear(random_topology(18, 20, 120, rng), bias=False),
        nn.Linear(18, 2),
        activation=activation,
    )


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


# --- what the network computes ----------------------------------------------------------------------


def silence(mlp: SparseMLP, *neurons: tuple[int, int]) -> None:
    for level, neuron in neurons:
        mlp[level].bias.data[neuron] = -100.0


@DTYPES
def test_recycling_silent_neurons_leaves_every_output_as_it_was(dtype: torch.dtype) -> None:
    mlp = chain(dtype)
    silence(mlp, (0, 3), (0, 4), (1, 0), (1, 7), (1, 29), (2, 5))
    x = torch.randn(64, 9, dtype=dtype)
    y = mlp(x).detach()
    before = [parameter.detach().clone() for parameter in mlp.parameters()]
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.0, seed=0)
    recycled = recycler.recycle_if_due(1, {"net": x})
    assert (recycled["net.0"] >= 2, recycled["net.1"] >= 3, recycled["net.2"] >= 1) == (True, True, True)
    torch.testing.assert_close(mlp(x).detach(), y, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(parameter, old) for parameter, old in zip(mlp.parameters(), before, strict=True))


def test_the_output_loses_what_the_neuron_contributed() -> None:
    mlp = chain(torch.float64)
    last = SparseMLP([*list(mlp)[:4]], output_activation="relu")
    x = torch.randn(64, 9, dtype=torch.float64)
    neuron = int(last(x).mean(0).argmax())
    contribution = last(x)[:, [neuron]] * mlp[4].weight[:, neuron]
    expected = (mlp(x) - contribution).detach()
    assert contribution.abs().max() > 1e-3
    recycle(mlp[3], mlp[4], np.arange(18) == neuron, torch.optim.Adam(mlp.parameters()), RNG(0))
    torch.testing.assert_close(mlp(x).detach(), expected)


def test_a_silent_network_is_recycled_as_a_whole_and_answers_again() -> None:
    mlp = networks(torch.float32, sparse(3, 4, [0, 2, 5, 6, 10, 11]), sparse(2, 3, [0, 1, 5]), nn.Linear(2, 1))
    silence(mlp, *[(0, neuron) for neuron in range(3)], *[(1, neuron) for neuron in range(2)])
    x = torch.randn(50, 4)
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.0, seed=0)
    assert recycler.recycle_if_due(1, {"net": x}) == {"net.0": 3, "net.1": 2}
    assert (mlp[0](x).relu().mean(0) > 0).all()
    assert mlp[1].values.tolist() == [0.0] * 3  # between recycled neurons


def test_neurons_without_connections_into_them_stay_as_they_are() -> None:
    # Nothing leads to neurons 0 and 2.
    mlp = networks(torch.float32, sparse(3, 4, [4, 6]), nn.Linear(3, 1))
    mlp[0].bias.data[:] = torch.tensor([-1.0, -100.0, 1e-6])
    weights = mlp[1].weight.detach().clone()
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.5, seed=0)
    x = torch.randn(50, 4)
    recycled = recycler.recycle_if_due(1, {"net": x})
    assert recycled == {"net.0": 1}
    assert mlp[0].bias.tolist() == pytest.approx([-1.0, 0.0, 1e-6])
    assert mlp[1].weight[0, 1] == 0
    assert torch.equal(mlp[1].weight[0, [0, 2]], weights[0, [0, 2]])


# --- the clock and its streams ----------------------------------------------------------------------


class Critics(nn.Module):
    """Of the shape of an agent's critics, with their names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in ("qf0", "qf1"):
            network = SparseMLP.random([5, 16, 16, 1], [0.4, 1.0, 0.3], seed=0, name=f"critic.{name}")
            self.add_module(name, network)


class Learner:
    """A training loop with everything that a checkpoint holds."""

    def __init__(self) -> None:
        self.critics, self.actor = Critics(), SparseMLP.random([3, 12, 2], [0.5, 1.0], seed=0, name="actor.mu")
        networks = {"critic": self.critics, "actor": nn.ModuleDict({"mu": self.actor})}
        self.optimizers = {name: FusedAdam(module.parameters(), lr=0.01) for name, module in networks.items()}
        pairs = {name: (module, self.optimizers[name]) for name, module in networks.items()}
        self.recycler = Recycler(pairs, interval=3, threshold=0.5, seed=1)
        self.recycled: list[dict[str, int]] = []

    def advance(self, first: int, last: int) -> None:
        for update in range(first, last + 1):
            generator = torch.Generator().manual_seed(update)
            x = {"critic": torch.randn(30, 5, generator=generator), "actor": torch.randn(30, 3, generator=generator)}
            losses = [net(x["critic"]).sub(1).square().mean() for net in self.critics.children()]
            (sum(losses) + self.actor(x["actor"]).square().mean()).backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
            self.recycled.append(self.recycler.recycle_if_due(update, x))

    def parts(self) -> dict[str, Any]:
        optimizers = {f"optimizer of {name}": optimizer for name, optimizer in self.optimizers.items()}
        return {"critic": self.critics, "actor": self.actor, "recycler": self.recycler, **optimizers}

    def store(self) -> bytes:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)
        return file.getvalue()

    def load(self, stored: bytes) -> None:
        state = torch.load(io.BytesIO(stored), weights_only=True)
        for name, part in self.parts().items():
            if name == "recycler":
                part.load_state_dict(state[name], strict=True)  # as Stable-Baselines3 calls it
            else:
                part.load_state_dict(state[name])

    def weights(self) -> bytes:
        modules = (self.critics, self.actor)
        return b"".join(p.detach().numpy().tobytes() for module in modules for p in module.parameters())


def test_clock_and_names() -> None:
    learner = Learner()
    learner.advance(1, 7)
    names = ["critic.qf0.0", "critic.qf0.1", "critic.qf1.0", "critic.qf1.1", "actor.mu.0"]
    assert [list(recycled) for recycled in learner.recycled] == [[], [], names, [], [], names, []]
    assert [learner.recycler.is_due(update) for update in range(1, 8)] == [bool(r) for r in learner.recycled]
    events = [recycled for recycled in learner.recycled if recycled]
    assert learner.recycler.recycled_total == {name: sum(event[name] for event in events) for name in names}
    assert min(learner.recycler.recycled_total.values()) > 0


def test_inputs_are_looked_at_only_when_due() -> None:
    recycler = Learner().recycler
    assert recycler.recycle_if_due(1, {}) == {}
    with pytest.raises(KeyError):
        recycler.recycle_if_due(3, {})


def test_stopped_and_resumed_equals_never_stopped() -> None:
    whole = Learner()
    whole.advance(1, 5)
    stored = whole.store()
    whole.advance(6, 12)
    resumed = Learner()
    resumed.advance(1, 6)  # a state of its own, to be replaced: two recyclings instead of one
    resumed.load(stored)
    resumed.advance(6, 12)
    assert resumed.weights() == whole.weights()
    assert resumed.recycler.recycled_total == whole.recycler.recycled_total
    assert resumed.recycled[6:] == whole.recycled[5:]
    assert sum(sum(recycled.values()) for recycled in resumed.recycled[6:]) > 0


def test_networks_alike_are_drawn_differently() -> None:
    critics = Critics()
    critics.qf1.load_state_dict(critics.qf0.state_dict())
    for network in critics.children():
        silence(network, (0, 1), (0, 2), (0, 3))
    recycler = Recycler(
        {"critic": (critics, torch.optim.Adam(critics.parameters()))}, interval=1, threshold=0.0, seed=0
    )
    recycled = recycler.recycle_if_due(1, {"critic": torch.randn(30, 5)})
    assert recycled["critic.qf0.0"] == recycled["critic.qf1.0"] >= 3
    assert not torch.equal(critics.qf0[0].values, critics.qf1[0].values)


def test_another_seed_draws_differently() -> None:
    drawn = []
    for seed in (0, 0, 1):
        critics = Critics()
        silence(critics.qf0, (0, 1), (0, 2))
        optimizer = torch.optim.Adam(critics.parameters())
        recycler = Recycler({"critic": (critics, optimizer)}, interval=1, threshold=0.0, seed=seed)
        recycler.recycle_if_due(1, {"critic": torch.ones(4, 5)})
        drawn.append(critics.qf0[0].values.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_state_of_other_layers_is_refused() -> None:
    recycler = Learner().recycler
    alone = Recycler({"critic": (Critics(), torch.optim.SGD(Critics().parameters()))}, interval=3, threshold=0, seed=1)
    with pytest.raises(TopologyError, match="the stored recycler belongs to a network with other layers"):
        recycler.load_state_dict(alone.state_dict())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"interval": 0}, "the recycling interval must be >= 1, got 0"),
        ({"threshold": -0.5}, r"the dormancy threshold must be in \[0, 1\), got -0.5"),
        ({"threshold": 1.0}, r"the dormancy threshold must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_numbers_are_refused(changed: dict[str, Any], message: str) -> None:
    critics = Critics()
    kwargs = {"interval": 3, "threshold": 0.1, "seed": 0, **changed}
    with pytest.raises(TopologyError, match=message):
        Recycler({"critic": (critics, torch.optim.Adam(critics.parameters()))}, **kwargs)


def test_a_dense_module_is_refused() -> None:
    dense = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(TopologyError, match="'actor' has no sparse network"):
        Recycler({"actor": (dense, torch.optim.Adam(dense.parameters()))}, interval=3, threshold=0.1, seed=0)


def test_activities_that_are_not_finite_stop_it() -> None:
    critics = Critics()
    recycler = Recycler(
        {"critic": (critics, torch.optim.Adam(critics.parameters()))}, interval=1, threshold=0.1, seed=0
    )
    with pytest.raises(TopologyError, match="an activity is NaN or infinite"):
        recycler.recycle_if_due(1, {"critic": torch.full((4, 5), torch.nan)})
