"""As many of each four or eight consecutive inputs: first topologies, events worked by hand, invariants, refusals."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracle.dense_topology import assert_sound_change, mask_of
from support.layers import ints
from support.plans import plan_rewire

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseMLP
from sparserl.topology import block_scores
from sparserl.topology.config import TopologyConfig
from sparserl.topology.initial_topology import INITIAL
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import LayerView, SparseTopology

RNG = np.random.default_rng
PROFILE = settings(max_examples=100, deadline=None, derandomize=True, database=None)
RULE = RewireRule("weight_magnitude", "gradient", 0.5, keep_regrown=True, fan_in="of_four")


@pytest.mark.parametrize("entries", [8, 1 << 20])
def test_an_event_by_hand(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two outputs of eight inputs, 2 of 4. Of eight weights the four smallest go: .1 and .05 of the first output, .2 and
    # .3 of the second, whose second four inputs lose none.
    monkeypatch.setattr(block_scores, "ROW_BLOCK", entries)
    flat = ints(0, 1, 4, 5, 8, 9, 12, 15)
    weights = np.array([0.1, -0.5, 0.05, 0.7, 0.2, -0.3, 0.9, 0.8], np.float32)
    gradient = np.array([[0, 0, 9, 1, -8, 0, 7, 3], [1, 0, 2, -3, 9, 9, 9, 9]], np.float32)
    view = LayerView(SparseTopology(2, 8, flat), weights, ((np.eye(8, dtype=np.float32), gradient),))
    change = plan_rewire(RULE, view, 1, RNG(0))
    # Best of each four: 2; 4 again; 2 and 3 of the second output; none where two are left.
    assert change.new.flat.tolist() == [1, 2, 4, 5, 10, 11, 12, 15]
    assert change.source.tolist() == [1, -1, 2, 3, -1, -1, 6, 7]


def fours(topology: SparseTopology, m: int) -> np.ndarray:
    return mask_of(topology).reshape(-1, m).sum(axis=1)


@PROFILE
@given(
    st.sampled_from([4, 8]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 2]),
    st.integers(0, 10**6),
    st.data(),
)
def test_every_group_of_inputs_has_as_many(
    m: int, rows: int, groups: int, pairs: int, seed: int, data: st.DataObject
) -> None:
    n, rng = data.draw(st.integers(1, m)), RNG(seed)
    n_out, n_in = rows * pairs, groups * m
    name = {4: "of_four", 8: "of_eight"}[m]
    topology = INITIAL[name](n_out, n_in, n_out * groups * n, rng, pairs)
    topology.check_valid()
    assert fours(topology, m).tolist() == [n] * (n_out * groups)
    samples = ((rng.standard_normal((n_in, 3)), rng.standard_normal((n_out, 3))),)
    view = LayerView(topology, rng.standard_normal(topology.nnz).astype(np.float32), samples)
    rule = RewireRule("weight_magnitude", "gradient", float(rng.choice([0.0, 0.3, 0.9])), fan_in=name)
    change = plan_rewire(rule, view, 1, rng)
    assert_sound_change(change)
    change.new.check_valid()
    assert fours(change.new, m).tolist() == [n] * (n_out * groups)


def test_layers_that_do_not_fit_are_refused() -> None:
    def made(density: float | tuple[float, ...], **fields: str) -> SparseMLP:
        topology = TopologyConfig(method="static", density=density, initial_topology="of_four", **fields)  # type: ignore[arg-type]
        return SparseMLP.random([17, 8, 12, 3], topology=topology, seed=0, name="net")

    with pytest.raises(
        TopologyError, match="8 x 17 has no whole groups of 4 inputs: keep it dense by a density for each"
    ):
        made(0.5, allocation="uniform")
    with pytest.raises(TopologyError, match=r"29 connections of a layer of 12 x 8 .* each 4 inputs: use density 0\.25"):
        made((1.0, 0.3))
    assert fours(made((1.0, 0.5))[1].topology, 4).tolist() == [2] * 24  # type: ignore[arg-type]


def test_what_is_kept_has_to_be_there_first() -> None:
    with pytest.raises(ConfigError, match=r"fan_in of_four is kept, not made: set topology\.initial_topology of_four"):
        TopologyConfig(method="rigl", fan_in="of_four")
    with pytest.raises(TopologyError, match=r"salient_share 0\.5 is of a constant fan-in: set fan_in constant"):
        RewireRule("weight_magnitude", "gradient", fan_in="of_four", salient_share=0.5)
