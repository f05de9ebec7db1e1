"""Neurons that share their inputs: layers of 4 outputs worked by hand, then dense oracles, then every method's run."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracle.dense_topology import assert_sound_change
from support.layers import ints
from support.paired import PROFILE, RNG, assert_shares_inputs
from support.plans import plan_rewire, plan_shrink

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.averaging import average
from sparserl.layers.one_shot import JudgingBatch
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import exact_nnz
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.group_sizes import PAIRS, check_divides, check_pairs
from sparserl.topology.methods import METHODS
from sparserl.topology.pairs import folded, member_slots
from sparserl.topology.plan import plan_allocation
from sparserl.topology.rewire import RewireRule, exchange, random_topology
from sparserl.topology.structure import Constraint, Importance, LayerView, SparseTopology
from sparserl.topology.target import TargetNetwork, UnionTrimTarget

# --- by hand ----------------------------------------------------------------------------------------

# Outputs 0 and 1 have inputs 0 and 2; outputs 2 and 3 have input 1.
OLD = SparseTopology(4, 3, ints(0, 2, 3, 5, 7, 10), pairs=2)
# Of the groups: |0.5| + |-0.5| = 1, |0.05| + |0.9| = 0.95, |-2| + |1| = 3.
WEIGHTS = np.array([0.5, 0.05, -0.5, 0.9, -2.0, 1.0], np.float32)
# With inputs of the unit matrix the gradient at the outputs is that of the weights; summed magnitudes of the groups
# [[2, 8, 7], [6, 0, 10]].
DY = np.array([[1, 4, 0], [-1, -4, 7], [3, 0, 5], [3, 0, -5]], np.float32)
VIEW = LayerView(OLD, WEIGHTS, ((np.eye(3, dtype=np.float32), DY),))
RIGL: dict[str, Any] = {"drop": "weight_magnitude", "grow": "gradient", "drop_fraction": 0.34}


@pytest.mark.parametrize(
    ("flat", "pairs", "slots"),
    [
        ([0, 2, 4], 1, [[0, 1, 2]]),
        ([0, 2, 4], 2, [[0, 1, 4], [2, 3, 5]]),
        ([0, 2, 7], 2, [[0, 1, 4], [2, 3, 5]]),  # a group without inputs between
        ([4, 6, 7], 4, [[0, 4, 5], [1, 6, 7], [2, 8, 9], [3, 10, 11]]),
        ([], 2, [[], []]),
    ],
)
def test_slots_of_each_group(flat: list[int], pairs: int, slots: list[list[int]]) -> None:
    found = member_slots(ints(*flat), 3, pairs)
    assert found.tolist() == slots
    assert found.shape == (pairs, len(flat))


def test_the_folded_layer() -> None:
    view = folded(VIEW)
    assert (view.topology.n_out, view.topology.n_in, view.topology.pairs, view.neurons) == (2, 3, 1, 2)
    assert view.topology.flat.tolist() == [0, 2, 4]
    assert view.values.dtype == np.float32
    np.testing.assert_allclose(view.values, [1.0, 0.95, -3.0])  # magnitudes add up, the sign is that of the sum


def test_a_view_without_pairs_is_the_view_itself() -> None:
    view = LayerView(SparseTopology(4, 3, OLD.flat), WEIGHTS)
    assert folded(view) is view


def test_an_event_drops_and_grows_groups() -> None:
    # 0.95 is the least, although 0.5 is the least of the largest weights and 0 the least |sum|. Free are 8 and 7 of the
    # first group and 6 and 10 of the second, where signed gradients add up to 0.
    change = plan_rewire(RewireRule(**RIGL), VIEW, 1, RNG(0))
    assert change.new.flat.tolist() == [0, 3, 7, 8, 10, 11]
    assert change.source.tolist() == [0, 2, 4, -1, 5, -1]
    assert (change.grown, change.dropped, change.new.pairs) == (2, 2, 2)
    assert change.old is OLD
    assert_sound_change(change)
    change.check_valid()


@pytest.mark.parametrize(("keep_regrown", "source"), [(True, [0, 1, 2, 3, 4, 5]), (False, [0, -1, 2, -1, 4, 5])])
def test_a_group_that_comes_back_keeps_its_weights_if_the_rule_says_so(keep_regrown: bool, source: list[int]) -> None:
    best_again = DY.copy()
    best_again[1, 2] = 20.0
    view = LayerView(OLD, WEIGHTS, ((np.eye(3, dtype=np.float32), best_again),))
    change = plan_rewire(RewireRule(**RIGL, keep_regrown=keep_regrown), view, 1, RNG(0))
    assert change.new.flat.tolist() == OLD.flat.tolist()
    assert change.source.tolist() == source


def test_a_shrink_drops_groups() -> None:
    change = plan_shrink(RewireRule(**RIGL), VIEW, 1)
    assert change.new.flat.tolist() == [0, 3, 7, 10]
    assert change.source.tolist() == [0, 2, 4, 5]


def test_a_density_schedule_drops_groups() -> None:
    # Of 12 connections 4 are to stay: of 6 groups 2, so one of the three goes for good.
    rule = RewireRule(drop_fraction=0.0, density_schedule="cubic", first_update=1, last_update=2, update_interval=1)
    change = plan_rewire(rule, VIEW, 2, RNG(0), goal=4)
    assert change.new.flat.tolist() == [0, 3, 7, 10]


def test_a_group_with_a_frozen_connection_stays_and_one_with_a_closed_neuron_gets_nothing() -> None:
    frozen = np.array([False, False, False, True, False, False])  # of the group that would go
    everywhere = np.ones(3, bool)
    closed = Constraint(frozen, np.array([True, True, True, False]), everywhere)  # and 10 would grow there
    change = plan_rewire(
        RewireRule(**{**RIGL, "drop_fraction": 0.5}), LayerView(OLD, WEIGHTS, VIEW.samples, closed), 1, RNG(0)
    )
    # Of two droppable groups the one of 1.0 goes; only output group 0 is open, where 8 is best.
    assert change.new.flat.tolist() == [1, 2, 4, 5, 7, 10]


def test_importances_add_up_over_a_group() -> None:
    # Connections 9 + 0, 4 + 4, 5 + 5: the second goes. Outputs (2, 2) and (3, 0) give 4 and 3, inputs 1, 2 and 2:
    # products [[4, 8, 8], [3, 6, 6]], of which (0, 1) is the largest that is free and was not dropped.
    importance = Importance(np.array([9.0, 4, 0, 4, 5, 5]), np.array([2.0, 2, 3, 0]), np.array([1.0, 2, 2]))
    rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=0.34)
    change = plan_rewire(rule, LayerView(OLD, WEIGHTS, importance=importance), 1, RNG(0))
    assert change.new.flat.tolist() == [0, 1, 3, 4, 7, 10]


def test_unfired_growth_looks_at_groups() -> None:
    # Groups ever connected: the present three and (0, 1), (1, 0): only (1, 2) is left.
    explored = ints(0, 1, 2, 3, 4, 5, 6, 7, 9, 10)
    rule = RewireRule("weight_magnitude", "random_unfired", drop_fraction=0.34)
    for seed in range(20):
        change = plan_rewire(rule, LayerView(OLD, WEIGHTS, explored=explored), 1, RNG(seed))
        assert change.new.flat.tolist() == [0, 3, 7, 8, 10, 11]


def test_allocation_gives_groups_and_refuses_half_of_one() -> None:
    change = plan_allocation(VIEW, 6, RNG(0))
    assert change.new.flat.tolist() == list(range(12))
    assert sorted(change.source[change.source >= 0].tolist()) == list(range(6))
    with pytest.raises(TopologyError, match="new connections must be a multiple of 2, got 3; the closest is 4"):
        plan_allocation(VIEW, 3, RNG(0))


# --- sizes and refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "density", "pairs", "nnz"),
    [
        ((4, 3), 0.5, 1, 6),
        ((4, 3), 0.5, 2, 6),
        ((4, 3), 0.5, 4, 8),  # 6 is as near to 4
        ((4, 3), 0.4, 4, 4),  # 5
        ((4, 3), 0.01, 4, 4),  # one group at least
        ((4, 3), 0.99, 2, 12),
        ((256, 17), 0.1, 2, 436),  # 436 of 4352
        ((256, 256), 0.05, 2, 3278),  # 3277
    ],
)
def test_the_number_of_connections_is_the_nearest_multiple(
    shape: tuple[int, int], density: float, pairs: int, nnz: int
) -> None:
    assert exact_nnz(shape, density, pairs) == nnz


@pytest.mark.parametrize(("given_pairs", "closest"), [(0, 1), (3, 2), (5, 4), (8, 4), (-2, 1)])
def test_only_some_numbers_of_neurons_may_share(given_pairs: int, closest: int) -> None:
    with pytest.raises(TopologyError, match=f"pairs must be 1, 2 or 4, got {given_pairs}; the closest is {closest}"):
        check_pairs(given_pairs)
    assert [check_pairs(pairs) for pairs in PAIRS] == [1, 2, 4]


def test_a_layer_that_does_not_come_in_groups_is_named() -> None:
    check_divides(2, "actor.mu.0", 6)
    with pytest.raises(TopologyError, match=r"layer actor\.mu\.0 of width 6 .* groups of 4: use pairs 2, .* be 8$"):
        check_divides(4, "actor.mu.0", 6)
    with pytest.raises(TopologyError, match=r"width 7 does not come in groups of 2: use pairs 1, .* be 8$"):
        check_divides(2, "actor.mu.0", 7)


@pytest.mark.parametrize(
    ("n_out", "flat", "pairs"),
    [
        (4, [0, 2, 3, 5, 7], 2),  # one connection too few
        (4, [0, 2, 3, 5, 7, 11], 2),  # another input
        (4, [0, 1, 2, 3, 6, 9], 2),  # three connections against one
        (3, [0, 3], 2),  # a neuron alone
        (4, [0, 3], 4),
        (4, [0, 3], 0),
    ],
)
def test_a_topology_that_breaks_its_promise_is_not_valid(n_out: int, flat: list[int], pairs: int) -> None:
    with pytest.raises(TopologyError, match="must have the same inputs"):
        SparseTopology(n_out, 3, ints(*flat), pairs).check_valid()


@pytest.mark.parametrize(("n_out", "nnz"), [(4, 5), (3, 4)])
def test_random_topologies_of_broken_groups_are_refused(n_out: int, nnz: int) -> None:
    with pytest.raises(TopologyError, match="must be a multiple of 2"):
        random_topology(n_out, 3, nnz, RNG(0), pairs=2)


def test_a_goal_of_broken_groups_is_refused() -> None:
    layers = {"group": {"layer": SparseLinear(OLD)}}
    rule = METHODS["gmp"].rule
    with pytest.raises(
        TopologyError, match="the goal of layer 'layer' must be a multiple of 2, got 3; the closest is 4"
    ):
        TopologyEvolver(layers, rule, seed=0, goals={"layer": 3})


# --- what holds connections -------------------------------------------------------------------------


def sparse(topology: SparseTopology, *values: float) -> SparseLinear:
    layer = SparseLinear(topology, bias=False)
    layer.values.data = torch.tensor(values)
    return layer


def test_a_lagging_target_forgets_a_group_only_when_all_of_it_is_trimmed() -> None:
    online, copied = sparse(OLD, *WEIGHTS), sparse(OLD, *WEIGHTS)
    target = UnionTrimTarget(online, copied)

    def event(dropped: np.ndarray, grown: np.ndarray) -> list[int]:
        change = exchange(online.topology, dropped, grown)
        online.apply_change(change, 0.0)
        target.follow(change, 0.0)
        assert_shares_inputs(copied.topology, 2)
        return copied.topology.flat.tolist()

    assert event(ints(1, 3), ints(8, 11)) == [0, 2, 3, 5, 7, 8, 10, 11]
    copied.values.data[1] = 0.0  # of the group at 2 and 5; 8 and 11 are 0 as well, but online's
    assert event(ints(), ints()) == [0, 2, 3, 5, 7, 8, 10, 11]
    copied.values.data[3] = 0.0
    assert event(ints(), ints()) == [0, 3, 7, 8, 10, 11]


def test_a_stored_layer_comes_back_with_its_groups_and_another_is_refused() -> None:
    layer = sparse(OLD, *WEIGHTS)
    other = SparseLinear(random_topology(4, 3, 4, RNG(0), pairs=2), bias=False)
    other.load_state_dict(layer.state_dict())
    assert_shares_inputs(other.topology, 2)
    assert other.topology.flat.tolist() == OLD.flat.tolist()
    alone = sparse(SparseTopology(4, 3, ints(0, 2, 3, 7)), 1.0, 2.0, 3.0, 4.0)
    with pytest.raises(TopologyError, match="groups of 2 must have the same inputs"):
        other.load_state_dict(alone.state_dict())


def test_an_averaged_model_follows_groups() -> None:
    model = SparseMLP([sparse(OLD, *WEIGHTS)])
    averaged = average(model, 0.5)
    model[0].apply_change(plan_rewire(RewireRule(**RIGL), VIEW, 1, RNG(0)), 0.25)
    averaged.update()
    own = averaged.module[0]
    assert_shares_inputs(own.topology, 2)
    np.testing.assert_allclose(own.values, [0.5, -0.5, -2.0, 0.25, 1.0, 0.25])


@pytest.mark.parametrize("make", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copied_layer_keeps_its_groups(make: Any) -> None:
    assert_shares_inputs(make(SparseLinear(OLD)).topology, 2)


# --- every method -----------------------------------------------------------------------------------


def gathered(layer: SparseLinear) -> Any:
    """An optimizer of which nothing follows events: its momentum is the gradient."""
    return SimpleNamespace(state={layer.values: {"momentum_buffer": layer.values.grad}})


REWIRES = sorted(
    name
    for name, method in METHODS.items()
    if not method.dense and not (method.rule is not None and method.rule.leaves_some_unused)
)


@settings(PROFILE, max_examples=60)
@given(st.sampled_from(REWIRES), st.sampled_from((2, 4)), st.sampled_from((0.1, 0.3, 0.6)), st.integers(0, 10**6))
def test_neurons_share_their_inputs_throughout_every_method(method: str, pairs: int, density: float, seed: int) -> None:
    torch.manual_seed(seed)
    chosen = METHODS[method]
    online = SparseMLP.random(
        [5, 8, 12, 4],
        [density] * 3,
        seed=seed,
        name="net",
        topology=TopologyConfig(method=method, pairs=pairs),
        judging=JudgingBatch(torch.randn(6, 5), lambda outputs: outputs.square().mean()),
    )
    copied = copy.deepcopy(online)
    layers = {str(place): layer for place, layer in enumerate(online)}
    optimizer = torch.optim.Adam(online.parameters(), lr=0.1)
    rule = chosen.rule
    if rule is not None:
        short = {"update_interval": 2, "first_update": 1, "last_update": 9}
        rule = RewireRule(**{**vars(rule), **short})
    evolver = TopologyEvolver({"net": layers}, rule, seed=seed, goals=online.goals)
    for name, layer in layers.items():
        evolver.set_optimizer(name, partial(gathered, layer))  # nothing of the optimizer follows
    target = TargetNetwork(online, copied, chosen.target)
    for name, own in target.followers():
        evolver.follow(name, own.follow)
    counts = {name: layer.nnz for name, layer in layers.items()}
    for update in range(1, 13):
        evolver.begin_update(update)
        optimizer.zero_grad()
        online(torch.randn(6, 5)).square().mean().backward()
        optimizer.step()
        optimizer.state.clear()  # nothing here follows it
        evolver.end_update("net")
        target.sync(0.3)
        for name, layer in layers.items():
            assert_shares_inputs(layer.topology, pairs)
            assert_shares_inputs(copied[int(name)].topology, pairs)
            assert np.count_nonzero(copied[int(name)].values.detach().numpy()) <= layer.nnz
            if rule is None or (rule.budget == "own" and not online.goals and not rule.shrink_at_end):
                assert layer.nnz == counts[name]
    for name, goal in online.goals.items():
        assert goal == exact_nnz((layers[name].n_out, layers[name].n_in), density, pairs)
        assert layers[name].nnz == goal or (rule and rule.budget != "own")
    if online.goals:
        assert sum(layer.nnz for layer in layers.values()) == sum(online.goals.values())
    elif not (rule and rule.shrink_at_end):
        assert sum(layer.nnz for layer in layers.values()) == sum(counts.values())
