"""Tables of addresses follow their arrays: the same address with another length is another array.

Here arrays change their length in place, as an allocator would do it by giving an address out again; numbers around
them show what was written past their end.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.kernels import tables
from sparserl.kernels.layout import D_BIAS
from sparserl.kernels.plan import plan_of
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused import FusedLayers
from sparserl.layers.fused_adam import FusedAdam
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology
from sparserl.topology.target import TargetNetwork

NONE = np.empty(0, np.int64)


class Place:
    """Memory in which a tensor can be put again and again, and a number that lies behind it."""

    def __init__(self, behind: float = 7.0) -> None:
        self.behind = behind
        self.memory = torch.empty(64)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        self.length = tensor.numel()
        self.memory[: self.length] = tensor
        self.memory[self.length :] = self.behind
        return self.memory[: self.length]

    def assert_kept(self) -> None:
        assert (self.memory[self.length :] == self.behind).all()


def layer_of(nnz: int) -> SparseLinear:
    layer = SparseLinear(SparseTopology(4, 8, np.arange(nnz, dtype=np.int64)))
    layer.values.data = torch.arange(1.0, nnz + 1)
    return layer


def shrink(target: TargetNetwork) -> None:
    """The two last connections go."""
    for layer in target.layers.values():
        change = exchange(
            layer.online.topology, np.arange(layer.online.topology.nnz - 2, layer.online.topology.nnz), NONE
        )
        layer.online.apply_change(change)
        layer.follow(change, 0.0)


@pytest.mark.parametrize("policy", ["shared", "union_trim"])
def test_averaging_keeps_to_arrays_that_shrank_where_they_are(policy: str) -> None:
    online = nn.Sequential(layer_of(20))
    followed = copy.deepcopy(online)
    target = TargetNetwork(online, followed, policy)
    places = Place(3.0), Place(7.0)  # whose average is another number
    pair = online[0].values, followed[0].values
    for _ in range(3):
        for place, values in zip(places, pair, strict=True):
            values.data = place.put(values.data)
        followed[0].values.data.zero_()
        target.sync(0.5)
        only_followed = pair[1].numel() - pair[0].numel()
        expected = pair[0].detach() / 2
        assert torch.equal(pair[1].detach()[: expected.numel()], expected)
        assert only_followed == 0 or policy == "union_trim"
        for place in places:
            place.assert_kept()
        shrink(target)


def test_averaging_sees_that_other_slots_are_the_targets_own() -> None:
    """As many as before, at the same addresses, but elsewhere."""
    online = nn.Sequential(layer_of(8))
    target = TargetNetwork(online, copy.deepcopy(online), "union_trim")
    (layer,) = target.layers.values()
    for gone in (6, 1):
        change = exchange(layer.online.topology, np.array([gone]), NONE)
        layer.online.apply_change(change)
        layer.follow(change, 0.0)
        expected = np.zeros(8)
        expected[layer.online.topology.flat] = layer.online.values.detach() / 2
        expected[layer.target.topology.flat] += layer.target.values.detach().numpy() / 2
        surplus = layer.target.values.numel() - layer.online.values.numel()
        existing = layer.target.topology.flat
        expected[existing[np.argsort(np.abs(expected[existing]), kind="stable")[:surplus]]] = 0.0
        target.sync(0.5)
        assert layer.target.values.tolist() == expected[existing].tolist()


@pytest.mark.parametrize("policy", ["shared", "union_trim"])
def test_a_target_of_other_connections_is_refused(policy: str) -> None:
    """The network was loaded without its target: the kernel would read past the end of one of them."""
    online = nn.Sequential(layer_of(20))
    target = TargetNetwork(online, copy.deepcopy(online), policy)
    target.sync(0.5)
    online.load_state_dict(nn.Sequential(layer_of(22)).state_dict())
    with pytest.raises(TopologyError, match=r"a target of 20 weights, 0 of them its own, cannot follow 22"):
        target.sync(0.5)


def test_dense_parameters_of_other_sizes_are_refused() -> None:
    target = TargetNetwork(nn.Linear(3, 2), nn.Linear(3, 1), "shared")
    with pytest.raises(TopologyError, match="a target of 3 weights, 0 of them its own, cannot follow 6"):
        target.sync(0.5)


def test_the_optimizer_keeps_to_arrays_that_shrank_where_they_are() -> None:
    layer = layer_of(20)
    ours, theirs = layer.values, nn.Parameter(layer.values.detach().clone())
    optimizers = FusedAdam([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    moments = [OptimizerMoments(optimizer, p, "zero") for optimizer, p in zip(optimizers, (ours, theirs), strict=True)]
    places = [Place() for _ in range(4)]
    for count in (20, 18, 16):
        state = optimizers[0].state[ours]
        gradient = torch.linspace(-1.0, 1.0, count)
        arrays = [ours.data, gradient, *(state[name] for name in ("exp_avg", "exp_avg_sq") if state)]
        kept = [place.put(array) for place, array in zip(places, arrays, strict=False)]
        ours.data, ours.grad, theirs.grad = kept[0], kept[1], gradient.clone()
        if state:
            state["exp_avg"], state["exp_avg_sq"] = kept[2:]
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(ours, theirs)
        for place, _ in zip(places, arrays, strict=False):
            place.assert_kept()
        change = exchange(layer.topology, np.array([count - 2, count - 1]), NONE)
        for follow in moments:
            follow(change, 0.0)
        theirs.data = theirs.data[: count - 2].clone()
        layer.apply_change(change)
        theirs.grad = None


def test_layers_keep_to_arrays_that_shrank_where_they_are() -> None:
    layer, x, place = layer_of(20), torch.ones(3, 8), Place()
    for _ in range(3):
        layer.values.data = place.put(layer.values.data)
        y = torch.from_numpy(FusedLayers([[layer]]).evaluate([x]))
        kept = layer(x)
        assert torch.equal(kept, y[0])
        kept.sum().backward()
        assert layer.values.grad is not None
        assert layer.values.grad.shape == layer.values.shape
        place.assert_kept()
        layer.apply_change(exchange(layer.topology, np.array([layer.nnz - 2, layer.nnz - 1]), NONE))


def test_layers_whose_weights_are_cut_off_are_refused() -> None:
    """The address stays, and only the length says that the kernel would read past the end."""
    layer, x = layer_of(20), torch.ones(3, 8)
    layer(x)
    layer.values.data = layer.values.data[:19]
    with pytest.raises(ValueError, match=r"a layer of \(19,\) torch.float32 does not fit 4 x 8"):
        layer(x)


@pytest.mark.parametrize("size", [24, 64, 256])
def test_events_in_a_row_leave_no_table_behind(size: int) -> None:
    """With the allocator as it is; the tables are checked before each call."""
    assert tables.CHECKED
    torch.manual_seed(0)
    network = SparseMLP.random([size, size, size], [0.5, 0.5], seed=0, name="n")
    optimizer = FusedAdam(network.parameters(), lr=0.1)
    moments = {name: OptimizerMoments(optimizer, layer.values, "zero") for name, layer in network.named_children()}
    target = TargetNetwork(network, copy.deepcopy(network), "shared")
    rng = np.random.default_rng(0)
    for events in (1, 4, 12):
        for _ in range(3):
            network(torch.ones(4, size)).sum().backward()
            optimizer.step()
            target.sync(0.5)
            for _ in range(events):
                for name, layer in target.layers.items():
                    change = exchange(
                        layer.online.topology, np.sort(rng.choice(layer.online.nnz, 2, replace=False)), NONE
                    )
                    moments[name](change, 0.0)
                    layer.online.apply_change(change)
                    layer.follow(change, 0.0)


def test_the_check_finds_tables_that_are_kept_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of addresses alone, as it once was."""
    layer = layer_of(20)
    optimizer = FusedAdam([layer.values], lr=0.1)
    target = TargetNetwork(nn.Sequential(layer), nn.Sequential(copy.deepcopy(layer)), "shared")
    with monkeypatch.context() as patch:
        patch.setattr(tables, "key", lambda tensors: [*map(tables.address, tensors)])
        layer.values.grad = torch.ones(20)
        optimizer.step()
        target.sync(0.5)
        (pair,) = [pair for pair in target._averaging._pairs if pair[0] is layer.values]
        state = optimizer.state[layer.values]
        shorter = [pair[1], layer.values]
        gradient = layer.values.grad[:19]
        for values in shorter:
            values.data = values.data[:19]
        layer.values.grad = gradient
        state["exp_avg"], state["exp_avg_sq"] = state["exp_avg"][:19], state["exp_avg_sq"][:19]
        with pytest.raises(RuntimeError, match="the table of Adam does not describe the present arrays"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="the table of target averaging does not describe"):
            target.sync(0.5)


def test_the_check_finds_a_wrong_table_of_networks_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(20), torch.ones(3, 8)
    before = layer(x)
    networks = layer.fused._networks
    assert networks is not None
    plan_of(networks).table[0, 0, D_BIAS] += 1  # which no forward pass reads
    with pytest.raises(RuntimeError, match="the table of networks does not describe"):
        layer(x)
    monkeypatch.setattr(tables, "CHECKED", False)
    assert torch.equal(layer(x), before)
