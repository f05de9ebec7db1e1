"""Gradient flow and the signal-to-noise ratio of gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.layers import random_layer, sparse

from sparserl.layers import SparseLinear
from sparserl.metrics.gradients import gradient_flow, gradient_metrics, gradient_norm, signal_to_noise

# catalogue.md 12: gradients (3, -4, 0, 1) of which 0, 1 and 3 exist, and (.6, .8).
LAYERS = [np.array([3.0, -4.0, 1.0]), np.array([0.6, 0.8])]


@pytest.mark.parametrize(
    ("power", "flow", "per_connection", "norm"), [(1, 4.7, 1.6833, 9.4), (2, 3.0495, 1.0998, 5.196)]
)
def test_the_reference_numbers(power: int, flow: float, per_connection: float, norm: float) -> None:
    assert gradient_flow(LAYERS, power) == pytest.approx(flow, abs=1e-4)
    assert gradient_flow(LAYERS, power, per_connection=True) == pytest.approx(per_connection, abs=1e-4)
    assert gradient_norm(LAYERS, power) == pytest.approx(norm, abs=1e-3)


@pytest.mark.parametrize("layers", [[], [np.empty(0)]])
def test_without_connections_nothing_is_known(layers: Sequence[np.ndarray]) -> None:
    assert math.isnan(gradient_flow(layers))
    assert math.isnan(gradient_norm(layers))
    assert math.isnan(signal_to_noise(np.empty(0), np.empty(0)))
    assert gradient_flow([*layers, *LAYERS]) == gradient_flow(LAYERS)


def test_signal_to_noise_of_the_reference() -> None:
    # Samples 1, 3 and 2: mean 2, standard deviation .8165.
    assert signal_to_noise(np.array([2.0]), np.array([14.0 / 3.0])) == pytest.approx(2.449, abs=1e-3)
    # Samples 1, -1: no signal. The mean over weights.
    assert signal_to_noise(np.array([2.0, 0.0]), np.array([14.0 / 3.0, 1.0])) == pytest.approx(1.2247, abs=1e-4)
    assert signal_to_noise(np.zeros(1), np.zeros(1)) == 0.0


def test_metrics_of_layers_against_gradients_of_single_samples() -> None:
    torch.manual_seed(0)
    first, second = random_layer(0), random_layer(1, n_out=3, n_in=6, nnz=9)
    layers: dict[str, SparseLinear] = {"net.0": first, "net.1": second}
    x = torch.randn(9, 7)

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        squares: torch.Tensor = second(torch.relu(first(inputs))).square().sum(dim=1)
        return squares.mean()

    for layer in layers.values():
        layer.capture = True
    loss(x).backward()
    for layer in layers.values():
        layer.capture = False
    found = gradient_metrics(layers)
    singles = {name: [] for name in layers}  # type: dict[str, list[np.ndarray]]
    for sample in x:
        gradients = torch.autograd.grad(loss(sample[None]), [layer.values for layer in layers.values()])
        for name, gradient in zip(layers, gradients, strict=True):
            singles[name].append(gradient.double().numpy())
    ratios = {name: np.abs(np.mean(one, axis=0)) / (np.std(one, axis=0) + 1e-10) for name, one in singles.items()}
    means = {name: np.mean(one, axis=0) for name, one in singles.items()}
    for name in layers:
        assert found[f"topology/{name}/gradient_norm"] == pytest.approx(np.linalg.norm(means[name]), rel=1e-4)
        alive = np.std(singles[name], axis=0) > 1e-6
        assert alive.sum() > 5
        assert found[f"topology/{name}/gradient_snr"] == pytest.approx(ratios[name].mean(), rel=1e-3)
    assert found["topology/gradient_snr"] == pytest.approx(np.concatenate(list(ratios.values())).mean(), rel=1e-3)
    assert found["topology/gradient_flow"] == pytest.approx(gradient_flow(list(means.values())), rel=1e-4)
    assert found["topology/gradient_norm"] == pytest.approx(gradient_norm(list(means.values())), rel=1e-4)


def test_only_what_is_known_is_there() -> None:
    layer, other = sparse(1, 4, [0, 2], [1.0, 2.0]), sparse(1, 4, [1])
    assert gradient_metrics({"net.0": layer}) == {}
    layer.values.grad = torch.tensor([3.0, 4.0])
    assert gradient_metrics({"net.0": layer, "net.1": other}) == {
        "topology/net.0/gradient_norm": 5.0,
        "topology/gradient_norm": 5.0,
        "topology/gradient_flow": 5.0,
        "topology/gradient_flow_per_connection": 2.5,
    }
