"""Weights that layers begin with: bounds worked by hand, their own stream, and torch's where nothing is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology
from sparserl.topology.values import INITIAL_VALUE, NEW_VALUE, NORMAL, initial_values

RNG = np.random.default_rng
SIZES = [30, 40, 40, 5]
DENSITIES = [0.2, 0.1, 1.0]
SPARSE = sorted(set(INITIAL_VALUE) - {"dense_fan_in"})
BY_CONNECTIONS = sorted(set(SPARSE) - set(NORMAL))

# . x x x   3 and 1 connections enter the outputs; 0, 1, 2 and 1 leave the inputs.
# . . x .
TOPOLOGY = SparseTopology(2, 4, np.array([1, 2, 3, 6]))
BOUNDS = {
    "sparse_fan_in": [2**0.5] * 3 + [6**0.5],  # sqrt(6 / 3), sqrt(6 / 1)
    "sparse_xavier": [1.5**0.5, 1.2**0.5, 1.5**0.5, 2**0.5],  # sqrt(3 / m), m = 2, 2.5, 2, 1.5
}


def made(initial_value: str = "dense_fan_in", start_dense: bool = False, seed: int = 0) -> SparseMLP:
    torch.manual_seed(0)
    return SparseMLP.random(
        SIZES,
        DENSITIES,
        topology=TopologyConfig(method="gmp" if start_dense else "static", initial_value=initial_value),
        seed=seed,
        name="net",
    )


def test_names() -> None:
    assert list(INITIAL_VALUE) == ["dense_fan_in", "sparse_fan_in", "sparse_xavier", "normal", "wide_normal"]
    assert all(INITIAL_VALUE[name] is NEW_VALUE[name] for name in SPARSE)


@pytest.mark.parametrize("name", BY_CONNECTIONS)
def test_each_connection_gets_one_draw_within_its_bound(name: str) -> None:
    values = initial_values(name, TOPOLOGY, RNG(5))
    assert values is not None
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, RNG(5).uniform(-1.0, 1.0, 4) * BOUNDS[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SPARSE)
def test_the_same_rule_for_what_grows(name: str) -> None:
    nothing = SparseTopology(2, 4, np.empty(0, np.int64))
    grown = NEW_VALUE[name](exchange(nothing, np.empty(0, np.int64), TOPOLOGY.flat), RNG(1))
    np.testing.assert_array_equal(initial_values(name, TOPOLOGY, RNG(1)), grown)


def test_torch_draws_the_others() -> None:
    rng = RNG(0)
    assert initial_values("dense_fan_in", TOPOLOGY, rng) is None
    assert rng.bit_generator.state == RNG(0).bit_generator.state


@pytest.mark.parametrize("name", BY_CONNECTIONS)
def test_a_full_layer_has_the_bound_of_the_dense_one(name: str) -> None:
    values = initial_values(name, SparseTopology(40, 60, np.arange(2400)), RNG(0))
    assert values is not None
    bound = {"sparse_fan_in": (6 / 60) ** 0.5, "sparse_xavier": (3 / 50) ** 0.5}[name]
    assert 0.98 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.std() - bound / 3**0.5) < 0.03 * bound


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("start_dense", [False, True])
def test_only_weights_of_sparse_layers_differ(name: str, start_dense: bool) -> None:
    plain = made(start_dense=start_dense)
    after = torch.get_rng_state()
    other = made(name, start_dense)
    assert torch.equal(torch.get_rng_state(), after)
    for position, (a, b) in enumerate(zip(plain, other, strict=True)):
        assert torch.equal(a.bias, b.bias)
        if isinstance(a, nn.Linear):
            assert torch.equal(a.weight, b.weight)
            continue
        assert a.topology.flat.tolist() == b.topology.flat.tolist()
        expected = initial_values(name, b.topology, stream(0, "initial_value", f"net.{position}"))
        np.testing.assert_array_equal(b.values.detach().numpy(), expected)
        assert not torch.isin(b.values, a.values).any()


def test_weights_follow_the_seed_and_the_layer() -> None:
    first, again, other = made("sparse_xavier"), made("sparse_xavier"), made("sparse_xavier", seed=1)
    assert torch.equal(first[0].values, again[0].values)
    assert not torch.equal(first[0].values, other[0].values)
    torch.manual_seed(7)
    unseeded = SparseMLP.random(
        SIZES, DENSITIES, topology=TopologyConfig(method="static", initial_value="sparse_xavier"), seed=0, name="net"
    )
    assert torch.equal(first[0].values, unseeded[0].values)  # torch's generator has no part in it


def test_the_default_is_what_torch_draws() -> None:
    network = made()
    torch.manual_seed(0)
    alone = SparseLinear(network[0].topology)
    assert torch.equal(network[0].values, alone.values)
    assert torch.equal(network[0].bias, alone.bias)


def test_values_have_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        network = made("sparse_fan_in")
    finally:
        torch.set_default_dtype(torch.float32)
    assert network[0].values.dtype == torch.float64
    assert network[0].values.requires_grad


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown initial value 'sparse_xavir'; did you mean 'sparse_xavier'"):
        made("sparse_xavir")
