"""`SparseMLP` against the masked dense twin: outputs, gradients, and learning across topology events."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pytest
import torch
from oracle.masked_dense import MaskedMLP
from torch import nn

from sparserl.layers import SparseLinear, SparseMLP, sparse_mlp
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import SparseTopology

BATCHES = [1, 7, 16, 17, 100, 256]
TOLERANCE = {torch.float32: {"rtol": 2e-4, "atol": 2e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-11}}


def sparse(n_in: int, n_out: int, density: float, bias: bool = True) -> SparseLinear:
    nnz = round(density * n_in * n_out)
    return SparseLinear(random_topology(n_out, n_in, nnz, np.random.default_rng(n_in + 100 * n_out)), bias)


def with_gaps(n_in: int, n_out: int) -> SparseLinear:
    mask = np.random.default_rng(0).random((n_out, n_in)) < 0.5
    mask[[0, 3, n_out - 1]] = False
    mask[:, [1, n_in - 1]] = False
    return SparseLinear(SparseTopology(n_out, n_in, np.flatnonzero(mask)))


LAYERS = {
    "odd widths": lambda: [sparse(17, 33, 0.3), sparse(33, 21, 0.2), sparse(21, 3, 0.5)],
    "empty rows and columns": lambda: [with_gaps(9, 14), with_gaps(14, 11), sparse(11, 2, 0.3)],
    "one neuron a layer": lambda: [sparse(1, 1, 1.0), sparse(1, 1, 1.0), sparse(1, 1, 1.0)],
    "one neuron in the middle": lambda: [sparse(6, 1, 0.5), sparse(1, 7, 0.6)],
    "density 1": lambda: [sparse(5, 12, 1.0), sparse(12, 12, 1.0), sparse(12, 1, 1.0)],
    "dense ends": lambda: [nn.Linear(6, 15), sparse(15, 13, 0.2), nn.Linear(13, 4)],
    "dense in the middle": lambda: [sparse(6, 15, 0.4), nn.Linear(15, 13), sparse(13, 4, 0.4)],
    "no bias": lambda: [sparse(6, 15, 0.4, bias=False), nn.Linear(15, 9, bias=False), sparse(9, 4, 0.4, bias=False)],
    "one layer": lambda: [sparse(6, 15, 0.3)],
    "no connection in one layer": lambda: [sparse(6, 15, 0.4), sparse(15, 9, 0.0), sparse(9, 4, 0.5)],
}


def network(name: str, activation: str, dtype: torch.dtype = torch.float64, output: str = "identity") -> SparseMLP:
    torch.manual_seed(0)
    return SparseMLP(LAYERS[name](), activation, output).to(dtype)


def width(mlp: SparseMLP) -> int:
    first = mlp[0]
    return first.in_features if isinstance(first, nn.Linear) else first.n_in


def assert_same_gradients(mlp: Sequence[nn.Module], twin: MaskedMLP, **close: float) -> None:
    for position, layer in enumerate(mlp):
        weight, bias = twin.weights[position].grad, twin.biases[position]
        if isinstance(layer, nn.Linear):
            torch.testing.assert_close(layer.weight.grad, weight, **close)
        else:
            torch.testing.assert_close(layer.values.grad, twin.gather(position, weight), **close)
        if bias is not None:
            torch.testing.assert_close(layer.bias.grad, bias.grad, **close)


@pytest.mark.parametrize("joined_up_to", [128, 0], ids=["dense layers joined", "dense layers alone"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", LAYERS)
def test_output_and_gradients_equal_the_masked_dense_twin(
    name: str, activation: str, dtype: torch.dtype, joined_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_mlp, "JOINED_UP_TO", joined_up_to)
    mlp = network(name, activation, dtype, output="tanh")
    for batch in BATCHES:
        twin = MaskedMLP(mlp, mlp.activations)
        x = torch.randn(batch, width(mlp), dtype=dtype, requires_grad=True)
        x_twin = x.detach().clone().requires_grad_()
        y, y_twin = mlp(x), twin(x_twin)
        torch.testing.assert_close(y, y_twin, **TOLERANCE[dtype])
        mlp.zero_grad()
        dy = torch.randn_like(y)
        y.backward(dy)
        y_twin.backward(dy)
        torch.testing.assert_close(x.grad, x_twin.grad, **TOLERANCE[dtype])
        assert_same_gradients(mlp, twin, **TOLERANCE[dtype])


@pytest.mark.parametrize(("activation", "batch"), list(zip(cycle(["relu", "tanh"]), BATCHES, strict=False)))
@pytest.mark.parametrize("name", LAYERS)
def test_twenty_adam_steps_with_two_events_equal_the_masked_dense_twin(name: str, activation: str, batch: int) -> None:
    mlp = network(name, activation)
    twin = MaskedMLP(mlp, mlp.activations, lr=1e-2)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=1e-2)
    layers = {str(i): layer for i, layer in enumerate(mlp) if isinstance(layer, SparseLinear)}
    rule = RewireRule(
        "weight_magnitude", "random", drop_fraction=0.4, update_interval=7, first_update=6, last_update=19
    )
    evolver = TopologyEvolver({"net": layers}, rule, seed=3, new_value="uniform")
    for key, layer in layers.items():
        evolver.follow(key, OptimizerMoments(optimizer, layer.values))
        evolver.follow(key, lambda change, grown_values, position=int(key): twin.apply(position, change, grown_values))
    for update in range(1, 21):
        x = torch.randn(batch, width(mlp), dtype=torch.float64)
        evolver.begin_update(update)
        optimizer.zero_grad()
        mlp(x).sub(1.0).square().mean().backward()
        twin(x).sub(1.0).square().mean().backward()
        optimizer.step()
        twin.step()
        evolver.end_update("net")
    assert sorted({event.update for event in evolver.events}) == [0, 6, 13]
    for position, layer in enumerate(mlp):
        weight, bias = twin.weights[position].detach(), twin.biases[position]
        values = layer.weight if isinstance(layer, nn.Linear) else layer.values
        expected = weight if isinstance(layer, nn.Linear) else twin.gather(position, weight)
        torch.testing.assert_close(values.detach(), expected, rtol=1e-6, atol=1e-8)
        if bias is not None:
            torch.testing.assert_close(layer.bias.detach(), bias.detach(), rtol=1e-6, atol=1e-8)


def test_frozen_parameters_let_gradients_through() -> None:
    mlp = network("dense ends", "tanh")
    twin, x = MaskedMLP(mlp, mlp.activations), torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(twin(x).square().sum(), x)[0]
    mlp.requires_grad_(False)
    (dx,) = torch.autograd.grad(mlp(x).square().sum(), x)
    torch.testing.assert_close(dx, expected)
    assert all(p.grad is None for p in mlp.parameters())
    assert not mlp(x.detach()).requires_grad


@pytest.mark.parametrize("trained", range(6))
def test_any_one_parameter_may_be_trained(trained: int) -> None:
    mlp = network("odd widths", "relu")
    mlp(x := torch.randn(9, 17, dtype=torch.float64)).square().sum().backward()
    expected = [p.grad.clone() for p in mlp.parameters()]
    mlp.zero_grad()
    for position, parameter in enumerate(mlp.parameters()):
        parameter.requires_grad_(position == trained)
    mlp(x).square().sum().backward()
    for position, parameter in enumerate(mlp.parameters()):
        if position == trained:
            assert torch.equal(parameter.grad, expected[position])
        else:
            assert parameter.grad is None


def test_gradients_accumulate_over_passes() -> None:
    mlp = network("odd widths", "relu")
    x = torch.randn(2, 9, 17, dtype=torch.float64)
    mlp(x.flatten(0, 1)).square().sum().backward()
    expected = [p.grad.clone() for p in mlp.parameters()]
    mlp.zero_grad()
    first, second = mlp(x[0]), mlp(x[1])  # both before either backward pass
    first.square().sum().backward()
    second.square().sum().backward()
    for parameter, gradient in zip(mlp.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_gradient_handed_in_is_not_modified() -> None:
    mlp = network("odd widths", "relu", output="tanh")
    dy = torch.ones(9, 3, dtype=torch.float64)
    mlp(torch.randn(9, 17, dtype=torch.float64)).backward(dy)
    assert torch.equal(dy, torch.ones_like(dy))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [1, 5])
def test_passes_modify_neither_input_nor_parameters(name: str, batch: int) -> None:
    mlp = network(name, "relu", output="tanh")
    x = torch.randn(batch, width(mlp), dtype=torch.float64)
    before = [tensor.clone() for tensor in (x, *mlp.parameters())]
    with torch.no_grad():
        first = mlp(x)
    y = mlp(x)
    y.sum().backward()
    torch.testing.assert_close(first, y)
    for tensor, copied in zip((x, *mlp.parameters()), before, strict=True):
        assert torch.equal(tensor, copied)


def test_second_derivative_is_refused() -> None:
    mlp, x = network("odd widths", "tanh"), torch.randn(9, 17, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
    y = mlp(x)
    gradient = torch.ones_like(y, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y, x, gradient, create_graph=True)


def test_capture_holds_input_and_output_gradient_of_the_layer() -> None:
    mlp = network("odd widths", "tanh")
    x = torch.randn(9, 17, dtype=torch.float64)
    mlp[1].capture = True
    mlp(x).square().sum().backward()
    assert [len(layer.activation_pairs) for layer in mlp] == [0, 1, 0]
    twin = MaskedMLP(mlp, mlp.activations)
    hidden = torch.tanh(x @ twin.weights[0].T + twin.biases[0])
    before_activation = hidden @ twin.weights[1].T + twin.biases[1]
    y = torch.tanh(before_activation) @ twin.weights[2].T + twin.biases[2]
    (dy,) = torch.autograd.grad(y.square().sum(), before_activation)
    captured_x, captured_dy = mlp[1].activation_pairs[0]
    torch.testing.assert_close(captured_x, hidden.detach().T)
    torch.testing.assert_close(captured_dy, dy.T)
    # What is captured is all that growth by gradient needs: at the connections it gives the values' own gradient.
    dense = captured_dy @ captured_x.T
    torch.testing.assert_close(twin.gather(1, dense), mlp[1].values.grad)


@pytest.mark.parametrize("frozen", [False, True])
def test_captured_pair_is_still_right_when_everything_has_run(frozen: bool) -> None:
    """No later layer's backward pass may reuse the memory of what was captured."""
    mlp = network("odd widths", "relu")
    for layer in mlp:
        layer.capture = True
        layer.values.requires_grad_(not frozen)
    x = torch.randn(9, 17, dtype=torch.float64, requires_grad=True)
    mlp(x).square().sum().backward()
    twin = MaskedMLP(mlp, mlp.activations)
    twin(x).square().sum().backward()
    for position, layer in enumerate(mlp):
        ((captured_x, captured_dy),) = layer.activation_pairs
        gradient = twin.gather(position, captured_dy @ captured_x.T)
        torch.testing.assert_close(gradient, twin.gather(position, twin.weights[position].grad))


