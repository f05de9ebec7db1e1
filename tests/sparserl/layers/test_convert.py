"""Between dense and sparse layers and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers.convert import from_dense, to_dense
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_weights_of_the_topology(bias: bool, dtype: torch.dtype) -> None:
    linear = nn.Linear(7, 9, bias=bias, dtype=dtype)
    topology = random_topology(9, 7, 20, np.random.default_rng(0))
    before = linear.weight.detach().clone()
    layer = from_dense(linear, topology)
    assert layer.values.tolist() == [before[p // 7, p % 7].item() for p in topology.flat.tolist()]
    assert layer.values.requires_grad
    assert layer.values.dtype == dtype
    assert torch.equal(linear.weight, before)
    back = to_dense(layer)
    assert back.weight.dtype == dtype
    assert (back.weight != 0).sum() == 20
    assert torch.equal(back.weight.flatten()[torch.from_numpy(topology.flat)], layer.values)
    if bias:
        assert torch.equal(layer.bias, linear.bias)
        assert layer.bias is not linear.bias
        assert torch.equal(back.bias, linear.bias)
    else:
        assert layer.bias is None
        assert back.bias is None
    x = torch.randn(5, 7, dtype=dtype)
    torch.testing.assert_close(layer(x), back(x))


def test_keeps_what_is_not_zero_unless_told_otherwise() -> None:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 1.0, 0.0], [-2.0, 0.0, 3.0]]))
    layer = from_dense(linear)
    assert layer.topology.flat.tolist() == [1, 3, 5]
    assert layer.values.tolist() == [1.0, -2.0, 3.0]


def test_keeps_a_zero_that_the_topology_names() -> None:
    linear = nn.Linear(3, 2)
    nn.init.zeros_(linear.weight)
    assert from_dense(linear, SparseTopology(2, 3, np.array([0, 4]))).nnz == 2
    assert from_dense(linear).nnz == 0


def test_refuses_a_topology_of_another_shape() -> None:
    with pytest.raises(ValueError, match="topology is 3 x 2, the layer 2 x 3"):
        from_dense(nn.Linear(3, 2), SparseTopology(3, 2, np.array([0])))


def test_refuses_an_invalid_topology() -> None:
    with pytest.raises(TopologyError):
        from_dense(nn.Linear(3, 2), SparseTopology(2, 3, np.array([6])))
