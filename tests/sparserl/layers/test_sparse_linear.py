"""`SparseLinear`: the products and gradients of one layer, and its topology through `state_dict`, copy and events."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracle.masked_dense import MaskedMLP, dense_weight
from torch import nn

from sparserl.errors import TopologyError
from sparserl.kernels import BACKENDS, use_backend
from sparserl.layers import SparseLinear
from sparserl.topology.rewire import exchange, random_topology
from sparserl.topology.structure import SparseTopology


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def layer_of(n_out: int, n_in: int, nnz: int, seed: int = 0, **kwargs: object) -> SparseLinear:
    topology = random_topology(n_out, n_in, nnz, np.random.default_rng(seed))
    return SparseLinear(topology, **kwargs)  # type: ignore[arg-type]


def same_output(a: SparseLinear, b: SparseLinear) -> bool:
    x = torch.linspace(-1, 1, 3 * a.n_in).reshape(3, a.n_in)
    return torch.equal(a(x), b(x))


def test_only_connections_and_biases_are_parameters() -> None:
    layer = layer_of(7, 5, 9)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"values": (9,), "bias": (7,)}
    assert list(layer.buffers()) == []
    assert {name: tuple(stored.shape) for name, stored in layer.state_dict().items()} == {
        "values": (9,), "bias": (7,), "row_ptr": (8,), "col": (9,)
    }  # fmt: skip
    assert layer.nnz == 9
    assert layer.density == 9 / 35
    assert layer.values.dtype == torch.float32


def test_initial_weights_are_those_of_a_dense_layer() -> None:
    layer = layer_of(100, 25, 2000)
    assert 0.19 < layer.values.detach().abs().max() <= 0.2  # 1 / sqrt(25): the dense fan-in
    assert 0.19 < layer.bias.detach().abs().max() <= 0.2
    assert abs(layer.values.detach().mean()) < 0.01


def test_worked_by_hand() -> None:
    layer = SparseLinear(SparseTopology(3, 2, np.array([1, 4, 5])))  # (0, 1), (2, 0), (2, 1); output 1 has none
    with torch.no_grad():
        layer.values.copy_(torch.tensor([2.0, 3.0, 5.0]))
        layer.bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
    x = torch.tensor([[1.0, 7.0], [0.0, 1.0]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[24.0, 20.0, 68.0], [12.0, 20.0, 35.0]]
    y.backward(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]]))
    assert layer.values.grad.tolist() == [7.0, 1.0, 9.0]
    assert layer.bias.grad.tolist() == [1.0, 1.0, 3.0]
    assert x.grad.tolist() == [[3.0, 7.0], [6.0, 10.0]]


@pytest.mark.parametrize("shape", [(4,), (1, 4), (6, 4), (2, 3, 4), (2, 1, 3, 4), (0, 4), (2, 0, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_takes_any_leading_shape(shape: tuple[int, ...], bias: bool) -> None:
    layer = layer_of(5, 4, 11, bias=bias, dtype=torch.float64)
    twin = MaskedMLP([layer], ["identity"])
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (*shape[:-1], 5)
    torch.testing.assert_close(y, twin(x))
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(dx, torch.autograd.grad(twin(x).square().sum(), x)[0])


def test_takes_non_contiguous_input() -> None:
    layer = layer_of(5, 4, 11)
    x = torch.randn(8, 3, 6)[::2, :, 1:5].transpose(0, 1)
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_output_may_be_modified_in_place() -> None:
    model = nn.Sequential(layer_of(5, 4, 11), nn.ReLU(inplace=True), layer_of(1, 5, 3))
    x = torch.randn(6, 4)
    expected = torch.relu(model[0](x)) @ dense_weight(model[2])[0].T + model[2].bias
    y = model(x)
    torch.testing.assert_close(y, expected)
    y.mul_(2.0).sum().backward()
    assert model[2].bias.grad.tolist() == [12.0]


@pytest.mark.parametrize("width", [3, 5])
def test_refuses_another_width(width: int) -> None:
    with pytest.raises(ValueError, match=f"takes 4 torch.float32 features, got {width} of"):
        layer_of(5, 4, 11)(torch.zeros(2, width))


def test_refuses_another_dtype() -> None:
    with pytest.raises(ValueError, match=r"takes 4 torch.float32 features, got 4 of torch.float64"):
        layer_of(5, 4, 11)(torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_out", "n_in", "nnz"), [(5, 4, 11), (1, 1, 1), (3, 9, 27), (6, 3, 2), (4, 4, 0)])
def test_gradcheck(backend: str, n_out: int, n_in: int, nnz: int) -> None:
    layer = layer_of(n_out, n_in, nnz, dtype=torch.float64)
    x = torch.randn(3, n_in, dtype=torch.float64, requires_grad=True)
    with use_backend(backend):
        assert torch.autograd.gradcheck(lambda x, *parameters: layer(x), (x, *layer.parameters()))


def test_second_derivative_is_refused() -> None:
    layer, x = layer_of(5, 4, 11), torch.randn(3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


def test_state_dict_goes_into_a_layer_of_another_topology() -> None:
    stored, layer = layer_of(6, 5, 13, seed=1), layer_of(6, 5, 20, seed=2)
    layer(torch.zeros(1, 5)).sum().backward()  # indices of the old topology are in use
    values = layer.values
    layer.load_state_dict(stored.state_dict())
    assert layer.values is values
    assert layer.values.grad is None
    assert layer.nnz == 13
    np.testing.assert_array_equal(layer.topology.flat, stored.topology.flat)
    assert same_output(layer, stored)
    layer(torch.ones(2, 5)).sum().backward()
    stored(torch.ones(2, 5)).sum().backward()
    assert torch.equal(layer.values.grad, stored.values.grad)


def test_state_dict_is_copied() -> None:
    stored, layer = layer_of(6, 5, 13, seed=1), layer_of(6, 5, 13, seed=2)
    layer.load_state_dict(stored.state_dict())
    with torch.no_grad():
        layer.values.zero_()
    assert stored.values.abs().min() > 0


def test_state_dict_inside_a_model() -> None:
    models = [nn.Sequential(layer_of(6, 5, nnz), nn.Tanh(), layer_of(2, 6, nnz - 3)) for nnz in (13, 7)]
    models[1].load_state_dict(models[0].state_dict())
    assert torch.equal(models[0](torch.ones(2, 5)), models[1](torch.ones(2, 5)))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda state: layer_of(7, 5, 13).state_dict(), id="more outputs"),
        pytest.param(lambda state: {**state, "values": state["values"][:-1]}, id="fewer values"),
        pytest.param(lambda state: {**state, "col": state["col"][:-1]}, id="fewer inputs"),
        pytest.param(lambda state: {**state, "col": state["col"] + 5}, id="inputs out of range"),
        pytest.param(lambda state: {**state, "col": torch.zeros_like(state["col"])}, id="a connection twice"),
    ],
)
def test_ill_fitting_state_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    stored, layer = layer_of(6, 5, 13), layer_of(6, 5, 20)
    with pytest.raises(TopologyError):
        layer.load_state_dict(spoil(stored.state_dict()))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["values", "row_ptr", "col"])
def test_weights_and_connections_load_together_or_not_at_all(name: str, strict: bool) -> None:
    state = layer_of(6, 5, 13).state_dict()
    del state[name]
    layer = layer_of(6, 5, 9)
    before = layer.topology.flat
    with pytest.raises(TopologyError, match=f"load together, but the state has no {name}$"):
        layer.load_state_dict(state, strict=strict)
    assert np.array_equal(layer.topology.flat, before)
    assert layer.nnz == 9


def test_without_any_of_them_torch_says_what_is_missing() -> None:
    layer = layer_of(6, 5, 9)
    found = layer.load_state_dict({"bias": torch.ones(6)}, strict=False)
    assert (sorted(found.missing_keys), found.unexpected_keys) == (["col", "row_ptr", "values"], [])
    assert layer.bias.tolist() == [1.0] * 6
    with pytest.raises(RuntimeError, match="values"):
        layer.load_state_dict({"bias": torch.ones(6)})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight"):
        layer.load_state_dict({**layer.state_dict(), "weight": torch.ones(1)})


def test_assigned_values_are_still_the_same_parameter() -> None:
    layer, other = layer_of(6, 5, 9), layer_of(6, 5, 13, seed=1)
    values, state = layer.values, {name: tensor.double() for name, tensor in other.state_dict().items()}
    state |= {name: other.state_dict()[name] for name in ("row_ptr", "col")}
    layer.load_state_dict(state, assign=True)
    assert layer.values is values
    assert layer.values.data_ptr() == state["values"].data_ptr()
    assert layer.values.dtype == layer.bias.dtype == torch.float64
    x = torch.ones(2, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), other.double()(x))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"row_ptr": torch.arange(7.0)}, "whole numbers and never averaged or cast, got torch.float32"),
        ({"row_ptr": torch.tensor([0, 4, 3, 5, 7, 9, 13])}, "does not fit 6 x 5"),
        ({"row_ptr": torch.tensor([1, 3, 3, 5, 7, 9, 13])}, "does not fit 6 x 5"),
        ({"row_ptr": torch.tensor([0, 13])}, "does not fit 6 x 5"),
        ({"col": torch.full((13,), 5, dtype=torch.int32)}, "does not fit 6 x 5"),
        ({"col": torch.zeros(13, dtype=torch.int32)}, "must be strictly increasing"),
        ({"values": torch.zeros(12)}, "does not fit 6 x 5"),
    ],
)
def test_indices_that_cannot_be_are_refused_and_change_nothing(spoil: dict[str, torch.Tensor], message: str) -> None:
    layer = layer_of(6, 5, 9)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(TopologyError, match=message):
        layer.load_state_dict({**layer_of(6, 5, 13).state_dict(), **spoil})
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_changing_a_state_in_place_changes_no_index() -> None:
    layer = layer_of(6, 5, 13)
    before = layer.topology.flat.copy()
    for tensor in layer.state_dict().values():
        tensor.zero_()  # as an average over states does
    assert np.array_equal(
        SparseLinear.of(layer.topology, layer.values.detach(), None).index.row_ptr, layer.index.row_ptr
    )
    assert np.array_equal(layer.topology.flat, before)
    assert layer.col.any()


@pytest.mark.parametrize("used", [False, True])
def test_deepcopy_is_independent(used: bool) -> None:
    layer = layer_of(6, 5, 13)
    if used:
        layer(torch.ones(2, 5)).sum().backward()
    twin = copy.deepcopy(layer)
    assert same_output(layer, twin)
    assert twin.values is not layer.values
    change = exchange(twin.topology, np.arange(13), np.array([3, 8]))
    twin.apply_change(change, 1.0)
    assert (layer.nnz, twin.nnz) == (13, 2)
    twin(torch.ones(2, 5)).sum().backward()
    assert layer.values.grad is None or layer.values.grad.shape == (13,)
    with torch.no_grad():
        twin.col.zero_()
    assert layer.topology.nnz == 13
    layer.topology.check_valid()


def test_apply_change_keeps_parameter_and_survivors() -> None:
    layer = layer_of(6, 5, 13)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2, 5)).sum().backward()
    before, old, values = layer.values.detach().clone(), layer.topology, layer.values
    free = np.setdiff1d(np.arange(30), old.flat)[[0, 5, 9, 16]]
    change = exchange(old, np.array([0, 6, 12]), free)
    layer.apply_change(change, np.array([1.0, 2.0, 3.0, 4.0], np.float32))
    assert layer.values is values
    assert optimizer.param_groups[0]["params"][0] is values
    assert layer.values.grad is None
    assert layer.nnz == layer.values.numel() == 14
    assert layer.topology is change.new
    after = dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True))
    expected = dict(zip(old.flat.tolist(), before.tolist(), strict=True))
    for position in old.flat[[0, 6, 12]].tolist():
        del expected[position]
    expected.update(zip(free.tolist(), [1.0, 2.0, 3.0, 4.0], strict=True))
    assert after == expected
    # Products and gradients are those of the new topology.
    twin, x = MaskedMLP([layer], ["identity"]), torch.randn(4, 5)
    torch.testing.assert_close(layer(x), twin(x))
    layer(x).square().sum().backward()
    twin(x).square().sum().backward()
    torch.testing.assert_close(layer.values.grad, twin.gather(0, twin.weights[0].grad))


def test_change_of_another_topology_is_refused() -> None:
    change = exchange(layer_of(6, 5, 20).topology, np.array([0]), np.empty(0, np.int64))
    with pytest.raises(TopologyError, match="another topology"):
        layer_of(6, 5, 13).apply_change(change)


def test_exact_zero_is_a_connection() -> None:
    layer = layer_of(6, 5, 13)
    with torch.no_grad():
        layer.values.zero_()
    layer(torch.ones(2, 5)).sum().backward()
    assert layer.nnz == layer.topology.nnz == 13
    assert layer.values.grad.tolist() == [2.0] * 13
    fresh = layer_of(6, 5, 4)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.nnz == 13


def test_without_bias() -> None:
    layer = layer_of(6, 5, 13, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["values", "row_ptr", "col"]
    assert layer(torch.zeros(2, 5)).abs().sum() == 0


def test_a_graph_that_is_still_held_does_not_hold_the_old_length() -> None:
    """A training loop that keeps its last loss holds the node to which torch would add the next gradient."""
    layer = SparseLinear(random_topology(5, 7, 20, np.random.default_rng(0)))
    held = [layer(torch.ones(3, 7)).sum()]
    held[0].backward()
    for change in (
        exchange(layer.topology, np.arange(8), np.empty(0, np.int64)),
        exchange(SparseTopology(5, 7, layer.topology.flat[8:]), np.arange(3), np.empty(0, np.int64)),
    ):
        layer.apply_change(change)
        held.append(layer(torch.ones(3, 7)).sum())
        held[-1].backward()
        assert layer.values.grad is not None
        assert layer.values.grad.shape == (change.new.nnz,)
    larger = SparseLinear(random_topology(5, 7, 30, np.random.default_rng(1)))
    layer.load_state_dict(larger.state_dict())
    layer(torch.ones(3, 7)).sum().backward()
    assert layer.values.grad is not None
    assert layer.values.grad.shape == (30,)


def test_view_shows_what_was_captured() -> None:
    layer = layer_of(6, 5, 13)
    assert layer.view().samples == ()
    layer.capture = True
    x = torch.randn(3, 5)
    layer(x).square().sum().backward()
    layer(2 * x).sum().backward()
    (first_x, first_dy), (second_x, second_dy) = layer.view().samples
    np.testing.assert_array_equal(first_x, x.T)
    np.testing.assert_allclose(first_dy, 2 * layer(x).detach().T, rtol=1e-6)
    np.testing.assert_array_equal(second_x, 2 * x.T)
    np.testing.assert_array_equal(second_dy, np.ones((6, 3)))
    np.testing.assert_array_equal(layer.view().values, layer.values.detach())


@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_captured_holds_no_graph(batch: int) -> None:
    model = nn.Sequential(layer_of(6, 5, 13), layer_of(1, 6, 4))
    for layer in model:
        layer.capture = True
    model(torch.randn(batch, 5, requires_grad=True)).sum().backward()
    for layer in model:
        assert not any(tensor.requires_grad for pair in layer.activation_pairs for tensor in pair)
        assert [x.shape for x, _ in layer.view().samples] == [(layer.n_in, batch)]


def test_invalid_topology_is_refused() -> None:
    with pytest.raises(TopologyError, match="strictly increasing"):
        SparseLinear(SparseTopology(2, 2, np.array([1, 1])))


def test_double_moves_values_and_keeps_indices() -> None:
    layer = layer_of(6, 5, 13).double()
    assert layer(torch.ones(2, 5, dtype=torch.float64)).dtype == torch.float64
    assert (layer.row_ptr.dtype, layer.col.dtype) == (torch.int64, torch.int32)


def test_repr_says_how_sparse() -> None:
    assert repr(layer_of(4, 20, 8)) == "SparseLinear(20 -> 4, nnz=8, density=0.1)"
