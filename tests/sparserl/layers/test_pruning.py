"""Networks with a share of their connections, against choices worked out by hand and the masked dense twin."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support.layers import random_layer
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.convert import dense_copy, to_dense
from sparserl.layers.pruning import pruned
from sparserl.topology.pruning import PRUNE


def dense(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows))
    layer.weight.data = torch.tensor(rows)
    return layer


def network() -> SparseMLP:
    """Weights (1, 2, 3) and (.1, .1, .1, .4) of catalogues, as layers of 1 to 3 and of 3 to 1 with one zero."""
    return SparseMLP([dense([1.0], [2.0], [-3.0]), dense([0.1, -0.1, 0.4])], "tanh", "tanh")


def kept(found: SparseMLP) -> list[dict[int, float]]:
    return [
        dict(zip(layer.topology.flat.tolist(), np.round(layer.values.tolist(), 4).tolist(), strict=True))
        for layer in found
        if isinstance(layer, SparseLinear)
    ]


@pytest.mark.parametrize(
    ("by", "first", "second"),
    [
        ("lamp", {1: 2.0, 2: -3.0}, {2: 0.4}),  # scores 1/14 4/13 1 and .01/.18 .01/.17 1
        ("global", {1: 2.0, 2: -3.0}, {2: 0.4}),  # the best of a layer stays
        ("uniform", {2: -3.0}, {1: -0.1, 2: 0.4}),
    ],
)
def test_half_of_six_connections_worked_by_hand(by: str, first: dict[int, float], second: dict[int, float]) -> None:
    found = pruned(network(), 0.5, by, name="net")
    assert kept(found) == [first, second]
    assert found.activations == ["tanh", "tanh"]


def test_importances_decide_where_they_are_asked_for() -> None:
    importances = [np.array([9.0, 0.1, 0.0]), np.array([1.0, 1000.0, 0.0])]
    found = pruned(network(), 2 / 6, "fisher", importances, name="net")
    assert kept(found) == [{0: 1.0}, {1: -0.1}]


@settings(deadline=None)
@given(seed=st.integers(0, 1000), by=st.sampled_from([name for name in PRUNE if name != "fisher"]))
def test_what_stays_computes_what_the_masked_dense_network_does(seed: int, by: str) -> None:
    before = SparseMLP([random_layer(seed, 5, 7, 20), to_dense(random_layer(seed + 1, 3, 5, 15))])
    for layer in before:
        layer.bias = nn.Parameter(torch.linspace(-1, 1, 5 if layer is before[0] else 3))
    twin = dense_copy(before)
    after = pruned(before, 0.3, by, name="net")
    assert sum(layer.nnz for layer in after) == 15  # .3 of 35 + 15 connections
    for layer, own in zip(after, twin, strict=True):
        mask = torch.zeros(own.weight.numel())
        mask[torch.from_numpy(layer.topology.flat)] = 1.0
        own.weight.data *= mask.reshape(own.weight.shape)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((4, 7)).astype(np.float32))
    torch.testing.assert_close(after(x), twin(x))


def test_the_network_itself_stays_as_it_is() -> None:
    before = network()
    weights = [layer.weight.clone() for layer in before]
    after = pruned(before, 0.5, "lamp", name="net")
    with torch.no_grad():
        for layer in after:
            layer.values.zero_()
            layer.bias.zero_()
    for layer, own in zip(before, weights, strict=True):
        assert torch.equal(layer.weight, own)
        assert layer.bias.abs().sum() > 0


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (0.5, r"net has a density of 0\.5 and is pruned to less, got 0\.5; the closest is 0\.3"),
        (0.9, "pruned to less, got 0.9"),
        (
            0.2,
            r"net cannot be pruned to a density of 0\.2, which leaves 1 connections for 2 layers; the closest is 0\.3",
        ),
    ],
)
def test_a_density_that_cannot_be_is_refused(density: float, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        pruned(pruned(network(), 0.5, "lamp", name="net"), density, "lamp", name="net")
