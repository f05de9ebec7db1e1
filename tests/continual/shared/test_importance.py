"""Mean powers of single samples' gradients: by hand, against autograd sample by sample, and what they leave behind."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.continual.shared.importance import mean_gradient_power
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.convolution import Convolution
from sparserl.layers.sparse_cnn import SparseCNN
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology

SAMPLES = 9


def drawn(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([7, *shape]).normal(size=shape).astype(np.float32))


def network_of(
    densities: Sequence[float] = (0.3, 0.5, 1.0), activation: str = "relu", output_activation: str = "identity"
) -> SparseMLP:
    torch.manual_seed(0)
    return SparseMLP.random(
        [6, 11, 7, 3],
        densities,
        seed=0,
        name="network",
        activation=activation,
        output_activation=output_activation,
    )


def sample_by_sample(
    network: SparseMLP, x: torch.Tensor, cotangents: torch.Tensor, power: int
) -> dict[str, torch.Tensor]:
    parameters = dict(network.named_parameters())
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for sample, cotangent in zip(x, cotangents, strict=True):
        gradients = torch.autograd.grad((network(sample[None]) * cotangent).sum(), list(parameters.values()))
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total += gradient.abs() ** power / len(x)
    return totals


# --- by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "first", "first_bias", "second", "second_bias"),
    [
        # Samples (-1, 2) and (3, 1) give hidden (2, 0) and (1, 3): the second neuron is dead in the first sample.
        # Hidden deltas are cotangent * weight where alive: (1 * 10, 0) and (-2 * 10, -2 * 100).
        (1, [(20 + 20) / 2, (0 + 600) / 2], [(10 + 20) / 2, (0 + 200) / 2], [(2 + 2) / 2, (0 + 6) / 2], [(1 + 2) / 2]),
        (
            2,
            [(400 + 400) / 2, (0 + 360_000) / 2],
            [(100 + 400) / 2, (0 + 40_000) / 2],
            [(4 + 4) / 2, (0 + 36) / 2],
            [(1 + 4) / 2],
        ),
    ],
)
def test_two_connections_two_samples(
    power: Literal[1, 2],
    first: list[float],
    first_bias: list[float],
    second: list[float],
    second_bias: list[float],
) -> None:
    # Hidden neuron 0 reads input 1, hidden neuron 1 reads input 0.
    hidden = SparseLinear(SparseTopology(2, 2, np.array([1, 2])))
    output = nn.Linear(2, 1)
    hidden.values.data, hidden.bias.data = torch.ones(2), torch.zeros(2)  # type: ignore[union-attr]
    output.weight.data, output.bias.data = torch.tensor([[10.0, 100.0]]), torch.tensor([5.0])
    x = torch.tensor([[-1.0, 2.0], [3.0, 1.0]])
    found = mean_gradient_power(SparseMLP([hidden, output]), x, torch.tensor([[1.0], [-2.0]]), power)
    assert {name: one.tolist() for name, one in found.items()} == {
        "0.values": first,
        "0.bias": first_bias,
        "1.weight": [second],
        "1.bias": second_bias,
    }


# --- against autograd ---------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("output_activation", ["identity", "tanh"])
@pytest.mark.parametrize("densities", [(0.3, 0.5, 1.0), (1.0, 0.4, 0.6), (1.0, 1.0, 1.0)], ids=str)
def test_it_is_autograd_sample_by_sample(
    densities: tuple[float, ...], output_activation: str, activation: str, power: Literal[1, 2]
) -> None:
    network = network_of(densities, activation, output_activation)
    x, cotangents = drawn(SAMPLES, 6), drawn(SAMPLES, 3)
    found = mean_gradient_power(network, x, cotangents, power)
    expected = sample_by_sample(network, x, cotangents, power)
    assert list(found) == list(expected)
    for name, importances in expected.items():
        torch.testing.assert_close(found[name], importances, rtol=1e-5, atol=1e-8)
        assert importances.max() > 0.0


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("topology", [TopologyConfig("static", 0.5), TopologyConfig("dense")], ids=["sparse", "dense"])
def test_gradients_at_all_places_of_a_sample_add_up_first(topology: TopologyConfig, power: Literal[1, 2]) -> None:
    torch.manual_seed(0)
    convolutions = [Convolution(4, 3, pooling=2), Convolution(5, 2)]
    network = SparseCNN.of_images((2, 8, 7), convolutions, [6, 3], topology=topology, seed=0, name="network")
    x, cotangents = drawn(SAMPLES, 2 * 8 * 7), drawn(SAMPLES, 3)
    found = mean_gradient_power(network, x, cotangents, power)
    expected = sample_by_sample(network, x, cotangents, power)
    assert list(found) == list(expected)
    for name, importances in expected.items():
        torch.testing.assert_close(found[name], importances, rtol=1e-4, atol=1e-7)
        assert importances.max() > 0.0


def test_gradients_of_opposite_sign_do_not_cancel() -> None:
    network = network_of((1.0, 1.0, 1.0))
    x = drawn(1, 6).repeat(2, 1)
    found = mean_gradient_power(network, x, torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), 1)
    assert found["2.bias"].tolist() == [1.0, 0.0, 0.0]
    assert found["2.weight"][0].max() > 0.0


def test_a_layer_without_biases_or_connections() -> None:
    empty = SparseLinear(SparseTopology(4, 6, np.empty(0, np.int64)))
    network = SparseMLP([empty, nn.Linear(4, 3, bias=False)])
    x, cotangents = drawn(SAMPLES, 6), drawn(SAMPLES, 3)
    found = mean_gradient_power(network, x, cotangents, 2)
    expected = sample_by_sample(network, x, cotangents, 2)
    assert list(found) == ["0.values", "0.bias", "1.weight"]
    for name, importances in expected.items():
        torch.testing.assert_close(found[name], importances)


def test_a_layer_too_large_to_be_dense() -> None:
    # 300,000 x 300,000 weights would be 360 GB.
    n = 300_000
    topology = random_topology(n, n, 40, np.random.default_rng(0))
    found = mean_gradient_power(SparseMLP([SparseLinear(topology)]), torch.ones(2, n), torch.ones(2, n), 1)
    assert found["0.values"].tolist() == [1.0] * 40


# --- what it leaves behind ----------------------------------------------------------------------------


def test_nothing_is_left_behind() -> None:
    network = network_of((0.3, 0.5, 0.6))
    before = copy.deepcopy(network.state_dict())
    for layer in network:
        layer.capture = True  # as between the start of an update and its topology event
    with torch.no_grad():
        found = mean_gradient_power(network, drawn(SAMPLES, 6), drawn(SAMPLES, 3), 2)
    assert all(layer.activation_pairs == [] and layer.capture for layer in network)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(one.requires_grad for one in found.values())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_parameters_that_are_not_trained_are_measured_too() -> None:
    network, frozen = network_of(), network_of().requires_grad_(False)
    x, cotangents = drawn(SAMPLES, 6), drawn(SAMPLES, 3)
    expected = mean_gradient_power(network, x, cotangents, 1)
    for name, importances in mean_gradient_power(frozen, x, cotangents, 1).items():
        assert torch.equal(importances, expected[name])


def test_layers_that_networks_share_are_measured_in_the_network_that_is_asked() -> None:
    first = network_of()
    second = SparseMLP([first[0], first[1], nn.Linear(7, 2)], "tanh")
    alone = copy.deepcopy(second)
    x = drawn(SAMPLES, 6)
    mean_gradient_power(first, x, drawn(SAMPLES, 3), 1)
    found = mean_gradient_power(second, x, drawn(SAMPLES, 2), 1)
    expected = sample_by_sample(alone, x, drawn(SAMPLES, 2), 1)
    for name, importances in expected.items():
        torch.testing.assert_close(found[name], importances, rtol=1e-5, atol=1e-8)
