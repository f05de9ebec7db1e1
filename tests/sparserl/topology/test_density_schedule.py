"""Gradual pruning: numbers of connections worked by hand, the unified event, and that the last number is reached."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracle.dense_topology import assert_sound_change, set_drop
from support.plans import plan_rewire, plan_shrink

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.criteria import DROP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, Importance, LayerView, SparseTopology

RNG = np.random.default_rng
PRUNING: dict[str, Any] = {"drop": "weight_magnitude", "drop_fraction": 0.0, "density_schedule": "cubic"}


def full(n_out: int, n_in: int) -> SparseTopology:
    return SparseTopology(n_out, n_in, np.arange(n_out * n_in))


def full_layer(n_out: int, n_in: int, seed: int = 0) -> SparseLinear:
    layer = SparseLinear(full(n_out, n_in), bias=False)
    layer.values.data = torch.from_numpy(RNG(seed).standard_normal(n_out * n_in).astype(np.float32))
    return layer


def history(
    layer: SparseLinear, rule: RewireRule, goal: int | None, last: int, steps_at: Callable[[int], bool] = bool
) -> list[tuple[int, str, int]]:
    """(update, kind, connections) of every event until update `last`."""
    goals = None if goal is None else {"net.0": goal}
    evolver = TopologyEvolver({"net": {"net.0": layer}}, rule, seed=0, goals=goals)
    for update in range(1, last + 1):
        evolver.begin_update(update)
        if steps_at(update):
            evolver.end_update("net")
    return [(event.update, event.kind, event.nnz) for event in evolver.events[1:]]


# --- how many -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "goal", "first", "interval", "last", "expected"),
    [
        # topology.md 1.5: sparsity 0 .5203 .7875 .8859 .9 (floor of 9000 times the share: 5203, 7875, 8859)
        (10_000, 1000, 100, 100, 500, {100: 10_000, 200: 4797, 300: 2125, 400: 1141, 500: 1000}),
        # sparse-rl.md 8, a window of 20 % to 80 %: 0 .5492 .8313 .9352 .95
        (10_000, 500, 200, 150, 800, {200: 10_000, 350: 4508, 500: 1688, 650: 649, 800: 500}),
        # 7 are to go: 7 times 0, .578, .875, .984, 1
        (10, 3, 1, 1, 5, {1: 10, 2: 6, 3: 4, 4: 4, 5: 3}),
        (10, 10, 1, 1, 5, {1: 10, 5: 10}),
    ],
)
def test_numbers_of_the_reference(
    size: int, goal: int, first: int, interval: int, last: int, expected: dict[int, int]
) -> None:
    rule = RewireRule(**PRUNING, first_update=first, update_interval=interval, last_update=last)
    topology = full(1, size)
    assert {update: size - rule.beyond(topology, update, goal) for update in expected} == expected
    assert [rule.beyond(topology, update, goal) for update in (1, last + 1, 10 * last)] == [0, size - goal, size - goal]


def test_rounds_of_the_same_share_are_as_worked_by_hand() -> None:
    """From 10,000 to a sixteenth in four rounds: each halves what is left."""
    rule = RewireRule(
        **{**PRUNING, "density_schedule": "geometric"}, first_update=1, update_interval=10, last_update=41
    )
    topology = full(1, 10_000)
    left = [10_000 - rule.beyond(topology, update, 625) for update in (1, 11, 21, 31, 41, 999)]
    assert left == [10_000, 5000, 2500, 1250, 625, 625]
    assert [rule.scheduled(update, 10, 10) for update in (1, 21, 41)] == [10, 10, 10]


@pytest.mark.parametrize("present", [9, 6, 5, 3, 2])
def test_a_layer_below_its_schedule_is_left_alone(present: int) -> None:
    # Scheduled at update 2 are 6 of 10, and 3 in the end.
    rule = RewireRule(**PRUNING, update_interval=1, last_update=5)
    topology = SparseTopology(1, 10, np.arange(present))
    assert rule.beyond(topology, 2, 3) == present - 6
    assert rule.beyond(topology, 5, 3) == present - 3
    change = plan_rewire(rule, LayerView(topology, np.ones(present, np.float32)), 2, RNG(0), 3)
    assert change.new.nnz == min(present, 6)


def test_without_a_goal_or_with_a_constant_schedule_nothing_is_too_much() -> None:
    topology = full(2, 5)
    assert RewireRule(**PRUNING, update_interval=1, last_update=5).beyond(topology, 5, None) == 0
    for last_update in (None, 5):
        assert RewireRule(last_update=last_update).beyond(topology, 5, 3) == 0


# --- one event ----------------------------------------------------------------------------------------

# |w| in order: slot 6, 1, then 4 and 5 as equals, 2, 0, 3, 7.
MIXED = np.array([0.5, -0.1, 0.3, -0.7, 0.2, -0.2, 0.0, 0.9], np.float32)
AT_END: dict[str, Any] = {"density_schedule": "cubic", "update_interval": 1, "last_update": 5}


@pytest.mark.parametrize(
    ("fraction", "goal", "kept"),
    [
        (0.0, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.0, 6, [0, 2, 3, 4, 5, 7]),
        (0.0, 5, [0, 2, 3, 5, 7]),  # the lower slot of two equals goes
        (0.0, 1, [7]),
        (0.5, 8, [0, 2, 3, 7]),
        (0.5, 6, [0, 3, 7]),  # 2 and int(3.0) more
        (0.5, 5, [0, 3, 7]),  # 3 and int(2.5) more
        (0.5, 1, [7]),
    ],
)
def test_the_excess_goes_beside_the_fraction_of_the_rest(fraction: float, goal: int, kept: list[int]) -> None:
    rule = RewireRule("weight_magnitude", "random", fraction, **AT_END)
    change = plan_rewire(rule, LayerView(full(2, 4), MIXED), 5, RNG(0), goal)
    assert_sound_change(change)
    assert change.source[change.source >= 0].tolist() == kept
    assert change.dropped == 8 - len(kept)
    assert change.grown == goal - len(kept)
    assert change.new.nnz == goal


def test_sets_rule_applies_to_what_the_excess_leaves() -> None:
    values = [4.0, -1.5, 8.0, -5.0, 1.0, 2.0, -3.0, 6.0]
    rule = RewireRule("signed_magnitude", "random", 0.25, **AT_END)
    change = plan_rewire(rule, LayerView(full(2, 4), np.array(values, np.float32)), 5, RNG(0), 6)
    # Slots 4 and 1 are the excess. Of -5 -3 2 4 6 8: f = 2, q = 3, from v[int(1.5)] = -3 to v[int(3.75)] = 4.
    assert change.source[change.source >= 0].tolist() == [2, 3, 7]
    assert (change.dropped, change.grown, change.new.nnz) == (5, 3, 6)
    nothing_more = RewireRule("signed_magnitude", "random", 0.0, **AT_END)
    change = plan_rewire(nothing_more, LayerView(full(2, 4), np.array(values, np.float32)), 5, RNG(0), 6)
    assert change.source.tolist() == [0, 2, 3, 5, 6, 7]


def test_frozen_connections_stay_even_below_the_goal() -> None:
    frozen = np.array([False, True, True, False, True, True, True, False])
    constraint = Constraint(frozen, np.ones(2, bool), np.ones(4, bool))
    view = LayerView(full(2, 4), MIXED, constraint=constraint)
    change = plan_rewire(RewireRule(**PRUNING, update_interval=1, last_update=5), view, 5, RNG(0), 6)
    assert change.source.tolist() == [1, 2, 4, 5, 6, 7]  # 0 and 3 are the smallest that may go
    change = plan_rewire(RewireRule(**PRUNING, update_interval=1, last_update=5), view, 5, RNG(0), 2)
    assert change.source.tolist() == [1, 2, 4, 5, 6]


@pytest.mark.parametrize("grow", ["random", "random_unfired", "gradient"])
def test_what_is_frozen_beyond_the_goal_grows_nothing_back(grow: str) -> None:
    constraint = Constraint(np.arange(8) < 6, np.ones(2, bool), np.ones(4, bool))
    sample = (np.ones((4, 2), np.float32), np.ones((2, 2), np.float32))
    view = LayerView(full(2, 4), MIXED, (sample,), constraint, explored=np.arange(8))
    change = plan_rewire(RewireRule("weight_magnitude", grow, 0.5, **AT_END), view, 5, RNG(0), 1)
    assert change.source.tolist() == [0, 1, 2, 3, 4, 5]  # 7 are too many, and only two may go


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    drop=st.sampled_from(sorted(DROP)),
    fraction=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    update=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_invariants_of_an_event_on_a_schedule(
    drop: str, fraction: float, update: int, seed: int, data: st.DataObject
) -> None:
    rng = RNG(seed)
    n_out, n_in = rng.integers(1, 7, 2)
    topology = random_topology(n_out, n_in, int(rng.integers(0, n_out * n_in + 1)), rng)
    values = rng.integers(-4, 5, topology.nnz).astype(np.float32)
    frozen = rng.random(topology.nnz) < data.draw(st.sampled_from([0.0, 0.5]))
    view = LayerView(
        topology,
        values,
        ((np.ones((n_in, 1)), np.ones((n_out, 1))),),  # of equal gradients, magnitudes decide
        Constraint(frozen, np.ones(n_out, bool), np.ones(n_in, bool)),
        importance=Importance(np.abs(values), np.ones(n_out), np.ones(n_in)),
    )
    goal = data.draw(st.integers(1, topology.size))
    rule = RewireRule(drop, "random", fraction, **AT_END)
    excess = min(max(0, rule.beyond(topology, update, goal)), int((~frozen).sum()))
    change = plan_rewire(rule, view, update, RNG(seed), goal)
    assert_sound_change(change)
    assert change.new.nnz == topology.nnz - excess
    assert set(np.flatnonzero(frozen).tolist()) <= set(change.source.tolist())
    gone = sorted(set(range(topology.nnz)) - set(change.source.tolist()))
    loose = [slot for slot in range(topology.nnz) if not frozen[slot]]
    ranked = sorted(loose, key=lambda slot: (abs(values[slot]), slot))
    if drop == "signed_magnitude":
        rest = sorted(ranked[excess:])
        of_sign = set_drop(values[rest].tolist(), fraction) if rest and fraction > 0 else []
        assert gone == sorted([*ranked[:excess], *(rest[i] for i in of_sign)])
    else:
        more = 0 if drop in ("below_threshold", "sign_change") else int(fraction * (len(ranked) - excess))
        assert gone == sorted(ranked[: excess + more])
    shrunk = plan_shrink(rule, view, update, goal)
    assert shrunk.new.nnz == topology.nnz - len(gone)


# --- a whole run --------------------------------------------------------------------------------------


def test_pruning_by_hand() -> None:
    layer = full_layer(2, 5)
    order = np.argsort(-np.abs(layer.values.detach().numpy()))
    values = layer.values.detach().clone()
    rule = RewireRule(**PRUNING, update_interval=1, last_update=5)
    events = history(layer, rule, 3, 9)
    assert events == [(1, "prune", 10), (2, "prune", 6), (3, "prune", 4), (4, "prune", 4), (5, "prune", 3)]
    assert layer.topology.flat.tolist() == sorted(order[:3].tolist())
    assert torch.equal(layer.values, values[torch.from_numpy(layer.topology.flat)])


@pytest.mark.parametrize(
    ("first", "interval", "last", "updates"),
    [
        (2, 10, 32, [2, 12, 22, 32]),
        (2, 10, 35, [2, 12, 22, 32]),  # the last event that is due within the window ends the schedule
        (2, 10, 41, [2, 12, 22, 32]),
        (7, 10, 7, [7]),  # one event prunes all at once
        (7, 100, 50, [7]),
    ],
)
def test_the_goal_is_reached_at_the_last_event_of_the_window(
    first: int, interval: int, last: int, updates: list[int]
) -> None:
    rule = RewireRule(**PRUNING, first_update=first, update_interval=interval, last_update=last)
    events = history(full_layer(4, 5), rule, 6, 200)
    assert [update for update, _, _ in events] == updates
    assert {kind for _, kind, _ in events} == {"prune"}
    assert events[-1][2] == 6
    assert all(nnz > 6 for _, _, nnz in events[:-1])


@pytest.mark.parametrize(
    ("fraction", "shrink_at_end", "kinds", "last_nnz"),
    [
        (0.0, False, ["prune", "prune", "prune"], 6),
        (0.0, True, ["prune", "prune", "shrink"], 6),
        (0.5, False, ["rewire", "rewire", "prune"], 6),  # what was to be exchanged stays
        (0.5, True, ["rewire", "rewire", "shrink"], 3),  # int(.5 * 6) more
    ],
)
def test_a_group_that_steps_too_late_is_brought_to_its_goal(
    fraction: float, shrink_at_end: bool, kinds: list[str], last_nnz: int
) -> None:
    # Due at 1, 6 and 11, taken at 4, 8 and 12, when the window has closed.
    fields = {**PRUNING, "drop_fraction": fraction, "shrink_at_end": shrink_at_end}
    rule = RewireRule(**fields, update_interval=5, last_update=11)
    events = history(full_layer(4, 5), rule, 6, 40, lambda update: update % 4 == 0)
    # (4 - 1) / 10 and (8 - 1) / 10 of the way: 14 (1 - .7^3) = 9.198 and 14 (1 - .3^3) = 13.622 have gone.
    assert events == list(zip([4, 8, 12], kinds, [11, 7, last_nnz], strict=True))


def test_a_final_shrink_drops_its_share_beside_the_excess() -> None:
    rule = RewireRule(
        "weight_magnitude", "random", 0.5, **{**AT_END, "update_interval": 5, "last_update": 1}, shrink_at_end=True
    )
    # One event prunes 20 to 8; the shrink takes int(.5 * 8) more.
    assert history(full_layer(4, 5), rule, 8, 40) == [(1, "rewire", 8), (6, "shrink", 4)]


def test_kinds_of_events_when_connections_grow_too() -> None:
    rule = RewireRule("weight_magnitude", "random", 0.5, decay="cosine", **AT_END)
    events = history(full_layer(2, 5), rule, 3, 9)
    # Of the 4 that stay at update 3, int(.5 * .345 * 4) = 0 are exchanged: cos(3 pi / 5) = -.309.
    assert events == [(1, "rewire", 10), (2, "rewire", 6), (3, "prune", 4), (4, "prune", 4), (5, "prune", 3)]


def test_a_layer_without_a_goal_keeps_its_number() -> None:
    assert {nnz for _, _, nnz in history(full_layer(2, 5), RewireRule(**PRUNING, last_update=5000), None, 50)} == {10}
    exchanged = RewireRule("weight_magnitude", "random", 0.3, update_interval=5)
    events = history(full_layer(2, 5), exchanged, 3, 11)  # a constant schedule asks for nothing
    assert events == [(1, "rewire", 10), (6, "rewire", 10), (11, "rewire", 10)]


def test_memory_follows_the_density() -> None:
    layer = full_layer(64, 64)
    optimizer = torch.optim.Adam([layer.values])
    rule = RewireRule(**PRUNING, update_interval=1, last_update=3)
    evolver = TopologyEvolver({"net": {"net.0": layer}}, rule, seed=0, goals={"net.0": 409})
    evolver.follow("net.0", OptimizerMoments(optimizer, layer.values))
    sizes = []
    for update in range(1, 5):
        evolver.begin_update(update)
        layer(torch.ones(8, 64)).square().sum().backward()
        optimizer.step()
        evolver.end_update("net")
        layer(torch.ones(8, 64))  # derives what the kernels need
        moments = optimizer.state[layer.values]
        assert moments["exp_avg"].numel() == moments["exp_avg_sq"].numel() == layer.values.numel() == layer.nnz
        sizes.append((layer.nnz, layer.index_bytes()))
    assert [nnz for nnz, _ in sizes] == [4096, 870, 409, 409]  # 3687 times .875 have gone
    assert sizes[0][1] > 3 * sizes[1][1] > 3 * sizes[2][1]  # row pointers stay


@pytest.mark.parametrize("stop", [1, 6, 9, 13, 20])
def test_a_stored_schedule_goes_on_as_if_never_stopped(stop: int) -> None:
    def start(seed: int) -> tuple[SparseLinear, TopologyEvolver]:
        layer = full_layer(5, 6, seed)
        window = {"first_update": 2, "update_interval": 4, "last_update": 15}
        rule = RewireRule("weight_magnitude", "random_unfired", 0.3, density_schedule="cubic", **window)
        return layer, TopologyEvolver({"net": {"net.0": layer}}, rule, seed=seed, goals={"net.0": 7})

    def advance(layer: SparseLinear, evolver: TopologyEvolver, first: int, last: int) -> None:
        for update in range(first, last + 1):
            evolver.begin_update(update)
            with torch.no_grad():
                layer.values += torch.randn(layer.nnz, generator=torch.Generator().manual_seed(update))
            evolver.end_update("net")

    whole = start(0)
    advance(*whole, 1, stop)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in whole], file)
    advance(*whole, stop + 1, 25)
    file.seek(0)
    resumed = start(1)
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    advance(*resumed, stop + 1, 25)
    assert whole[0].nnz == 7
    assert resumed[0].topology.flat.tolist() == whole[0].topology.flat.tolist()
    assert torch.equal(resumed[0].values, whole[0].values)
    assert resumed[1].explored_fraction("net.0") == whole[1].explored_fraction("net.0")


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"density_schedule": "cubik"}, "unknown density schedule 'cubik'; did you mean 'cubic'"),
        ({"density_schedule": "cubic"}, "a cubic density schedule needs last_update"),
        ({"density_schedule": "cubic", "first_update": 9, "last_update": 8}, "before first_update .* 9, got 8"),
    ],
)
def test_rules_that_cannot_prune_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message) as refused:
        RewireRule(**fields)
    assert "\n" not in str(refused.value)


def test_a_window_that_ends_after_the_run_is_refused() -> None:
    rule = METHODS["gmp"].rule
    assert rule is not None
    assert rule.fitting(800_000) is rule
    with pytest.raises(TopologyError, match=r"within the run's 799999 updates, got last_update 800000$"):
        rule.fitting(799_999)
    assert RewireRule(last_update=10).fitting(5).last_update == 10  # rewiring may be cut short, pruning may not


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ({"net.1": 3}, r"unknown layer with a goal 'net.1'; did you mean 'net.0'"),
        ({"net.0": 0}, r"the goal of layer 'net.0' must be in \[1, 10\], got 0"),
        ({"net.0": 11}, r"the goal of layer 'net.0' must be in \[1, 10\], got 11"),
    ],
)
def test_goals_that_fit_no_layer_are_refused(goals: dict[str, int], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        TopologyEvolver({"net": {"net.0": full_layer(2, 5)}}, RewireRule(), seed=0, goals=goals)
