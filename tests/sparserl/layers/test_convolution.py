"""Sparse convolutions against torch's with masked weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle.masked_dense import dense_weight
from support.layers import sparse
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.convolution import SparseConv, kernel_of
from sparserl.seeding import stream
from sparserl.topology.rewire import random_topology


def sparse_twin(convolution: nn.Conv1d | nn.Conv2d, nnz: int) -> SparseConv:
    """The same with some of its connections; the others become 0."""
    weight = convolution.weight.detach().flatten(1)
    topology = random_topology(*weight.shape, nnz, stream(0, "test"))
    values = weight.flatten()[torch.from_numpy(topology.flat)]
    twin = SparseConv.like(convolution, SparseLinear.of(topology, values, convolution.bias))
    with torch.no_grad():
        convolution.weight.mul_(dense_weight(twin.kernel)[1].view_as(convolution.weight))
    return twin


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's, of its own cost
@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        (nn.Conv1d, {"kernel_size": 3}, (9,)),
        (nn.Conv1d, {"kernel_size": 4, "stride": 3, "padding": 2, "dilation": 2, "bias": False}, (11,)),
        (nn.Conv1d, {"kernel_size": 4, "padding": "same", "dilation": 3}, (10,)),
        (nn.Conv2d, {"kernel_size": 1}, (4, 5)),
        (nn.Conv2d, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}, (7, 6)),
        (nn.Conv2d, {"kernel_size": (2, 3), "padding": "same", "padding_mode": "reflect"}, (5, 6)),
        (nn.Conv2d, {"kernel_size": 3, "padding": "valid", "dilation": (1, 2)}, (6, 7)),
        (nn.Conv2d, {"kernel_size": 3, "padding": 2, "padding_mode": "circular"}, (6, 7)),
    ],
)
def test_computes_what_torch_does_with_masked_weights(
    kind: Any, options: dict[str, Any], size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    dense = kind(3, 5, dtype=torch.float64, **options)
    ours = sparse_twin(dense, 14)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    results = []
    for each in (ours, dense):
        own = x.clone().requires_grad_()
        y = each(own)
        (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        results.append((y, own.grad, each(x[0])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    mask = dense_weight(ours.kernel)[1].bool()
    torch.testing.assert_close(ours.kernel.values.grad, dense.weight.grad.flatten(1)[mask])


def test_one_tap_by_hand() -> None:
    """One connection: output channel 1 is twice input channel 0 one place further on."""
    convolution = SparseConv(sparse(2, 4, [4 + 1], [2.0]), [2], [1], [(0, 0)], [1])
    y = convolution(torch.tensor([[1.0, 2.0, 3.0], [9.0, 9.0, 9.0]]))
    assert y.tolist() == [[0.0, 0.0], [4.0, 6.0]]
    assert repr(convolution).startswith("SparseConv(\n  2, 2, kernel_size=(2,), stride=(1,)\n")


def test_refusals() -> None:
    convolution = SparseConv(sparse(2, 4, [5]), [2], [1], [(0, 0)], [1])
    with pytest.raises(ConfigError, match=r"takes \(N, 2, length\), got \(1, 3, 5\)"):
        convolution(torch.ones(1, 3, 5))
    with pytest.raises(TopologyError, match="4 inputs is no whole number of channels of 3 taps"):
        SparseConv(sparse(2, 4, [5]), [3], [1], [(0, 0)], [1])


def test_the_kernel_of_a_convolution_reads_its_patches() -> None:
    dense = nn.Conv2d(3, 5, 2, stride=2)
    x = torch.randn(2, 3, 6, 4)
    patches = nn.functional.unfold(x, 2, stride=2).transpose(1, 2)
    kernel = kernel_of(dense)
    torch.testing.assert_close(kernel(patches).transpose(1, 2).reshape(2, 5, 3, 2), dense(x))
    assert kernel.weight.data_ptr() == dense.weight.data_ptr()
    sparse = SparseConv(nn.Linear(12, 5), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    assert kernel_of(sparse) is sparse.kernel
    for other in (nn.Conv2d(4, 4, 2, groups=2), nn.Linear(2, 2)):
        with pytest.raises(ConfigError, match="is no convolution of all channels"):
            kernel_of(other)
