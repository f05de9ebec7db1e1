"""Networks of convolutions: by hand, against torch's with masked weights, and what they refuse."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracle.masked_dense import dense_weight
from support.layers import ints
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.activations import HiddenUnits
from sparserl.layers.activity import features, hidden_activity
from sparserl.layers.convert import from_dense
from sparserl.layers.convolution import Convolution, convolution_shapes
from sparserl.layers.linear import linear
from sparserl.layers.sparse_cnn import SparseCNN, cnn_shapes
from sparserl.topology.config import TopologyConfig
from sparserl.topology.structure import SparseTopology

IMAGE = (3, 11, 10)
CONVOLUTIONS = [Convolution(5, 3, pooling=2), Convolution(7, 2, 2)]
STATIC = TopologyConfig("static", 0.4, output_layer="sparse")


def network(topology: TopologyConfig = STATIC, **options: object) -> SparseCNN:
    torch.manual_seed(0)
    return SparseCNN.of_images(IMAGE, CONVOLUTIONS, [12, 4], topology=topology, seed=3, name="network", **options)  # type: ignore[arg-type]


class Torch(nn.Module):
    """The same network of torch's modules, with 0 where there is no connection."""

    def __init__(self, ours: SparseCNN):
        super().__init__()
        weights = [dense_weight(layer)[0] if linear(layer).is_sparse else layer.weight.detach() for layer in ours]
        self.convolutions, self.linear = nn.ModuleList(), nn.ModuleList()
        channels = IMAGE[0]
        for one, weight, layer in zip(CONVOLUTIONS, weights, ours, strict=False):
            own = nn.Conv2d(channels, one.channels, one.taps, one.stride)
            # Ours has its channels last.
            own.weight.data = weight.view(one.channels, one.taps, one.taps, channels).permute(0, 3, 1, 2).contiguous()
            own.bias.data = layer.bias.detach().clone()  # type: ignore[union-attr]
            self.convolutions.append(own)
            channels = one.channels
        for weight, layer in zip(weights[2:], list(ours)[2:], strict=True):
            own_linear = nn.Linear(*weight.shape[::-1])
            own_linear.weight.data, own_linear.bias.data = weight.clone(), layer.bias.detach().clone()
            self.linear.append(own_linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, *IMAGE)
        for one, convolution in zip(CONVOLUTIONS, self.convolutions, strict=True):
            x = nn.functional.max_pool2d(convolution(x).relu(), one.pooling)
        x = x.permute(0, 2, 3, 1).flatten(1)
        y: torch.Tensor = self.linear[1](self.linear[0](x).relu())
        return y


