"""LSTM and GRU whose connections alone exist: against torch's own with masked weights, and worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_recurrent import gathered, twin_of
from support.layers import one_layer, sparse
from torch import nn

from sparserl import dense_copy
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseGRU, SparseLinear, SparseLSTM
from sparserl.layers.linear import linear_layers
from sparserl.layers.recurrent import SparseRecurrent
from sparserl.layers.unrolled import BY_HAND_UP_TO
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import RewireRule

KINDS = [SparseLSTM, SparseGRU]


def made(kind: type[SparseRecurrent], density: float = 0.3, num_layers: int = 2, **options: Any) -> SparseRecurrent:
    torch.manual_seed(0)
    topology = TopologyConfig(method="static", density=density, allocation="uniform")
    return kind.random(5, 8, num_layers, topology=topology, seed=0, name="net", **options).double()


def as_tuple(state: Any) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def begin(network: SparseRecurrent, *batch: int) -> Any:
    """A state to begin with, as the network takes it."""
    shape = (network.kept, network.num_layers, *batch, network.hidden_size)
    parts = torch.randn(*shape, dtype=torch.float64).requires_grad_().unbind()
    return parts if network.kept == 2 else parts[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", [0.3, 1.0])
@pytest.mark.parametrize(
    ("shape", "batch_first"),
    [((7, 3, 5), False), ((3, 7, 5), True), ((7, 5), False), ((1, 3, 5), False), ((2, BY_HAND_UP_TO + 1, 5), False)],
)
def test_computes_what_torch_does_with_masked_weights(
    kind: type[SparseRecurrent], density: float, shape: tuple[int, ...], batch_first: bool
) -> None:
    network = made(kind, density, batch_first=batch_first)
    twin = twin_of(network)
    kinds = {type(child) for child in network.children()}
    assert kinds == {nn.Linear if density == 1.0 else SparseLinear}
    x, batch = torch.randn(*shape, dtype=torch.float64), shape[0 if batch_first else 1 : -1][:1]
    state = begin(network, *batch)
    results = []
    for each in (network, twin):
        own_x, own_state = x.clone().requires_grad_(), [part.detach().requires_grad_() for part in as_tuple(state)]
        y, after = each(own_x, tuple(own_state) if len(own_state) == 2 else own_state[0])
        outputs = [y, *as_tuple(after)]
        weighted = sum((output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum() for output in outputs)
        weighted.backward()  # type: ignore[union-attr]  # a sum of tensors
        results.append([*outputs, own_x.grad, *[part.grad for part in own_state]])
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    torch.testing.assert_close(gradients, gathered(network, twin))
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0], twin(x)[0])  # from zeros, without a way back


def test_one_neuron_by_hand() -> None:
    """Gates but the cell's have no connection, so they are sigmoid(0) = 1/2: c = c/2 + tanh(x)/2, h = tanh(c)/2."""
    network = SparseLSTM([(sparse(4, 1, [2], [1.0]), sparse(4, 1, [], []))])
    y, (h, c) = network(torch.tensor([[[1.0]], [[-2.0]]]))
    cells = [math.tanh(1) / 2, math.tanh(1) / 4 + math.tanh(-2) / 2]
    assert y.flatten().tolist() == pytest.approx([math.tanh(cell) / 2 for cell in cells])
    assert (h.item(), c.item()) == pytest.approx((math.tanh(cells[1]) / 2, cells[1]))
    # GRU, update gate 1/2, new = tanh(x + h/2): half of the old state stays.
    gru = SparseGRU([(sparse(3, 1, [2], [1.0]), sparse(3, 1, [2], [1.0]))])
    y, _ = gru(torch.tensor([[1.0], [-2.0]]))
    first = math.tanh(1) / 2
    assert y.flatten().tolist() == pytest.approx([first, (first + math.tanh(-2 + first / 2)) / 2])


