"""DeepR: a weight that has changed its sign is gone, and another one begins next to 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.layers import one_layer, sparse, weights

from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.recycle import Recycler
from sparserl.topology.criteria import DROP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.pairs import folded, group_signs
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

DROPPED = DROP["sign_change"].choose
# catalogue.md 2.1: theta (.5, .02, .3), s g (1, 1, -2), lr .1, L1 .1 -> (.39, -.09, .49); here the second is negative.
BEFORE = np.array([0.5, -0.02, 0.3], np.float32)
AFTER = BEFORE - np.float32(0.1) * np.array([1.1, -1.1, -1.9], np.float32)
ALL = SparseTopology(1, 3, np.arange(3))
RULE = RewireRule("sign_change", "random", 0.3, update_interval=1)


def view(values: np.ndarray, signs: list[int] | None) -> LayerView:
    return LayerView(ALL, values, signs=None if signs is None else np.array(signs, np.int8))


def test_the_reference_step() -> None:
    assert AFTER.tolist() == pytest.approx([0.39, 0.09, 0.49])
    assert DROPPED(view(AFTER, [1, -1, 1]), 0.3).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "signs", "dropped"),
    [
        ([0.1, -0.1, 0.0], [1, -1, 1], [2]),  # at 0 it is gone
        ([0.1, -0.1, 0.0], [0, 0, 0], []),  # it had no sign to lose
        ([-0.1, 0.1, -0.1], [1, -1, 1], [0, 1, 2]),
        ([-0.1, 0.1, -0.1], None, []),
    ],
)
def test_which_are_gone(values: list[float], signs: list[int] | None, dropped: list[int]) -> None:
    seen = view(np.array(values, np.float32), signs)
    assert DROPPED(seen, 0.3).tolist() == dropped
    assert DROPPED(seen, 0.0).tolist() == []


def test_an_excess_goes_first_and_frozen_ones_stay() -> None:
    assert DROPPED(view(AFTER, [1, -1, -1]), 0.3, 1).tolist() == [1, 2]  # .09 is the smallest
    frozen = Constraint(np.array([False, True, False]), np.ones(1, bool), np.ones(3, bool))
    seen = LayerView(ALL, AFTER, constraint=frozen, signs=np.array([1, -1, 1], np.int8))
    assert DROPPED(seen, 0.3).tolist() == []


def test_neurons_that_share_inputs_have_the_sign_of_their_sum() -> None:
    topology = SparseTopology(2, 3, np.array([0, 2, 3, 5]), pairs=2)
    values = np.array([0.3, -0.2, -0.1, -0.1], np.float32)
    signs = group_signs(topology, values)
    assert signs.tolist() == [1, -1, 1, -1]
    group = folded(LayerView(topology, values, signs=signs))
    assert group.signs is not None
    assert group.signs.tolist() == [1, -1]
    assert np.sign(group.values).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_an_event_right_after_another_drops_nothing_and_one_after_all_have_changed_drops_all(pairs: int) -> None:
    rng = np.random.default_rng(0)
    layer = SparseLinear(random_topology(16, 20, 80, rng, pairs))
    evolver = one_layer(layer, RULE, new_value="tiny")

    def dropped(update: int) -> int:
        evolver.begin_update(update)
        (event,) = evolver.end_update("net")
        return event.dropped

    assert dropped(1) == 0
    layer.values.data.neg_()
    assert dropped(2) == 80


def test_what_recycling_has_set_has_not_changed_its_sign() -> None:
    torch.manual_seed(0)
    net = SparseMLP.random([6, 12, 12, 2], [0.5] * 3, seed=0, name="net")
    adam = torch.optim.Adam(net.parameters())
    layers = {f"net.{level}": layer for level, layer in enumerate(net)}
    evolver = TopologyEvolver({"net": layers}, RULE, seed=0, new_value="tiny")
    recycler = Recycler({"net": (net, adam)}, interval=1, threshold=0.6, seed=5)
    recycler.began_anew = evolver.begun_anew
    changed = net[0].values.data[:1].neg_()
    assert changed.numel() == 1
    assert sum(recycler.recycle_if_due(1, {"net": torch.randn(20, 6)}).values()) > 4
    evolver.begin_update(2)
    assert sum(event.dropped for event in evolver.end_update("net")) <= 1  # that one, if it was not drawn anew


def test_signs_are_those_after_the_last_event_and_are_kept() -> None:
    def made() -> tuple[torch.nn.Parameter, TopologyEvolver]:
        layer = sparse(1, 6, [0, 1, 2], BEFORE.tolist())
        return layer.values, one_layer(layer, RULE, new_value="tiny")

    values, evolver = made()
    values.data = torch.from_numpy(AFTER.copy())
    evolver.begin_update(1)
    (event,) = evolver.end_update("net")
    assert (event.dropped, event.grown, event.nnz) == (1, 1, 3)
    now = weights(evolver.layers["net.0"])  # type: ignore[arg-type]
    new = {position: value for position, value in now.items() if abs(value) < 1e-6}
    assert [abs(value) for value in new.values()] == pytest.approx([1e-12])

    stored = evolver.state_dict()
    values.data = -values.data
    evolver.begin_update(2)
    (event,) = evolver.end_update("net")
    assert event.dropped == 3

    values, other = made()
    other.load_state_dict(stored)
    assert torch.equal(other.state_dict()["signs"]["net.0"], stored["signs"]["net.0"])


def test_the_state_of_other_rules_is_that_of_before_there_were_signs_and_thresholds() -> None:
    """A checkpoint of a run is refused where the evolver's state has another key."""
    evolver = one_layer(sparse(1, 6, [0, 1, 2]), RewireRule())
    evolver.rewire("net.0")
    assert set(evolver.state_dict()) == {
        *("update", "due", "batches", "grown_total", "dropped_total", "generators", "initial", "explored", "gathered")
    }


def test_deepr_is_its_parts() -> None:
    method = METHODS["deepr"]
    assert method.rule is not None
    assert (method.rule.drop, method.rule.grow, method.new_value) == ("sign_change", "random", "tiny")