@pytest.mark.parametrize("name", ["odd widths", "dense ends", "one layer"])
def test_output_may_be_modified_in_place(name: str) -> None:
    mlp = network(name, "relu")
    x = torch.randn(9, width(mlp), dtype=torch.float64)
    expected = torch.autograd.grad((2.0 * mlp(x)).square().sum(), list(mlp.parameters()))
    gradients = torch.autograd.grad(mlp(x).mul_(2.0).square().sum(), list(mlp.parameters()))
    for a, b in zip(gradients, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("columns", [16, 18])
def test_refuses_another_width(columns: int) -> None:
    with pytest.raises(ValueError, match=f"takes 17 torch.float64 features, got {columns} of"):
        network("odd widths", "relu")(torch.zeros(2, columns, dtype=torch.float64))


def test_layers_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a layer of \(7,\) torch.float32 does not fit 2 x 6"):
        SparseMLP([sparse(4, 6, 0.5), sparse(7, 2, 0.5)])(torch.zeros(3, 4))


def test_random_has_the_counts_asked_for() -> None:
    mlp = SparseMLP.random([17, 256, 256, 6], [0.5, 0.1, 1.0], seed=0, name="actor.mu")
    assert [type(layer) for layer in mlp] == [SparseLinear, SparseLinear, nn.Linear]
    assert [mlp[0].nnz, mlp[1].nnz] == [2176, 6554]
    again = SparseMLP.random([17, 256, 256, 6], [0.5, 0.1, 1.0], seed=0, name="actor.mu")
    other = SparseMLP.random([17, 256, 256, 6], [0.5, 0.1, 1.0], seed=0, name="critic.qf0")
    np.testing.assert_array_equal(mlp[1].topology.flat, again[1].topology.flat)
    assert not np.array_equal(mlp[1].topology.flat, other[1].topology.flat)


def test_a_network_that_is_to_be_pruned_begins_with_all_connections() -> None:
    pruned = TopologyConfig(method="gmp")
    mlp = SparseMLP.random([17, 256, 256, 6], [0.5, 0.1, 1.0], topology=pruned, seed=0, name="actor.mu")
    assert [type(layer) for layer in mlp] == [SparseLinear, SparseLinear, nn.Linear]
    assert [layer.density for layer in mlp[:2]] == [1.0, 1.0]
    assert mlp.goals == {"0": 2176, "1": 6554}
    assert copy.deepcopy(mlp).goals == mlp.goals
    assert SparseMLP.random([17, 256, 6], [0.5, 1.0], seed=0, name="actor.mu").goals == {}


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of .*, got 'gelu'"):
        SparseMLP([sparse(4, 6, 0.5)], output_activation="gelu")
