"""Hidden activity: a network worked by hand, then the masked dense twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle.masked_dense import ACTIVATION, MaskedMLP
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.activity import dormant_fraction, features, hidden_activity
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def layer(n_out: int, n_in: int, flat: list[int], values: list[float], bias: list[float]) -> SparseLinear:
    topology = SparseTopology(n_out, n_in, np.array(flat, np.int64))
    return SparseLinear.of(topology, torch.tensor(values), nn.Parameter(torch.tensor(bias)))


def by_hand(activation: str = "relu") -> SparseMLP:
    """Inputs a, b; first hidden layer a + b, -a, 1 (a bias alone); second 2(a + b) - 3 and the silent -1."""
    return SparseMLP(
        [
            layer(3, 2, [0, 1, 2], [1.0, 1.0, -1.0], [0.0, 0.0, 1.0]),
            layer(2, 3, [0], [2.0], [-3.0, -1.0]),
            layer(1, 2, [1], [5.0], [7.0]),
        ],
        activation,
    )


X = torch.tensor([[1.0, 1.0], [-2.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
# a + b: 2, -1, 4, 0; -a: -1, 2, -2, 0. ReLU: 2, 0, 4, 0; 0, 2, 0, 0. Then 2(a + b) - 3: 1, -3, 5, -3.


@DTYPES
def test_worked_by_hand(dtype: torch.dtype) -> None:
    first, second = hidden_activity(by_hand().to(dtype), X.to(dtype))
    assert first.tolist() == [1.5, 0.5, 1.0]
    assert second.tolist() == [1.5, 0.0]
    assert (first.dtype, second.dtype) == (np.float64, np.float64)


@DTYPES
def test_features_are_the_last_hidden_activations(dtype: torch.dtype) -> None:
    network = by_hand().to(dtype)
    assert features(network, X.to(dtype)).tolist() == [[1.0, 0.0], [0.0, 0.0], [5.0, 0.0], [0.0, 0.0]]
    assert network.training


def test_negative_activations_count_by_their_size() -> None:
    first, _ = hidden_activity(by_hand("tanh"), X)
    expected = np.abs(np.tanh([[2.0, -1, 1], [-1, 2, 1], [4, -2, 1], [0, 0, 1]])).mean(0)
    np.testing.assert_allclose(first, expected, rtol=1e-6)


def test_dormant_fraction_worked_by_hand() -> None:
    # Scores 1.5, 0.5, 1 and 2, 0.
    assert dormant_fraction(by_hand(), X, 0.0) == [0.0, 0.5]
    assert dormant_fraction(by_hand(), X, 0.5) == [1 / 3, 0.5]


def test_a_network_without_hidden_layers_has_no_activity() -> None:
    assert hidden_activity(SparseMLP([layer(1, 2, [1], [5.0], [7.0])]), X) == []


@DTYPES
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_equals_the_masked_dense_twin(activation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layers: list[nn.Module] = [
        SparseLinear(random_topology(33, 17, 120, rng)),
        nn.Linear(33, 150),
        nn.Linear(150, 140),
        SparseLinear(random_topology(140, 140, 900, rng), bias=False),
        SparseLinear(random_topology(3, 140, 60, rng)),
    ]
    mlp = SparseMLP(layers, activation).to(dtype)
    x = torch.randn(50, 17, dtype=dtype)
    twin, h = MaskedMLP(mlp, mlp.activations), x
    found = hidden_activity(mlp, x)
    assert len(found) == 4
    for activity, weight, bias in zip(found, twin.weights, twin.biases, strict=False):
        h = h @ weight.detach().T
        h = ACTIVATION[activation](h if bias is None else h + bias.detach())
        np.testing.assert_allclose(activity, h.abs().double().mean(0), rtol=2e-5, atol=1e-6)


def test_leaves_no_trace() -> None:
    mlp = by_hand()
    for part in mlp:
        part.capture = True
    x = X.clone().requires_grad_()
    before = [parameter.detach().clone() for parameter in mlp.parameters()]
    hidden_activity(mlp, x)
    assert x.grad is None
    assert torch.equal(x.detach(), X)
    for parameter, old in zip(mlp.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter.detach(), old)
    assert all(part.activation_pairs == [] for part in mlp)


def test_bad_input_is_refused() -> None:
    with pytest.raises(TopologyError, match="an activity is NaN or infinite"):
        dormant_fraction(by_hand(), X * torch.nan, 0.1)
    with pytest.raises(TopologyError, match="an activity is NaN or infinite"):
        dormant_fraction(by_hand(), X[:0], 0.1)
    with pytest.raises(TopologyError, match="threshold"):
        dormant_fraction(by_hand(), X, 1.0)