def x_of(count: int) -> torch.Tensor:
    return torch.randn(count, 330, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("topology", [STATIC, TopologyConfig("dense")], ids=["sparse", "dense"])
def test_computes_what_torch_does_with_masked_weights(topology: TopologyConfig) -> None:
    ours = network(topology)
    theirs, x = Torch(ours), x_of(6)
    results = []
    for each in (ours, theirs):
        own = x.clone().requires_grad_()
        y = each(own)
        (y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum().backward()
        results.append((y, own.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    for layer, convolution in zip(ours, theirs.convolutions, strict=False):
        gradient = convolution.weight.grad.permute(0, 2, 3, 1).flatten(1)  # type: ignore[union-attr]
        own = linear(layer).weights.grad
        sparse = isinstance(layer, SparseLinear)
        torch.testing.assert_close(own, gradient[dense_weight(layer)[1].bool()] if sparse else gradient)
        torch.testing.assert_close(layer.bias.grad, convolution.bias.grad)


def test_all_connections_as_a_sparse_layer_are_the_dense_network() -> None:
    dense = network(TopologyConfig("dense"))
    full = [
        from_dense(layer, SparseTopology(*linear(layer).shape, ints(*range(layer.weight.numel())))) for layer in dense
    ]
    torch.testing.assert_close(dense.with_layers(full)(x_of(6)), dense(x_of(6)))


def test_an_image_by_hand() -> None:
    """Channel 0 of the output is twice the pixel at the lower right of each patch of channel 1; 1 reads nothing.

    Then the larger of 2 x 2 places stays, and the one output adds up both channels.
    """
    # Inputs of the kernel: (row, column, channel) of 2 x 2 x 2; (1, 1, 1) is the last.
    kernel = SparseLinear.of(SparseTopology(2, 8, ints(7)), torch.tensor([2.0]), nn.Parameter(torch.tensor([0.0, 0.5])))
    output = SparseLinear.of(SparseTopology(1, 2, ints(0, 1)), torch.ones(2), nn.Parameter(torch.zeros(1)))
    net = SparseCNN([kernel, output], (2, 3, 3), [Convolution(2, 2, pooling=2)])
    first, second = torch.full((3, 3), 9.0), torch.arange(9.0).view(3, 3)
    # Pixels (1, 1), (1, 2), (2, 1), (2, 2) of channel 1 are 4, 5, 7, 8.
    assert net(torch.stack([first, second]).view(1, 18)).tolist() == [[2 * 8 + 0.5]]
    assert net.read_by(0, torch.stack([first, second]).view(1, 18))[0, 1].tolist() == [9, 1, 9, 2, 9, 4, 9, 5]


def test_shapes_of_layers() -> None:
    assert cnn_shapes(IMAGE, CONVOLUTIONS, [12, 4]) == [(5, 27), (7, 20), (12, 28), (4, 12)]
    assert network().widest == 27 * 9 * 8
    # 40 % of each layer by its Erdos-Renyi-kernel share, together exactly.
    assert sum(layer.nnz for layer in network()) == pytest.approx(0.4 * (5 * 27 + 7 * 20 + 12 * 28 + 4 * 12), abs=4)  # type: ignore[operator,union-attr,misc]


def test_activity_of_a_channel_is_that_of_all_places() -> None:
    net, x = network(), x_of(4)
    found = hidden_activity(net, x)
    assert [one.shape for one in found] == [(5,), (7,), (12,)]
    with torch.no_grad():
        first = net.activated(0, net[0](net.read_by(0, x)))
        second = net.activated(1, net[1](net.read_by(1, first)))
    np.testing.assert_allclose(found[0], first.abs().mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[1], second.unflatten(1, (-1, 7)).abs().mean((0, 1)), rtol=1e-5)
    assert features(net, x).shape == (4, 12)


def test_images_that_are_too_small() -> None:
    with pytest.raises(ConfigError, match="patches of 3 x 3 in convolution 2 do not fit into 2 x 5"):
        convolution_shapes((1, 4, 7), [Convolution(2, 3), Convolution(2, 3)])
    with pytest.raises(ConfigError, match="pooling of 3 x 3 in convolution 1 do not fit into 2 x 5"):
        convolution_shapes((1, 4, 7), [Convolution(2, 3, pooling=3)])
    with pytest.raises(TopologyError, match=r"do not fit kernels of \[\(2, 9\)\], then 18"):
        SparseCNN([nn.Linear(9, 2), nn.Linear(17, 2)], (1, 5, 5), [Convolution(2, 3)])


def test_one_channel_and_one_column() -> None:
    for image in [(1, 5, 3), (3, 5, 3)]:
        net = SparseCNN.of_images(image, [Convolution(2, 3, 2)], [3], topology=STATIC, seed=0, name="network")
        x = torch.arange(float(image[0] * 15)).view(1, -1)
        patch = x.view(image)[:, 2:5].permute(1, 2, 0).flatten()
        assert net.read_by(0, x)[0].tolist()[1] == patch.tolist()


def test_scores_choose_no_connections_of_kernels() -> None:
    with pytest.raises(TopologyError, match="initial_topology snip is for networks that read vectors; use random"):
        network(TopologyConfig("snip", 0.4))


def test_a_copy_with_other_layers_shares_what_follows_them() -> None:
    one = network(activation=HiddenUnits("relu", dropout=0.5))
    other = one.with_layers(list(one))
    assert isinstance(other, SparseCNN)
    assert [*map(id, other.functions)] == [*map(id, one.functions)]
    with other.in_use():
        assert other(x_of(3)).shape == (3, 4)
    torch.testing.assert_close(copy.deepcopy(one).eval()(x_of(3)), other.eval()(x_of(3)))
