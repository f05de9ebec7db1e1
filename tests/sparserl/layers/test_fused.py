"""Layers that run in one call: ensembles, passes without autograd, and whatever may change between two calls."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.fused_ensembles import NETWORKS, WIDTH, assert_equals_twin, backward, ensemble_of, parameters_of, sparse
from torch import nn

from sparserl.layers import SparseEnsemble, SparseLinear, SparseMLP, sparse_mlp
from sparserl.layers.fused import FusedLayers


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


JOINED = [name for name in NETWORKS if name not in ("sigmoid inside", "all dense")]


# --- ensembles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("joined_up_to", [128, 5, 0])
@pytest.mark.parametrize("name", NETWORKS)
def test_ensemble_equals_the_twins(name: str, joined_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_mlp, "JOINED_UP_TO", joined_up_to)
    networks, ensemble = ensemble_of(name)
    narrow = max([min(layer.weight.shape) for layer in networks[0] if isinstance(layer, nn.Linear)], default=0)
    assert (ensemble.joined is not None) == (name in JOINED and narrow <= joined_up_to)
    assert_equals_twin(networks, ensemble)


@pytest.mark.parametrize("batch", [1, 5, 16, 100])
@pytest.mark.parametrize("name", JOINED)
def test_one_call_equals_separate_calls_bit_for_bit(name: str, batch: int) -> None:
    networks, ensemble = ensemble_of(name)
    x = torch.randn(batch, WIDTH)
    together, apart = ensemble(x), [network(x) for network in networks]
    assert ensemble.joined is not None
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(backward(together, networks), backward(apart, networks), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        for a, b in zip(ensemble(x), [network(x) for network in networks], strict=True):
            assert torch.equal(a, b)


def test_gradient_of_one_network_of_an_ensemble() -> None:
    networks, ensemble = ensemble_of("sparse")
    x = torch.randn(9, WIDTH, requires_grad=True)
    ours = torch.autograd.grad(ensemble(x)[1].square().sum(), [x, *parameters_of(networks)])
    alone = torch.autograd.grad(networks[1](x).square().sum(), [x, *networks[1].parameters()])
    assert torch.equal(ours[0], alone[0])
    own = len(alone) - 1
    for place, gradient in enumerate(ours[1:]):
        assert torch.equal(gradient, alone[1 + place - own] if own <= place < 2 * own else torch.zeros_like(gradient))


def test_capture_in_an_ensemble_is_that_of_its_networks() -> None:
    networks, ensemble = ensemble_of("dense ends")
    captures = [networks[0][1], networks[2][1]]
    for layer in captures:
        layer.capture = True
    x = torch.randn(9, WIDTH)
    backward(ensemble(x), networks)
    backward([network(x) for network in networks], networks)
    assert networks[1][1].activation_pairs == []
    for layer in captures:
        (x_together, dy_together), (x_apart, dy_apart) = layer.activation_pairs
        assert (x_together.shape, dy_together.shape) == ((15, 9), (13, 9))
        assert dy_together.abs().sum() > 0
        assert torch.equal(x_together, x_apart)
        assert torch.equal(dy_together, dy_apart)


def test_second_derivative_through_an_ensemble_is_refused() -> None:
    x = torch.randn(9, WIDTH, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(ensemble_of("sparse")[1](x)[0].sum(), x, create_graph=True)


def test_networks_of_other_widths_are_no_ensemble() -> None:
    ensemble = SparseEnsemble([NETWORKS["sparse"](0), SparseMLP([sparse(6, 15, 40), sparse(15, 4, 30)])])
    with pytest.raises(ValueError, match=r"."):
        ensemble(torch.zeros(2, WIDTH))


@pytest.mark.parametrize(
    ("name", "joined_up_to", "parts"),
    [
        ("sparse", 0, [3]),
        ("dense ends", 6, [3]),
        ("dense ends", 5, [0, 2]),
        ("dense ends", 3, [0, 1, 0]),
        ("all dense", 128, [0, 0]),
        ("tanh inside", 128, [2]),
        ("sigmoid inside", 128, [1, 1]),
    ],
)
def test_what_runs_in_one_call(name: str, joined_up_to: int, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_mlp, "JOINED_UP_TO", joined_up_to)
    found = NETWORKS[name](0).parts
    assert [len(part.chains[0]) if isinstance(part, FusedLayers) else 0 for part, _ in found] == parts


# --- passes without autograd ------------------------------------------------------------------------


@pytest.mark.parametrize("name", JOINED)
def test_backward_equals_autograd_bit_for_bit(name: str) -> None:
    networks, ensemble = ensemble_of(name)
    layers, x = ensemble.joined, torch.randn(19, WIDTH, requires_grad=True)
    assert layers is not None
    y = layers(x)
    for scale in (1.0, -3.0):
        dy = scale * torch.randn_like(y)
        dx, *expected = torch.autograd.grad(y, [x, *parameters_of(networks)], dy, retain_graph=True)
        for parameter in parameters_of(networks):
            parameter.grad = torch.full_like(parameter, 7.0)
        taken = layers.run([x])
        assert np.array_equal(taken.y, y.detach())
        assert np.array_equal(taken.backward_to_input(dy), dx)
        assert np.array_equal(taken.backward_to_input(dy, 3), dx[:, -3:])
        assert all(bool((parameter.grad == 7.0).all()) for parameter in parameters_of(networks))
        for _ in range(2):  # what was there is replaced
            taken.backward(dy)
            for parameter, gradient in zip(parameters_of(networks), expected, strict=True):
                assert torch.equal(parameter.grad, gradient)


def test_backward_leaves_frozen_parameters_alone() -> None:
    networks, ensemble = ensemble_of("dense ends", 2)
    x, dy = torch.randn(19, WIDTH), torch.randn(2, 19, 4)
    assert ensemble.joined is not None
    expected = torch.autograd.grad(ensemble.joined(x), parameters_of(networks), dy)
    for trained in ([1, 4, 7], [5], [], [0, 11]):
        for place, parameter in enumerate(parameters_of(networks)):
            parameter.grad = None
            parameter.requires_grad_(place in trained)
        ensemble.joined.run([x]).backward(dy)
        for place, parameter in enumerate(parameters_of(networks)):
            assert torch.equal(parameter.grad, expected[place]) if place in trained else parameter.grad is None


def test_backward_captures_what_is_trained_and_the_way_to_the_input_nothing() -> None:
    networks, ensemble = ensemble_of("sparse", 2)
    x, dy = torch.randn(19, WIDTH), torch.randn(2, 19, 4)
    networks[1][1].capture = True
    assert ensemble.joined is not None
    taken = ensemble.joined.run([x])
    taken.backward(dy)
    taken.backward_to_input(dy)
    for parameter in parameters_of(networks):
        parameter.requires_grad_(False)
    taken.backward(dy)
    taken.backward_to_input(dy)
    first, second = networks[1][1].activation_pairs
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


WAYS: dict[str, tuple[Callable[..., Any], bool]] = {
    "backward": (lambda loss, x, own: loss.backward(), True),
    "backward to all parameters": (lambda loss, x, own: loss.backward(inputs=own), True),
    "gradients of parameters": (lambda loss, x, own: torch.autograd.grad(loss, own), True),
    "gradients of both": (lambda loss, x, own: torch.autograd.grad(loss, [x, *own]), True),
    "gradient of the input": (lambda loss, x, own: torch.autograd.grad(loss, x), False),
    "backward to the input": (lambda loss, x, own: loss.backward(inputs=[x]), False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("name", ["sparse", "one layer", "no bias", "tanh inside", "sigmoid inside"])
def test_autograd_captures_passes_that_train_and_no_others(name: str, inner: bool, way: str) -> None:
    network = NETWORKS[name](0)
    layer = network[-1] if isinstance(network[-1], SparseLinear) else network[0]
    layer.capture = True
    x = torch.randn(9, WIDTH, requires_grad=True)
    taken = network(2 * x if inner else x)
    take, trains = WAYS[way]
    take(taken.square().sum(), x, list(network.parameters()))
    assert len(layer.activation_pairs) == trains


def test_each_layer_captures_what_trains_it() -> None:
    network = NETWORKS["sparse"](0)
    for layer in network:
        layer.capture = True
    torch.autograd.grad(network(torch.randn(9, WIDTH, requires_grad=True)).sum(), network[1].values)
    assert [len(layer.activation_pairs) for layer in network] == [0, 1, 0]


def test_gradients_of_autograd_share_no_memory_with_those_of_backward() -> None:
    networks, ensemble = ensemble_of("sparse", 2)
    x, dy = torch.randn(19, WIDTH), torch.randn(2, 19, 4)
    assert ensemble.joined is not None
    y, taken = ensemble.joined(x), ensemble.joined.run([x])
    kept = []
    for scale in (1.0, 2.0, 3.0):
        kept.append(torch.autograd.grad(y, parameters_of(networks), scale * dy, retain_graph=True))
        taken.backward(scale * dy)
        kept.append([parameter.grad.clone() for parameter in parameters_of(networks)])
    for scale, gradients in zip((1.0, 1.0, 2.0, 2.0, 3.0, 3.0), kept, strict=True):
        for gradient, expected in zip(gradients, kept[0], strict=True):
            torch.testing.assert_close(gradient, scale * expected)


# --- passes and memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["autograd", "run"])
def test_a_pass_leaves_no_garbage(through: str) -> None:
    """Its memory is large, so it must go when the pass goes, not when Python looks for cycles."""
    _, ensemble = ensemble_of("sparse")
    x = torch.randn(19, WIDTH)

    def step() -> None:
        assert ensemble.joined is not None
        if through == "autograd":
            torch.stack(list(ensemble(x))).square().sum().backward()
        else:
            taken = ensemble.joined.run([x])
            taken.backward(taken.y)

    step()
    gc.collect()
    gc.disable()
    try:
        step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_graph_may_be_used_twice_with_passes_in_between() -> None:
    networks, ensemble = ensemble_of("sparse")
    x = torch.randn(19, WIDTH)
    outputs = ensemble(x)
    first = backward(outputs, networks)
    for other in (2 * x, 2 * x[:5]):
        backward(ensemble(other), networks)
        with torch.no_grad():
            ensemble(other)
    kept = ensemble(3 * x)
    for a, b in zip(backward(outputs, networks), first, strict=True):
        assert torch.equal(a, b)
    del kept


@pytest.mark.parametrize("name", ["sparse", "dense ends"])
@pytest.mark.parametrize("place", range(6))
def test_parameter_modified_in_place_before_the_way_back_is_refused(name: str, place: int) -> None:
    networks, ensemble = ensemble_of(name, 1)
    outputs = ensemble(torch.randn(9, WIDTH))
    with torch.no_grad():
        parameters_of(networks)[place].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs[0].sum().backward()


def test_graph_is_freed_as_those_of_torch() -> None:
    y = NETWORKS["sparse"](0)(torch.randn(9, WIDTH)).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