def test_gates_compete_for_connections() -> None:
    """Weights of one gate are small, so it loses its connections to the others; the matrix keeps their number."""
    network = made(SparseLSTM, 0.5, num_layers=1).float()
    layer: Any = network.hh_l0
    rule = RewireRule(drop="weight_magnitude", grow="random", drop_fraction=0.3, update_interval=1)

    def by_gate() -> list[int]:
        return np.bincount(layer.topology.flat // (8 * 8), minlength=4).tolist()

    with torch.no_grad():
        layer.values[torch.from_numpy(layer.topology.flat // (8 * 8) == 1)] *= 1e-3
    before = by_gate()
    evolver = one_layer(layer, rule)
    evolver.begin_update(1)
    evolver.end_update("net")
    after = by_gate()
    assert sum(after) == sum(before) == layer.nnz == 128
    assert after[1] < before[1] - 5
    assert all(now > then for now, then in zip(after[:1] + after[2:], before[:1] + before[2:], strict=True))


def test_growth_sees_the_gradient_of_all_steps() -> None:
    network = made(SparseGRU, num_layers=1)
    twin, x = twin_of(network), torch.randn(6, 3, 5, dtype=torch.float64)
    for layer in network.children():
        layer.capture = True  # type: ignore[assignment]  # an attribute of sparse layers
    network(x)[0].square().sum().backward()
    twin(x)[0].square().sum().backward()
    for name, layer in network.named_children():
        gradient = sum(dy @ inputs.T for inputs, dy in layer.activation_pairs)  # type: ignore[union-attr]
        torch.testing.assert_close(gradient, getattr(twin, f"weight_{name}").grad)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_by_hand_obeys_autograd(kind: type[SparseRecurrent]) -> None:
    """Frozen weights get no gradient and let others pass; a changed weight and a second derivative are refused."""
    network = made(kind, num_layers=1)
    x = torch.randn(4, 2, 5, dtype=torch.float64).requires_grad_()
    whole = network(x)[0].sum()
    whole.backward()
    expected, x.grad = x.grad, None
    network.hh_l0.requires_grad_(False)
    network(x)[0].sum().backward()
    torch.testing.assert_close(x.grad, expected)
    y = network.requires_grad_(True)(x)[0].sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y, x, create_graph=True)
    y = network(x)[0].sum()
    with torch.no_grad():
        network.hh_l0.values.mul_(2.0)  # type: ignore[union-attr, operator]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    x.requires_grad_(False)
    network.ih_l0.requires_grad_(False)
    network.zero_grad()
    network(x)[0][1].sum().backward()  # of one step alone, to the hidden weights alone
    assert network.ih_l0.values.grad is None  # type: ignore[union-attr]
    assert network.hh_l0.values.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("kind", KINDS)
def test_its_products_are_layers_like_others(kind: type[SparseRecurrent]) -> None:
    network = made(kind, 0.25)
    rows = kind.gates * 8
    assert {name: layer.shape for name, layer in linear_layers(network).items()} == {
        "ih_l0": (rows, 5), "hh_l0": (rows, 8), "ih_l1": (rows, 8), "hh_l1": (rows, 8),
    }  # fmt: skip
    assert {name.rpartition(".")[2] for name, _ in network.named_parameters()} == {"values", "bias"}
    assert sum(layer.weights.numel() for layer in linear_layers(network).values()) == rows * 29 // 4
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    other = made(kind, 0.5)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x)[0], network(x)[0])
    torch.testing.assert_close(dense_copy(network)(x)[0], network(x)[0])
    assert repr(network).startswith(f"{kind.__name__}(\n  5, 8, num_layers=2")


