"""MEST: the drop by magnitude and gradient, and connections on trial, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle.dense_topology import assert_sound_change
from support.layers import one_layer, random_layer
from support.plans import plan_rewire

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.criteria import DROP
from sparserl.topology.pairs import folded
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import LayerView, SparseTopology

RNG = np.random.default_rng
DROPPED = DROP["magnitude_and_gradient"].choose
# catalogue.md 2.5.
WEIGHTS = np.array([0.5, -0.4, 0.3, -0.05, 0.02, 0.6, 0.01, -0.03, 0.2, 0.1], np.float32)
GRADIENT = np.array([0, 0, 0, -9, 0, 0, 0, 7, 0, 0], np.float32)


def view(weight: float, gradient: np.ndarray | None = GRADIENT) -> LayerView:
    topology = SparseTopology(1, 10, np.arange(10))
    return LayerView(topology, WEIGHTS, gradient=gradient, gradient_weight=weight)


@pytest.mark.parametrize(("weight", "dropped"), [(0.0, [4, 6, 7]), (0.02, [4, 6, 9])])
def test_a_weight_that_is_pulled_stays(weight: float, dropped: list[int]) -> None:
    assert DROPPED(view(weight), 0.3).tolist() == dropped
    assert DROPPED(view(weight), 0.0, excess=3).tolist() == dropped


def test_without_a_weight_no_gradient_is_needed() -> None:
    assert DROPPED(view(0.0, None), 0.3).tolist() == [4, 6, 7]
    with pytest.raises(TopologyError, match="needs the gradients of the step"):
        DROPPED(view(0.02, None), 0.3)
    with pytest.raises(NotFiniteScoreError, match="gradient of a weight is NaN"):
        DROPPED(view(0.02, np.full(10, np.nan, np.float32)), 0.3)


def test_neurons_that_share_inputs_add_their_gradients_up() -> None:
    topology = SparseTopology(2, 3, np.array([0, 2, 3, 5]), pairs=2)
    weights, gradient = np.array([0.1, 0.2, -0.1, 0.05], np.float32), np.array([1, 0, -2, 0.5], np.float32)
    group = folded(LayerView(topology, weights, gradient=gradient, gradient_weight=0.25))
    assert group.gradient is not None
    assert group.gradient.tolist() == [3.0, 0.5]
    assert group.gradient_weight == 0.25


def test_the_gradient_is_that_of_the_step() -> None:
    layer = random_layer(0, n_out=2, n_in=5, nnz=10)
    layer.values.data = torch.from_numpy(WEIGHTS.copy())
    rule = RewireRule("magnitude_and_gradient", "random", 0.3, gradient_weight=0.02)
    evolver = one_layer(layer, rule)
    layer.values.grad = torch.from_numpy(GRADIENT.copy())
    evolver.rewire("net.0")
    assert sorted(np.flatnonzero(layer.values.detach().numpy() == 0.0)) == [4, 6, 9]  # grown where nothing else is free
    with pytest.raises(TopologyError, match="needs the gradients of the step"):
        evolver.rewire("net.0")  # an event leaves none


@pytest.mark.parametrize(
    ("update", "present", "dropped", "left"),
    [
        (1, 120, 20, 120),  # catalogue.md 2.5: 120 train, an event drops to 100 and grows 20
        (100, 120, 20, 110),
        (115, 110, 10, 110),
        (125, 110, 10, 100),
        (160, 100, 0, 100),
        (1, 90, 0, 90),  # below its goal it is left alone
    ],
)
def test_what_is_beyond_the_goal_is_on_trial(update: int, present: int, dropped: int, left: int) -> None:
    rule = RewireRule(
        "magnitude_and_gradient",
        drop_fraction=0.0,
        density_schedule="surplus",
        first_update=1,
        update_interval=1,
        last_update=160,
    )
    topology = SparseTopology(10, 100, np.sort(RNG(0).choice(1000, present, replace=False)))
    weights = RNG(1).permutation(np.arange(1, present + 1)).astype(np.float32)
    change = plan_rewire(rule, LayerView(topology, weights), update, RNG(2), goal=100, first=120)
    assert_sound_change(change)
    kept = change.source[change.source >= 0]
    assert sorted(weights[kept]) == list(range(dropped + 1, present + 1))
    assert (change.new.nnz, change.grown) == (left, left - (present - dropped))
