"""Budgets that layers share: the reference vectors, and events of several layers worked by hand."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracle.dense_topology import assert_sound_change
from support.layers import ints, random_layer, sparse, weights

from sparserl import sparsify
from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.budget import BUDGET, dealt
from sparserl.topology.config import TopologyConfig
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import momentum_of
from sparserl.topology.pairs import folded
from sparserl.topology.plan import plan_together
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

RNG = np.random.default_rng
PROFILE = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def layer(nnz: int, size: int, momentum: float | None = None) -> LayerView:
    values = np.ones(nnz, np.float32)
    of_each = None if momentum is None else np.tile(np.array([momentum, -momentum]), nnz)[:nnz]
    return LayerView(SparseTopology(1, size, np.arange(nnz)), values, momentum=of_each)


def grown(budget: str, views: list[LayerView], dropped: list[int]) -> list[int]:
    return BUDGET[budget].grown(views, [np.arange(count) for count in dropped], dropped)


# --- shares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "shares", "room", "expected"),
    [
        (90, [300, 100, 50], [999] * 3, [60, 20, 10]),
        (95, [0.75, 0.25], [54, 891], [54, 41]),
        (10, [1, 1, 1], [9] * 3, [4, 3, 3]),  # 3.33 each: the first of equal remainders
        (10, [6, 3, 2], [9] * 3, [5, 3, 2]),  # 5.45, 2.73, 1.82: 5 + 2 + 1, then by remainder .82, .73
        (10, [1, 1, 2], [9, 9, 1], [5, 4, 1]),  # 2.5 2.5 5, then 5 left of equal shares beside what they have
        (5, [0, 0], [3, 9], [3, 2]),
        (9, [1, 0], [3, 2], [3, 2]),  # no more fit
        (0, [1, 1], [3, 3], [0, 0]),
    ],
)
def test_a_total_is_dealt_exactly(total: int, shares: list[float], room: list[int], expected: list[int]) -> None:
    assert dealt(total, shares, room) == expected


@PROFILE
@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.floats(0.0, 9.0), st.integers(0, 20)), min_size=1, max_size=5),
)
def test_what_fits_is_placed(total: int, layers: list[tuple[float, int]]) -> None:
    shares, room = [share for share, _ in layers], [free for _, free in layers]
    counts = dealt(total, shares, room)
    assert sum(counts) == min(total, sum(room))
    assert all(0 <= count <= free for count, free in zip(counts, room, strict=True))


def test_a_share_that_is_no_number_is_refused() -> None:
    with pytest.raises(NotFiniteScoreError, match="share of a layer is NaN"):
        dealt(3, [1.0, float("nan")], [3, 3])


@pytest.mark.parametrize("dropped", [[60, 20, 10], [0, 0, 90]])
def test_dsr_deals_by_what_is_left(dropped: list[int]) -> None:
    # catalogue.md 2.3: survivors 300/100/50, 90 lost in all.
    left = (300, 100, 50)
    views = [layer(own + gone, 10_000) for own, gone in zip(left, dropped, strict=True)]
    assert grown("survivors", views, dropped) == [60, 20, 10]
    assert grown("own", views, dropped) == dropped


def test_snfs_deals_by_mean_momentum() -> None:
    # catalogue.md 2.2: means .3/.1, removed 20/50. There 52.5 and 17.5 are rounded up to 53 and 18, one too many.
    assert grown("momentum", [layer(40, 999, 0.3), layer(100, 999, 0.1)], [20, 50]) == [53, 17]
    # Overfull: 90 of 100 and 100 of 1000 exist, shares .75/.25, removed 45/50; 99 % of 55 free positions are 54.
    assert grown("momentum", [layer(90, 100, 0.3), layer(100, 1000, 0.1)], [45, 50]) == [54, 41]


def test_what_no_share_has_room_for_still_grows() -> None:
    # 99 % of 2 and of 3 free positions is 1 and 2, and 5 are to grow.
    assert grown("momentum", [layer(3, 3, 0.3), layer(3, 3, 0.1)], [2, 3]) == [2, 3]
    with pytest.raises(TopologyError, match="what the optimizer keeps"):
        grown("momentum", [layer(3, 3)], [1])


def test_closed_neurons_leave_no_room() -> None:
    view = layer(2, 6)
    closed = Constraint(np.zeros(2, bool), np.ones(1, bool), np.array([True, True, True, False, False, False]))
    shut = LayerView(view.topology, view.values, constraint=closed)
    assert grown("survivors", [shut, layer(4, 9)], [1, 3]) == [2, 2]  # 1 of 2 is left: 2 each


# --- one threshold for all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beyond", "expected"),
    [
        ([0, 0], [0, 0]),
        ([3, 0], [1, 2]),  # .1 of the second, .2 of the first, then .3
        ([4, -1], [1, 2]),
        ([5, 0], [2, 3]),
        ([-4, 1], [0, 0]),
        ([9, 9], [2, 3]),  # each keeps its largest
    ],
)
def test_the_smallest_of_all_layers_go(beyond: list[int], expected: list[int]) -> None:
    first = LayerView(SparseTopology(1, 5, np.arange(3)), np.array([0.9, -0.2, 0.8], np.float32))
    second = LayerView(SparseTopology(1, 5, np.arange(4)), np.array([-0.1, 0.3, 0.7, 2.0], np.float32))
    assert BUDGET["global_magnitude"].excess([first, second], beyond) == expected


def test_a_threshold_of_all_prunes_to_the_sum_of_goals() -> None:
    layers = {name: sparse(1, 10, list(range(10))) for name in ("small", "large")}
    layers["small"].values.data = torch.linspace(0.01, 0.1, 10)
    layers["large"].values.data = torch.linspace(1.0, 2.0, 10)
    rule = RewireRule(
        drop_fraction=0.0, density_schedule="linear", update_interval=1, last_update=3, budget="global_magnitude"
    )
    evolver = TopologyEvolver({"net": dict(layers)}, rule, seed=0, goals={"small": 5, "large": 5})
    counts = []
    for update in range(1, 6):
        evolver.begin_update(update)
        evolver.end_update("net")
        counts.append((layers["small"].nnz, layers["large"].nnz))
    assert counts == [(10, 10), (6, 10), (1, 9), (1, 9), (1, 9)]  # 20, then 2 * (10 - 2), then 10
    assert sorted(weights(layers["large"])) == list(range(1, 10))


# --- a threshold that moves -----------------------------------------------------------------------------


def frozen_at_the_end(budget: str, fresh: bool, **options: Any) -> list[int]:
    """Connections of two layers, the first of which sat out the end of pruning; a fresh evolver may know the state."""
    torch.manual_seed(0)
    layers = {"net.0": random_layer(0, 20, 10, 200), "net.1": random_layer(1, 10, 20, 200)}
    layers["net.1"].values.data *= 0.1  # so that it is far below its own goal before the other one is frozen
    rule = RewireRule(
        density_schedule="cubic", drop_fraction=0.0, update_interval=1, last_update=10, budget=budget, **options
    )

    def evolver() -> TopologyEvolver:
        return TopologyEvolver({"net": layers}, rule, seed=0, goals={"net.0": 60, "net.1": 50})

    ours = evolver()

    def updates(first: int, last: int) -> None:
        for update in range(first, last + 1):
            ours.begin_update(update)
            hidden = layers["net.0"](torch.randn(8, 10))
            layers["net.1"](hidden).square().mean().backward()
            ours.end_update("net")

    updates(1, 6)
    layers["net.0"].values.requires_grad_(False)
    updates(7, 14)
    layers["net.0"].values.requires_grad_(True)
    if fresh:
        stored = ours.state_dict()
        ours = evolver()
        ours.load_state_dict(stored)
        for name in layers:
            ours.adopt(name)
    updates(15, 17)
    return [layer.topology.nnz for layer in layers.values()]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("budget", ["own", "global_magnitude", "lamp", "fisher"])
def test_layers_frozen_at_the_end_are_pruned_to_the_goals_of_all(budget: str, fresh: bool) -> None:
    counts = frozen_at_the_end(budget, fresh)
    assert sum(counts) == 110
    assert counts == [60, 50] or budget != "own"


def test_dsr_halves_and_doubles_its_threshold() -> None:
    # catalogue.md 2.3: 600 wished; 1500, 500 and 650 went.
    rule = RewireRule("below_threshold", drop_fraction=0.1)
    thresholds = [1e-3]
    for dropped in (1500, 500, 650):
        thresholds.append(rule.next_threshold(thresholds[-1], 1, dropped, 6000))
    assert thresholds == [1e-3, 5e-4, 1e-3, 1e-3]
    assert RewireRule(drop_fraction=0.1).next_threshold(1e-3, 1, 1500, 6000) == 1e-3


@pytest.mark.parametrize(
    ("threshold", "excess", "dropped"),
    [(0.3, 0, [1, 3]), (0.3, 1, [1, 3]), (0.3, 3, [0, 1, 3]), (0.0, 0, []), (9.0, 0, [0, 1, 3])],
)
def test_what_is_below_a_threshold_goes(threshold: float, excess: int, dropped: list[int]) -> None:
    view = LayerView(SparseTopology(1, 9, np.arange(4)), np.array([0.5, -0.2, 0.9, 0.1], np.float32))
    below = LayerView(view.topology, view.values, threshold=threshold)
    assert DROP["below_threshold"].choose(below, 0.1, excess).tolist() == dropped
    assert DROP["below_threshold"].choose(below, 0.0, 0).tolist() == []


def test_what_was_just_dropped_does_not_return_while_others_are_free() -> None:
    view = layer(4, 8)
    for seed in range(20):
        assert set(GROW["random_other"].choose(view, ints(2, 3), 3, RNG(seed)).tolist()) <= {4, 5, 6, 7}
    assert GROW["random_other"].choose(view, ints(2, 3), 5, RNG(0)).tolist()[1:] == [4, 5, 6, 7]


def test_a_dsr_event_moves_connections_between_layers_and_its_state_is_kept() -> None:
    def made() -> tuple[dict[str, Any], TopologyEvolver]:
        layers = {"a": random_layer(0, 10, 10, 60), "b": random_layer(1, 10, 10, 30)}
        layers["b"].values.data *= 1e-4  # all below the threshold: one of 30 stays
        layers["a"].values.data += torch.sign(layers["a"].values.data)
        rule = RewireRule("below_threshold", "random_other", 0.1, update_interval=1, budget="survivors")
        return layers, TopologyEvolver({"net": dict(layers)}, rule, seed=0)

    _, evolver = made()
    evolver.begin_update(1)
    events = evolver.end_update("net")
    assert [(event.dropped, event.grown, event.nnz) for event in events] == [(0, 29, 89), (29, 0, 1)]  # 28.52 and .48
    state = evolver.state_dict()
    assert state["thresholds"] == {"net": 5e-4}  # 29 are more than 1.1 times 9
    _, other = made()
    other.load_state_dict(state)
    assert other.state_dict()["thresholds"] == {"net": 5e-4}


# --- momentum -----------------------------------------------------------------------------------------


def test_momentum_is_what_the_optimizer_gathered() -> None:
    values = torch.nn.Parameter(torch.zeros(3))
    gradient = torch.tensor([1.0, -2.0, 0.5])
    for optimizer, expected in (
        (torch.optim.SGD([values], 0.1, momentum=0.9), [1.9, -3.8, 0.95]),
        (torch.optim.Adam([values], 0.1), None),
    ):
        for _ in range(2):
            values.grad = gradient.clone()
            optimizer.step()
        found = momentum_of(optimizer, values)
        if expected is None:  # m = .19 g, v = .001999 g^2
            expected = (0.19 * np.sign(gradient.numpy()) / np.sqrt(0.001999)).tolist()
        assert found == pytest.approx(np.array(expected), rel=1e-4)
    with pytest.raises(TopologyError, match="needs an optimizer that has gathered one, and this RMSprop has not"):
        momentum_of(torch.optim.RMSprop([values], 0.1), values)


# --- every budget ---------------------------------------------------------------------------------------


@PROFILE
@given(
    st.sampled_from(sorted(BUDGET)),
    st.sampled_from(["weight_magnitude", "signed_magnitude", "below_threshold"]),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.integers(1, 4),
    st.sampled_from([1, 2]),
    st.integers(0, 10**6),
)
def test_a_budget_neither_loses_nor_invents_connections(
    budget: str, drop: str, fraction: float, n_layers: int, pairs: int, seed: int
) -> None:
    rng = RNG(seed)
    views = []
    for _ in range(n_layers):
        n_out, n_in = pairs * int(rng.integers(1, 5)), int(rng.integers(1, 7))
        topology = random_topology(n_out, n_in, pairs * int(rng.integers(0, n_out * n_in // pairs + 1)), rng, pairs)
        values = rng.standard_normal(topology.nnz).astype(np.float32)
        samples = ((rng.standard_normal((n_in, 2)), rng.standard_normal((n_out, 2))),)
        views.append(LayerView(topology, values, samples, momentum=rng.random(topology.nnz), threshold=0.4))
    goals = [max(1, view.topology.size // pairs // 2) * pairs for view in views]
    rule = RewireRule(
        drop, "random", fraction, density_schedule="linear", update_interval=1, last_update=9, budget=budget
    )
    firsts = [view.topology.size for view in views]
    changes = [plan.rewired(rule, rng) for plan in plan_together(rule, views, 5, goals, firsts)]
    for change in changes:
        assert_sound_change(change)
    before, after = (sum(getattr(c, end).nnz for c in changes) for end in ("old", "new"))
    groups = [folded(view).topology for view in views]
    beyond = [
        pairs * rule.beyond(own, 5, goal // pairs, first // pairs)
        for own, goal, first in zip(groups, goals, firsts, strict=True)
    ]
    if budget in ("global_magnitude", "lamp", "fisher"):
        smallest = sum(min(view.topology.nnz, pairs) for view in views)
        assert before - after == min(max(0, sum(beyond)), before - smallest)
    else:
        assert before - after == sum(max(0, count) for count in beyond)


@pytest.mark.parametrize("method", ["granet", "global_magnitude", "lamp", "obd", "snfs", "gmp"])
def test_an_event_of_a_group_without_layers_does_nothing(method: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    optimizer = torch.optim.Adam(model.parameters())
    evolver = sparsify(model, optimizer, method=method, density=0.5, update_interval=1, total_updates=8)
    for layer in evolver.layers.values():
        layer.requires_grad_(False)
    model[0].bias.requires_grad_(True)
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.ones(3, 6)).square().sum().backward()
        optimizer.step()
        evolver.step()
    assert {event.kind for event in evolver.events} == {"initial"}
    rule = TopologyConfig(method=method, density=0.5, first_update=1, last_update=3, update_interval=1).rule()
    alone = TopologyEvolver({"none": {}}, rule, seed=0)
    for update in range(1, 6):
        alone.begin_update(update)
        assert alone.end_update("none") == []