def test_topologies_are_those_of_the_config() -> None:
    options: dict[str, Any] = {"seed": 3, "name": "net"}
    gmp = TopologyConfig(method="gmp", density=0.1, allocation="uniform")
    network = SparseLSTM.random(5, 8, topology=gmp, **options)
    assert network.goals == {"ih_l0": 16, "hh_l0": 26}
    assert [layer.density for layer in network.children()] == [1.0, 1.0]  # it prunes from dense
    bound = 8**-0.5
    assert all(parameter.abs().max() <= bound for parameter in network.parameters())
    assert network.ih_l0.values.abs().max() > 0.9 * bound  # type: ignore[union-attr]
    scaled = SparseLSTM.random(5, 8, topology=TopologyConfig("static", 0.2, initial_value="normal"), **options)
    assert scaled.hh_l0.values.std() < 0.1  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"initial_topology snip judges .* not those of SparseLSTM: use random"):
        SparseLSTM.random(5, 8, topology=TopologyConfig(method="snip"), **options)


def test_dropout_stands_between_layers_and_in_training_alone() -> None:
    network = made(SparseLSTM, dropout=0.5)
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(network.eval()(x)[0], twin_of(network)(x)[0])
    network.train()
    torch.manual_seed(1)
    dropped = network(x)[0]
    torch.manual_seed(1)
    assert torch.equal(network(x)[0], dropped)
    assert not torch.allclose(network(x)[0], dropped)


def pair(gates: int = 4, n_in: int = 5) -> tuple[SparseLinear, SparseLinear]:
    return sparse(gates * 2, n_in, [0, 3]), sparse(gates * 2, 2, [1])


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        (lambda net: net(nn.utils.rnn.pack_sequence([torch.ones(3, 5)])), ConfigError, "no packed sequences: pad them"),
        (lambda net: net(torch.ones(4, 2, 3)), ConfigError, r"takes sequences \(L, N, 5\), got \(4, 2, 3\)"),
        (lambda net: net(torch.ones(5)), ConfigError, r"takes sequences \(L, N, 5\), got \(5,\)"),
        (lambda net: net(torch.ones(0, 2, 5)), ConfigError, r"one step or more, got \(0, 2, 5\)"),
        (
            lambda net: net(torch.ones(4, 3, 5), torch.ones(1, 3, 2)),
            ConfigError,
            r"must be 2 x \(1, 3, 2\), got \[\(1, 3, 2\)\]",
        ),
        (
            lambda net: net(torch.ones(4, 3, 5), (torch.ones(1, 3, 2), torch.ones(1, 1, 2))),
            ConfigError,
            r"must be 2 x \(1, 3, 2\), got \[\(1, 3, 2\), \(1, 1, 2\)\]",
        ),
        (lambda net: SparseLSTM([pair(), pair()]), TopologyError, r"ih_l1 of SparseLSTM must be \(8, 2\), got "),
        (lambda net: SparseGRU([pair()]), TopologyError, r"ih_l0 of SparseGRU must be \(6, 5\), got \(8, 5\)"),
        (lambda net: SparseGRU([pair(3)], dropout=1.5), ConfigError, r"dropout must be in \[0, 1\], got 1.5"),
    ],
)  # fmt: skip
def test_refusals(do: Callable[[SparseLSTM], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        do(SparseLSTM([pair()]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_sequences_is_taken(kind: type[SparseRecurrent]) -> None:
    network = made(kind)
    outputs, state = network(torch.zeros(4, 0, 5, dtype=torch.float64, requires_grad=True))
    assert outputs.shape == (4, 0, 8)
    assert {part.shape for part in as_tuple(state)} == {(2, 0, 8)}
    outputs.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [False, True])
def test_weights_that_change_before_the_way_back_are_refused(kind: type[SparseRecurrent], frozen: bool) -> None:
    network = made(kind, num_layers=1)
    layer = network.get_submodule("hh_l0")
    layer.requires_grad_(not frozen)
    outputs, _ = network(torch.ones(4, 2, 5, dtype=torch.float64, requires_grad=True))
    with torch.no_grad():
        layer.values.mul_(3.0)  # type: ignore[union-attr, operator]  # a SparseLinear
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
