"""Target networks: numbers worked by hand, then the DS-TD3 rule on masked dense matrices over events and syncs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracle.dense_topology import assert_sound, matrix_of, soft_update_and_trim
from stable_baselines3.common.utils import polyak_update
from support.layers import ints, weights
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule, exchange, random_topology
from sparserl.topology.structure import SparseTopology, TopologyChange
from sparserl.topology.target import TARGET, SharedTarget, TargetLayer, TargetNetwork, UnionTrimTarget


def sparse(flat: list[int], values: list[float]) -> SparseLinear:
    layer = SparseLinear(SparseTopology(2, 4, ints(*flat)), bias=False)
    layer.values.data = torch.tensor(values)
    return layer


def present(layer: SparseLinear) -> dict[int, float]:
    return {position: weight for position, weight in weights(layer).items() if weight != 0}


def event(target: TargetLayer, dropped: np.ndarray, grown: np.ndarray, value: float = 0.0) -> TopologyChange:
    """The online layer changes, and its target follows."""
    change = exchange(target.online.topology, dropped, grown)
    target.online.apply_change(change, value)
    target.follow(change, value)
    return change


def parameter(values: torch.Tensor) -> torch.nn.Module:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(values)
    return module


def test_dense_parameters_are_averaged_as_worked_by_hand() -> None:
    online, copied = parameter(torch.tensor([8.0, 0.0, 2.0])), parameter(torch.tensor([4.0, -8.0, 0.0]))
    TargetNetwork(online, copied, "shared").sync(0.25)
    assert copied.weight.tolist() == [5.0, -6.0, 0.5]


def test_polyak_is_stable_baselines3s_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    online, target = torch.randn(2, 1003, generator=generator)
    theirs = target.clone()
    averaged = parameter(target)
    network = TargetNetwork(parameter(online), averaged, "shared")
    for _ in range(5):
        network.sync(0.005)
        polyak_update([online], [theirs], 0.005)
    assert torch.equal(averaged.weight, theirs)


# --- shared -----------------------------------------------------------------------------------------


def test_shared_target_worked_by_hand() -> None:
    online, copied = sparse([0, 2, 5, 7], [8.0, 0.0, 4.0, 2.0]), sparse([0, 2, 5, 7], [4.0, 4.0, 4.0, 4.0])
    target = SharedTarget(online, copied)
    target.sync(0.25)
    assert weights(copied) == {0: 5.0, 2: 3.0, 5: 4.0, 7: 3.5}
    change = exchange(online.topology, ints(0, 3), ints(3, 4))
    online.apply_change(change, np.array([1.0, -1.0], np.float32))
    target.follow(change, np.array([1.0, -1.0], np.float32))
    assert weights(copied) == {2: 3.0, 3: 1.0, 4: -1.0, 5: 4.0}
    target.sync(0.5)
    assert weights(copied) == {2: 1.5, 3: 1.0, 4: -1.0, 5: 4.0}


# --- union_trim -------------------------------------------------------------------------------------


def test_union_trim_target_worked_by_hand() -> None:
    online, copied = sparse([0, 2, 5], [1.0, 2.0, 4.0]), sparse([0, 2, 5], [1.0, 2.0, 4.0])
    target = UnionTrimTarget(online, copied)
    online.values.data = torch.tensor([2.0, 2.0, 4.0])
    target.sync(0.5)  # same topology: plain averaging
    assert weights(copied) == {0: 1.5, 2: 2.0, 5: 4.0}

    event(target, ints(0), ints(3))  # 0 goes, 3 comes
    assert weights(copied) == {0: 1.5, 2: 2.0, 3: 0.0, 5: 4.0}  # the union
    online.values.data = torch.tensor([2.0, 0.5, 4.0])  # the new one has learnt 0.5
    seen = []
    for _ in range(6):
        target.sync(0.5)
        seen.append(present(copied))
    # A new connection offers 0.25 at each sync and does not accumulate while it is trimmed.
    assert seen == [
        {0: 0.75, 2: 2.0, 5: 4.0},
        {0: 0.375, 2: 2.0, 5: 4.0},
        {2: 2.0, 3: 0.25, 5: 4.0},  # 0.1875 < 0.25
        {2: 2.0, 3: 0.375, 5: 4.0},
        {2: 2.0, 3: 0.4375, 5: 4.0},
        {2: 2.0, 3: 0.46875, 5: 4.0},
    ]
    assert weights(copied)[0] == 0.0  # still listed

    event(target, ints(1), ints(7))  # 3 goes, 7 comes; 0 is trimmed and not online
    assert weights(copied) == {2: 2.0, 3: 0.46875, 5: 4.0, 7: 0.0}


def test_union_trim_drops_an_online_connection_too_if_it_is_the_smallest() -> None:
    # The target's old connection outweighs a surviving one, so the survivor is trimmed for the time being.
    online, copied = sparse([0, 2], [8.0, 0.5]), sparse([0, 2], [8.0, 0.5])
    target = UnionTrimTarget(online, copied)
    change = event(target, ints(0), ints(6))
    target.sync(0.5)
    assert weights(copied) == {0: 4.0, 2: 0.5, 6: 0.0}
    online.values.data = torch.tensor([0.5, 6.0])
    target.sync(0.5)
    assert weights(copied) == {0: 2.0, 2: 0.0, 6: 3.0}
    target.sync(0.5)
    assert weights(copied) == {0: 1.0, 2: 0.0, 6: 4.5}
    target.sync(0.5)
    assert weights(copied) == {0: 0.5, 2: 0.0, 6: 5.25}
    online.values.data = torch.tensor([2.0, 6.0])
    target.sync(0.5)
    assert weights(copied) == {0: 0.0, 2: 1.0, 6: 5.625}
    # The union is listed anew: 0 is gone, a trimmed connection that is online stays.
    target.follow(change, 0.0)
    assert weights(copied) == {2: 1.0, 6: 5.625}


def test_union_trim_after_a_shrink() -> None:
    online, copied = sparse([0, 2, 5], [1.0, 2.0, 4.0]), sparse([0, 2, 5], [1.0, 2.0, 4.0])
    target = UnionTrimTarget(online, copied)
    event(target, ints(1), ints())
    target.sync(0.5)
    # 2 has faded to 1.0, as large as 0: one of them goes.
    assert present(copied) in ({0: 1.0, 5: 4.0}, {2: 1.0, 5: 4.0})
    target.sync(0.5)
    assert len(present(copied)) == 2


def test_a_full_copy_is_the_online_layer() -> None:
    online, copied = sparse([0, 2], [8.0, 0.5]), sparse([0, 2], [8.0, 0.5])
    target = UnionTrimTarget(online, copied)
    event(target, ints(0), ints(6), 1.5)
    target.sync(1.0)
    assert present(copied) == weights(online) == {2: 0.5, 6: 1.5}


# --- over events ------------------------------------------------------------------------------------


class OneLayer(nn.Module):
    """One sparse layer in double precision, so that averaging orders do not change what is smallest."""

    def __init__(self, seed: int, density: float) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        nnz = max(1, int(density * 9 * 8))
        self.layer = SparseLinear(random_topology(9, 8, nnz, rng), dtype=torch.float64)
        self.layer.values.data = torch.from_numpy(rng.standard_normal(nnz))


@pytest.mark.parametrize("new_value", ["zero", "uniform"])
@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("drop", ["signed_magnitude", "weight_magnitude"])
def test_union_trim_is_the_rule_of_ds_td3_on_dense_matrices(drop: str, density: float, new_value: str) -> None:
    net = OneLayer(7, density)
    online = net.layer
    target_net = copy.deepcopy(net)
    target = TargetNetwork(net, target_net, "union_trim")
    rule = RewireRule(drop, "random", 0.3, update_interval=10, first_update=2, last_update=100, shrink_at_end=True)
    evolver = TopologyEvolver({"net": {"net.layer": online}}, rule, seed=1, new_value=new_value)
    for name, follower in target.followers():
        evolver.follow(f"net.{name}", follower.follow)
    oracle = matrix_of(online.topology, online.values.detach().numpy())
    rng = np.random.default_rng(0)
    lagged = 0
    for update in range(1, 161):
        evolver.begin_update(update)
        online.values.data += torch.from_numpy(0.1 * rng.standard_normal(online.nnz))
        evolver.end_update("net")
        if update % 2:
            continue
        target.sync(0.05)
        oracle = soft_update_and_trim(
            oracle, matrix_of(online.topology, online.values.detach().numpy()), online.topology.nnz, 0.05
        )
        copied = target_net.layer
        assert_sound(copied.topology)
        found = matrix_of(copied.topology, copied.values.detach().numpy())
        np.testing.assert_array_equal(found != 0, oracle != 0)
        np.testing.assert_allclose(found, oracle, rtol=1e-12, atol=0)
        assert np.count_nonzero(found) <= online.nnz
        assert set(online.topology.flat.tolist()) <= set(copied.topology.flat.tolist())
        lagged += copied.nnz > online.nnz
        assert copied.nnz <= 2 * online.nnz + 1  # what is online and at most as many others
    events = [event for event in evolver.events if event.kind != "initial"]
    assert len(events) == 11
    if 0.1 < density < 0.95:
        assert lagged > 40
        assert events[-1].dropped > 0


@pytest.mark.parametrize("new_value", ["zero", "uniform"])
@pytest.mark.parametrize("keep_regrown", [True, False])
def test_a_shared_target_always_has_the_online_topology(keep_regrown: bool, new_value: str) -> None:
    net = OneLayer(3, 0.4)
    target_net = copy.deepcopy(net)
    target = TargetNetwork(net, target_net, "shared")
    rule = RewireRule(
        "signed_magnitude",
        "random",
        0.3,
        update_interval=7,
        last_update=50,
        shrink_at_end=True,
        keep_regrown=keep_regrown,
    )
    evolver = TopologyEvolver({"net": {"layer": net.layer}}, rule, seed=1, new_value=new_value)
    for name, follower in target.followers():
        evolver.follow(name, follower.follow)
    changes: list[TopologyChange] = []
    evolver.follow("layer", lambda change, grown_values: changes.append(change))
    rng = np.random.default_rng(0)
    oracle = matrix_of(net.layer.topology, net.layer.values.detach().numpy())
    for update in range(1, 80):
        evolver.begin_update(update)
        net.layer.values.data += torch.from_numpy(0.1 * rng.standard_normal(net.layer.nnz))
        changed = bool(evolver.end_update("net"))
        online = matrix_of(net.layer.topology, net.layer.values.detach().numpy())
        if changed:  # what was dropped goes, what was grown starts as it does online
            kept = np.zeros(72, np.bool_)
            kept[changes[-1].new.flat[changes[-1].source >= 0]] = True
            oracle = np.where(kept.reshape(9, 8), oracle, 0.0)
            grown = changes[-1].new.flat[changes[-1].source < 0]
            oracle.ravel()[grown] = online.ravel()[grown]
        target.sync(0.05)
        oracle = 0.05 * online + 0.95 * oracle
        assert target_net.layer.topology.flat.tolist() == net.layer.topology.flat.tolist()
        copied = matrix_of(target_net.layer.topology, target_net.layer.values.detach().numpy())
        np.testing.assert_allclose(copied, oracle, rtol=1e-12, atol=1e-15)
    assert len(changes) == 9
    assert sum(change.grown for change in changes) > 30


@pytest.mark.parametrize("policy", TARGET)
def test_a_target_taken_up_again_goes_on_as_if_never_stopped(policy: str) -> None:
    def run(stop: int | None) -> list[list[float]]:
        net = OneLayer(5, 0.4)
        copied = copy.deepcopy(net)
        target = TargetNetwork(net, copied, policy)
        rng, topology_rng = np.random.default_rng(0), np.random.default_rng(1)
        for update in range(1, 41):
            net.layer.values.data += torch.from_numpy(0.1 * rng.standard_normal(net.layer.nnz))
            if update % 10 == 3:
                dropped = np.sort(topology_rng.choice(net.layer.nnz, 5, replace=False))
                free = np.setdiff1d(np.arange(72), net.layer.topology.flat)
                change = exchange(net.layer.topology, dropped, np.sort(topology_rng.choice(free, 5, replace=False)))
                net.layer.apply_change(change, 0.0)
                target.layers["layer"].follow(change, 0.0)
            target.sync(0.05)
            if update == stop:
                stored = net.state_dict(), copied.state_dict()
                net, copied = OneLayer(8, 0.3), OneLayer(9, 0.2)
                net.load_state_dict(stored[0])
                copied.load_state_dict(stored[1])
                target = TargetNetwork(net, copied, policy)
        return [copied.layer.topology.flat.tolist(), copied.layer.values.tolist(), net.layer.values.tolist()]

    assert run(stop=16) == run(stop=None)


# --- whole networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", TARGET)
def test_a_target_network_moves_every_parameter(policy: str) -> None:
    online = SparseMLP.random([5, 8, 8, 3], [0.5, 0.3, 1.0], seed=0, name="net")
    copied = SparseMLP.random([5, 8, 8, 3], [0.5, 0.3, 1.0], seed=0, name="net")
    target = TargetNetwork(online, copied, policy)
    assert [name for name, _ in target.followers()] == ["0", "1"]
    expected = [
        0.1 * p.detach() + 0.9 * q.detach() for p, q in zip(online.parameters(), copied.parameters(), strict=True)
    ]
    before = [p.detach().clone() for p in online.parameters()]
    target.sync(0.1)
    for moved, value in zip(copied.parameters(), expected, strict=True):
        torch.testing.assert_close(moved.detach(), value, rtol=1e-6, atol=1e-8)
    assert all(torch.equal(p, q) for p, q in zip(online.parameters(), before, strict=True))
    assert len(expected) == 6


def test_a_dense_network_follows_as_in_stable_baselines3() -> None:
    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    online, copied = mlp(), mlp()
    theirs = copy.deepcopy(copied)
    target = TargetNetwork(online, copied, "union_trim")
    assert list(target.followers()) == []
    for _ in range(3):
        target.sync(0.005)
        polyak_update(online.parameters(), theirs.parameters(), 0.005)
    assert all(torch.equal(p, q) for p, q in zip(copied.parameters(), theirs.parameters(), strict=True))


def test_an_unknown_policy_gives_the_closest() -> None:
    with pytest.raises(TopologyError, match="unknown target policy 'union_trims'; did you mean 'union_trim'"):
        TargetNetwork(nn.Linear(1, 1), nn.Linear(1, 1), "union_trims")
