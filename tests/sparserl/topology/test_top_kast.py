"""Top-KAST: the sets that passes use and that learn, worked by hand; events, the pull, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import assert_sound_change
from support.layers import ints, one_layer, recorder, sparse
from support.plans import plan_rewire

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig
from sparserl.topology.criteria import largest
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule, difference, exchange, random_topology
from sparserl.topology.structure import LayerView, SparseTopology, TopologyChange
from sparserl.topology.target import TARGET

# catalogue.md 2.4, forward 2 of 8 and backward 5 of 8.
THETA = [0.9, -0.1, 0.5, 0.05, -0.7, 0.2, 0.01, -0.3]
FORWARD, BACKWARD = [0, 4], [0, 2, 4, 5, 7]
RULE = RewireRule("weight_magnitude", "random", 0.4, update_interval=1, keep_regrown=True, backward_factor=2.5)


def stored(used: list[int] | None = None) -> SparseLinear:
    """The backward set of the vector as a layer of 2 x 4; `used` are positions."""
    topology = SparseTopology(2, 4, ints(*BACKWARD))
    if used is not None:
        topology = topology.with_used(ints(*map(BACKWARD.index, used)))
    return SparseLinear.of(topology, torch.tensor([THETA[position] for position in BACKWARD]), None)


def positions_in_use(layer: SparseLinear) -> list[int]:
    positions: list[int] = layer.topology.in_use.flat.tolist()
    return positions


def test_the_reference_sets() -> None:
    assert largest(np.array(THETA), 2).tolist() == FORWARD
    assert largest(np.array(THETA), 5).tolist() == BACKWARD
    assert largest(np.array([1.0, -1.0, 1.0]), 2).tolist() == [1, 2]
    assert largest(np.array([1.0, 2.0]), 0).tolist() == []
    layer = stored()
    layer.begin_use(2)
    assert positions_in_use(layer) == FORWARD
    assert layer.topology.used is not None
    assert layer.topology.used.dtype == np.int32


def test_the_reference_decay() -> None:
    # lambda 1e-4 over a density of 2 of 8: 1e-4 of the weight where it is used, 4e-4 where it only learns.
    layer = stored(FORWARD)
    rule = RewireRule(first_update=9, weight_l2=1e-4, backward_factor=2.5)
    evolver = one_layer(layer, rule)
    evolver.set_optimizer("net.0", lambda: torch.optim.SGD([layer.values], 1.0))
    evolver.begin_update(1)
    evolver.after_step("net")
    kept = {0: 1 - 1e-4, 2: 1 - 4e-4, 4: 1 - 1e-4, 5: 1 - 4e-4, 7: 1 - 4e-4}
    np.testing.assert_allclose(layer.values.detach(), [THETA[at] * kept[at] for at in BACKWARD], rtol=1e-6)


def test_without_unused_connections_it_is_plain_decay() -> None:
    layer = sparse(1, 4, [0, 3], [2.0, -1.0])
    evolver = one_layer(layer, RewireRule(first_update=9, weight_l2=0.5))
    evolver.set_optimizer("net.0", lambda: torch.optim.SGD([layer.values], 0.1))
    evolver.begin_update(1)
    evolver.after_step("net")
    np.testing.assert_allclose(layer.values.detach(), [1.9, -0.95], rtol=1e-6)


def test_an_event_uses_the_largest_and_exchanges_the_weakest_of_the_others() -> None:
    layer, changes = stored([0, 5]), list[TopologyChange]()
    evolver = one_layer(layer, RULE)
    evolver.follow("net.0", recorder(changes))
    event = evolver.rewire("net.0")
    # In use from now on: .9 and -.7. Of .5, .2 and -.3 beside them, two fifths go: one, and .2 is the weakest.
    assert positions_in_use(layer) == FORWARD
    (change,) = changes
    assert change.new.nnz == 5
    survivors = change.new.flat[change.source >= 0].tolist()
    assert set(survivors) >= {0, 2, 4, 7}
    assert event.grown == event.dropped <= 1  # it may be drawn again, and then stays as it is
    now = dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True))
    for position in survivors:
        assert now[position] == pytest.approx(THETA[position])
    assert [now[position] for position in set(now) - set(survivors)] == [0.0] * event.grown


def test_a_full_layer_follows_the_rule_of_the_source() -> None:
    """With all weights stored nothing is exchanged: those in use are the largest of all, whatever they were."""
    layer = SparseLinear.of(SparseTopology(2, 4, np.arange(8)).with_used(ints(1, 6)), torch.tensor(THETA), None)
    event = one_layer(layer, RULE).rewire("net.0")
    assert (event.grown, event.dropped, event.nnz) == (0, 0, 8)
    np.testing.assert_allclose(layer.values.detach(), THETA)
    assert positions_in_use(layer) == FORWARD


@pytest.mark.parametrize("seed", range(20))
def test_events_of_random_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_out, n_in = (int(n) for n in rng.integers(2, 9, 2))
    nnz = int(rng.integers(1, n_out * n_in + 1))
    topology = random_topology(n_out, n_in, nnz, rng)
    topology = topology.with_used(np.sort(rng.permutation(nnz)[: rng.integers(0, nnz + 1)]))
    topology.check_valid()
    values = rng.standard_normal(nnz)
    change = plan_rewire(RULE, LayerView(topology, values), 1, rng)
    assert_sound_change(change)
    assert change.new.nnz == nnz
    change.new.check_valid()
    assert topology.used is not None
    assert change.new.used is not None
    survivors = change.source[change.new.used]
    assert (survivors >= 0).all()  # what is grown is not used yet
    assert survivors.tolist() == np.sort(np.argsort(np.abs(values))[nnz - topology.used.size :]).tolist()
    weakest = np.abs(values[np.setdiff1d(np.arange(nnz), change.source)])
    others = np.abs(values[np.setdiff1d(change.source[change.source >= 0], survivors)])
    kept_regrown = int(0.4 * (nnz - topology.used.size)) - change.grown
    assert np.sum(others[:, None] < weakest.max(initial=0.0)) <= kept_regrown


def test_other_changes_leave_in_use_what_was() -> None:
    old = SparseTopology(2, 4, ints(*BACKWARD)).with_used(ints(0, 2))
    change = exchange(old, ints(1), ints(3))
    assert change.new.in_use.flat.tolist() == FORWARD
    assert exchange(old, ints(0), ints(3)).new.in_use.flat.tolist() == [4]
    assert difference(SparseTopology(2, 4, ints(0, 1)), old).new is old
    assert SparseTopology(2, 4, ints(0, 1)).in_use.flat.tolist() == [0, 1]


def test_the_last_event_that_only_drops_takes_none_that_is_used() -> None:
    rule = RewireRule(drop_fraction=0.7, last_update=1, shrink_at_end=True, backward_factor=2.5)
    layer = stored(FORWARD)
    evolver = one_layer(layer, rule)
    for update in (1, 2, 1001):
        evolver.begin_update(update)
        evolver.end_update("net")
    assert layer.nnz == 3
    assert positions_in_use(layer) == FORWARD


@pytest.mark.parametrize(
    ("used", "message"),
    [
        (np.array([0, 5], np.int32), "none of the 5 of the layer"),
        (np.array([-1, 2], np.int32), "none of the 5 of the layer"),
        (np.array([2, 2], np.int32), "strictly increasing"),
        (np.array([0, 2]), "1-D int32 array"),
    ],
)
def test_slots_in_use_are_checked(used: np.ndarray, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        SparseTopology(2, 4, ints(*BACKWARD), used=used).check_valid()


def test_neurons_that_share_inputs_use_all() -> None:
    with pytest.raises(TopologyError, match="pairs must be 1, got 2"):
        SparseTopology(2, 4, ints(0, 4), 2, np.array([0], np.int32)).check_valid()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backward_factor": 0.5}, r"topology.backward_factor must be at least 1, got 0.5"),
        ({"weight_l2": -1.0}, r"topology.weight_l2 must not be negative, got -1"),
        ({"pairs": 2}, r"backward_factor 2 leaves connections unused: set topology.pairs 1, not 2"),
        ({"initial_topology": "snip"}, r"set topology.initial_topology largest, not snip"),
    ],
)
def test_refused_wishes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TopologyConfig("top_kast", density=0.1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density_schedule": "cubic", "last_update": 9}, "set density_schedule constant, not 'cubic'"),
        ({"fan_in": "constant", "grow": "gradient"}, "set fan_in free, not 'constant'"),
        ({"backward_factor": float("inf")}, "must be >= 1 and finite, got inf"),
    ],
)
def test_refused_rules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        RewireRule(**{"backward_factor": 2.0, **options})


def test_methods_that_never_rewire_take_no_factor() -> None:
    with pytest.raises(ConfigError, match="'static' never rewires and takes no backward_factor"):
        TopologyConfig("static", backward_factor=2.0)


def test_a_lagging_target_is_refused() -> None:
    layers = stored(FORWARD), stored(FORWARD)
    with pytest.raises(TopologyError, match=r"set topology.target shared, or topology.backward_factor 1"):
        TARGET["union_trim"](*layers)
    TARGET["shared"](*layers)


def test_how_many_are_stored_and_used() -> None:
    config = TopologyConfig("top_kast", density=0.2)
    assert (config.first_nnz((10, 20), 0.2), config.used((10, 20), 0.2)) == (80, 40)
    assert config.first_nnz((10, 20), 0.7) == 200  # all there are
    assert config.used((10, 20), 0.7) == 140
    assert TopologyConfig("set", density=0.2).used((10, 20), 0.2) is None
    wide = TopologyConfig("set", density=0.2, backward_factor=3.0)
    assert (wide.first_nnz((10, 20), 0.2), wide.used((10, 20), 0.2)) == (120, 40)


def test_the_row_has_the_decay_of_the_source() -> None:
    rule = METHODS["top_kast"].rule
    assert rule is not None
    assert (rule.weight_l2, rule.update_interval, rule.backward_factor) == (1e-4, 100, 2.0)
