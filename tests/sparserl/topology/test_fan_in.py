"""A constant fan-in: events worked by hand, neurons that go and come back, and invariants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracle.dense_topology import assert_sound_change
from support.layers import ints
from support.plans import plan_rewire

from sparserl.errors import ConfigError, TopologyError
from sparserl.topology import block_scores
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology, TopologyChange

RNG = np.random.default_rng
PROFILE = settings(max_examples=150, deadline=None, derandomize=True, database=None)
RULE = RewireRule("weight_magnitude", "gradient", 0.5, keep_regrown=True, fan_in="constant", salient_share=0.9)
# Three neurons of four inputs, two connections each: |weights| and |gradients| by hand.
FLAT = ints(0, 1, 4, 6, 9, 11)
WEIGHTS = np.array([0.9, -0.8, 0.1, 0.7, -0.05, 0.2], np.float32)
GRADIENT = [[9, 0, -7, 1], [0, 0, 0, 6], [-3, 0, 0, 2]]


def view(gradient: list[list[float]] | np.ndarray, flat: np.ndarray = FLAT, weights: np.ndarray = WEIGHTS) -> LayerView:
    dense = np.array(gradient, np.float32)  # the gradient of a batch of one sample for each input
    samples = ((np.eye(dense.shape[1], dtype=np.float32), dense),)
    return LayerView(SparseTopology(*dense.shape, flat), weights, samples)


def event(of_layer: LayerView, **fields: Any) -> TopologyChange:
    change = plan_rewire(replace(RULE, **fields), of_layer, 1, RNG(0))
    assert_sound_change(change)
    return change


@pytest.fixture(params=[4, 1 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_a_neuron_of_few_salient_connections_is_left_out() -> None:
    # The drop takes .05, .1, .2; the largest gradients are 9, 7, 6. Salient: 0 1 2 of the first neuron, 2 3 of the
    # second, none of the third, and one is needed (.9 x 2). Two neurons of three inputs are left: the first grows 2,
    # the second 3, and of equal gradients input 0, which keeps its weight.
    change = event(view(GRADIENT))
    assert change.new.flat.tolist() == [0, 1, 2, 4, 6, 7]
    assert change.source.tolist() == [0, 1, -1, 2, 3, -1]


@pytest.mark.usefixtures("block")
def test_without_a_share_every_neuron_stays() -> None:
    # Two inputs each: the second grows 3, the third 0 and 3, of which 3 was there before.
    change = event(view(GRADIENT), salient_share=0.0)
    assert change.new.flat.tolist() == [0, 1, 6, 7, 8, 11]
    assert change.source.tolist() == [0, 1, 3, -1, -1, 5]


def test_connections_of_neurons_left_out_are_the_first_to_go() -> None:
    # A third of nine: the drop takes .15, .1, .05, and the largest gradients are of the first neuron. Salient: five of
    # it, .7 of the second, .5 .4 of the third, and two are needed (int(.9 x 3)). So the three of the second go, and .05
    # stays. Nine connections for two neurons: five for the more salient one.
    flat = ints(0, 1, 2, 5, 6, 7, 10, 11, 12)
    weights = np.array([0.9, 0.8, 0.6, 0.7, 0.1, 0.15, 0.5, 0.4, 0.05], np.float32)
    change = event(view([[0, 0, 9, 8, 7], [0] * 5, [0, 0, 0, 1, 2]], flat, weights), drop_fraction=0.34)
    assert change.new.flat.tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 14]
    assert change.source.tolist() == [0, 1, 2, -1, -1, 6, 7, 8, -1]


def test_a_neuron_comes_back_by_its_gradient() -> None:
    # The drop takes .4, .5, .6. Two inputs each: the second neuron grows one more, the third 0 and 1.
    weights = np.array([0.9, 0.8, 0.4, 0.7, 0.6, 0.5], np.float32)
    change = event(view([[0] * 4, [0] * 4, [9, 8, 0, 7]], ints(0, 1, 2, 4, 6, 7), weights))
    assert change.new.flat.tolist() == [0, 1, 4, 5, 8, 9]
    assert change.source.tolist() == [0, 1, 3, -1, -1, -1]


def test_a_neuron_of_more_than_its_fan_in_keeps_the_largest() -> None:
    flat, weights = ints(0, 1, 2, 3), np.array([0.5, 0.9, 0.7, 0.8], np.float32)
    change = event(view([[0] * 4, [0, 5, 0, 4]], flat, weights), salient_share=0.0, drop_fraction=0.0)
    assert change.new.flat.tolist() == [1, 3, 5, 7]


def test_as_many_neurons_stay_as_the_connections_need() -> None:
    # Seven connections of four inputs need two neurons, whatever is salient.
    flat, weights = ints(0, 1, 2, 3, 4, 5, 6), np.array([9, 9, 9, 9, 0.1, 0.1, 0.1], np.float32)
    change = event(view([[9, 9, 9, 9], [0] * 4, [0] * 4], flat, weights))
    assert np.bincount(change.new.outputs, minlength=3).tolist() == [4, 3, 0]


def test_a_learner_that_freezes_connections_is_refused() -> None:
    frozen = Constraint(np.zeros(6, bool), np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(TopologyError, match="constant fan-in cannot be kept where a learner freezes"):
        event(replace(view(GRADIENT), constraint=frozen))


@PROFILE
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([1, 2]),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(0, 10**6),
)
def test_every_neuron_that_stays_has_as_many(rows: int, n_in: int, pairs: int, share: float, seed: int) -> None:
    rng = RNG(seed)
    n_out = rows * pairs
    topology = random_topology(n_out, n_in, pairs * int(rng.integers(1, rows * n_in + 1)), rng, pairs)
    samples = ((rng.standard_normal((n_in, 3)), rng.standard_normal((n_out, 3))),)
    of_layer = LayerView(topology, rng.standard_normal(topology.nnz).astype(np.float32), samples)
    change = event(of_layer, salient_share=share, drop_fraction=float(rng.choice([0.0, 0.3, 0.9])))
    fan_in = np.bincount(change.new.outputs, minlength=n_out)
    assert change.new.nnz == topology.nnz
    assert np.ptp(fan_in[fan_in > 0]) <= 1
    if share == 0.0:
        assert fan_in.min() >= topology.nnz // n_out // pairs
    change.new.check_valid()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grow": "random"}, "needs growth by a score, gradient.*, got 'random'"),
        ({"budget": "survivors"}, "budget own, got 'survivors'"),
        ({"shrink_at_end": True}, "set shrink_at_end false"),
        ({"density_schedule": "cubic", "last_update": 9}, "set density_schedule constant"),
        ({"fan_in": "free"}, "salient_share 0.9 is of a constant fan-in: set fan_in constant"),
        ({"salient_share": 1.0}, r"salient_share must be in \[0, 1\), got 1.0"),
        ({"fan_in": "constnt"}, "unknown fan-in 'constnt'; did you mean 'constant'"),
    ],
)
def test_what_leaves_no_constant_fan_in_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        replace(RULE, **fields)


def test_outputs_of_a_network_keep_their_connections() -> None:
    with pytest.raises(ConfigError, match=r"set topology\.output_layer dense, or salient_share 0"):
        TopologyConfig(method="srigl", output_layer="sparse")
    TopologyConfig(method="srigl", output_layer="sparse", salient_share=0.0)


def test_gradients_of_the_layer_are_counted() -> None:
    assert (RULE.dense_products, replace(RULE, salient_share=0.0).dense_products, RewireRule().dense_products) == (
        2,
        1,
        0,
    )
