"""What is recorded of a topology, against numbers worked out by hand and counts on dense masks."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.metrics.connectivity import (
    TOPOLOGY_COLUMNS,
    chains,
    dead_neurons,
    degree_by_relevance,
    effective_connections,
    event_rows,
    fan_in,
    fan_out,
    overlap,
    relevant_inputs,
    topology_metrics,
)
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import SparseTopology


def topology(n_out: int, n_in: int, *flat: int) -> SparseTopology:
    return SparseTopology(n_out, n_in, np.array(flat, np.int64))


def layer(n_out: int, n_in: int, nnz: int) -> SparseLinear:
    return SparseLinear(SparseTopology(n_out, n_in, np.arange(nnz)))


# x . x      output 0 reads inputs 0 and 2
# . . .      output 1 reads nothing
# . . x      output 2 reads input 2; nobody reads input 1
CASE = topology(3, 3, 0, 2, 8)


def test_degrees_worked_by_hand() -> None:
    assert fan_in(CASE).tolist() == [2, 0, 1]
    assert fan_out(CASE).tolist() == [1, 0, 2]
    assert fan_in(topology(2, 3)).tolist() == [0, 0]
    assert fan_out(topology(2, 3)).tolist() == [0, 0, 0]


def test_dead_neurons_worked_by_hand() -> None:
    assert dead_neurons(CASE) == 1
    assert dead_neurons(CASE, topology(1, 3, 0, 1)) == 2  # output 1 has no input, output 2 no reader
    assert dead_neurons(CASE, topology(1, 3, 0, 1, 2)) == 1
    with pytest.raises(TopologyError, match="a layer of 2 inputs cannot read one of 3 outputs"):
        dead_neurons(CASE, topology(1, 2, 0))


def test_effective_connections_worked_by_hand() -> None:
    assert effective_connections([CASE]) == [3]
    assert effective_connections([CASE, topology(1, 3, 0, 1)]) == [2, 1]  # the path 0, 2 -> 0 -> 0 alone
    assert effective_connections([CASE, topology(1, 3, 1)]) == [0, 0]
    assert effective_connections([CASE, None, topology(2, 5, 3)]) == [3, 1]  # a dense layer joins all with all
    assert effective_connections([topology(2, 2), None, topology(2, 5, 3)]) == [0, 0]
    with pytest.raises(TopologyError, match="a layer of 2 inputs cannot read one of 3 outputs"):
        effective_connections([CASE, topology(1, 2, 0)])


def test_overlap_worked_by_hand() -> None:
    assert overlap(CASE, np.array([0, 2, 8])) == 1.0
    assert overlap(CASE, np.array([0, 1, 3, 4])) == 0.25
    assert overlap(CASE, np.array([], np.int64)) == 1.0


def test_degrees_by_relevance_worked_by_hand() -> None:
    degrees = degree_by_relevance(CASE, np.array([True, True, False]))
    assert degrees == {"degree_relevant": 0.5, "degree_irrelevant": 2.0}
    assert degree_by_relevance(CASE, np.ones(3, bool)) == {"degree_relevant": 1.0}
    with pytest.raises(TopologyError, match="a layer of 3 inputs needs as many flags, got 2"):
        degree_by_relevance(CASE, np.ones(2, bool))


@given(st.data())
def test_all_counts_equal_those_on_masks(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    masks, chain = [], []
    for n_in, n_out in pairwise(widths):
        entries = st.lists(st.booleans(), min_size=n_in * n_out, max_size=n_in * n_out)
        mask = np.array(data.draw(entries)).reshape(n_out, n_in)
        masks.append(mask)
        chain.append(SparseTopology(n_out, n_in, np.flatnonzero(mask)))
    fed, read = [np.ones(widths[0], bool)], [np.ones(widths[-1], bool)]
    for mask in masks:
        fed.append((mask & fed[-1]).any(axis=1))
    for mask in reversed(masks):
        read.append((mask.T & read[-1]).any(axis=1))
    on_path = [
        int((mask & into & out_of[:, None]).sum())
        for mask, into, out_of in zip(masks, fed, reversed(read[:-1]), strict=False)
    ]
    assert effective_connections(chain) == on_path
    for place, (mask, own) in enumerate(zip(masks, chain, strict=True)):
        assert fan_in(own).tolist() == mask.sum(axis=1).tolist()
        assert fan_out(own).tolist() == mask.sum(axis=0).tolist()
        reader = chain[place + 1] if place + 1 < len(chain) else None
        unread = np.zeros(own.n_out, bool) if reader is None else masks[place + 1].sum(axis=0) == 0
        assert dead_neurons(own, reader) == ((mask.sum(axis=1) == 0) | unread).sum()


def test_relevance_belongs_to_the_layers_that_read_observations() -> None:
    layers = {"actor.mu.0": layer(2, 3, 1), "actor.mu.1": layer(2, 2, 1), "critic.qf0.0": layer(2, 5, 1)}
    found = relevant_inputs(layers, np.array([True, False, True]))  # type: ignore[arg-type]  # are evolving layers
    assert {name: flags.tolist() for name, flags in found.items()} == {
        "actor.mu.0": [True, False, True],
        "critic.qf0.0": [True, False, True, True, True],  # two actions
    }
    with pytest.raises(TopologyError, match=r"4 features do not fit the 3 inputs of actor\.mu\.0"):
        relevant_inputs(layers, np.ones(4, bool))  # type: ignore[arg-type]


def test_behind_a_memory_nothing_reads_observations() -> None:
    layers = {"actor.memory.ih_l0": layer(8, 3, 1), "actor.memory.hh_l0": layer(8, 2, 1), "actor.pi.0": layer(2, 2, 1)}
    layers["critic.vf.0"] = layer(2, 3, 1)
    found = relevant_inputs(layers, np.array([True, False, True]), {"actor"})  # type: ignore[arg-type]
    assert {name: flags.tolist() for name, flags in found.items()} == {
        "actor.memory.ih_l0": [True, False, True],
        "critic.vf.0": [True, False, True],
    }


def test_chains_count_dense_layers_too() -> None:
    assert chains(["critic.qf0.0", "critic.qf0.2", "critic.qf1.1"]) == {
        "critic.qf0": ["critic.qf0.0", "critic.qf0.1", "critic.qf0.2"],
        "critic.qf1": ["critic.qf1.1"],
    }
    heads = ["net.heads.0", "net.heads.1"]
    assert chains(["net.trunk.0", *heads]) == {"net.trunk": ["net.trunk.0"], **{head: [head] for head in heads}}


def evolved() -> TopologyEvolver:
    """Two layers, of which the first was rewired twice since anybody looked."""
    rule = RewireRule(drop_fraction=0.5, update_interval=1, last_update=2)
    evolver = TopologyEvolver({"a": {"a.0": layer(4, 5, 10)}, "b": {"b.0": layer(2, 2, 2)}}, rule, seed=0)
    for update in (1, 2):
        evolver.begin_update(update)
        evolver.end_update("a")
    return evolver


def test_rows_describe_the_topology_after_the_latest_event_of_a_layer() -> None:
    evolver = evolved()
    relevant = {"a.0": np.array([True, True, False, False, False])}
    rows = event_rows(evolver, evolver.events, relevant=relevant, dormant={"a.0": 0.25})
    kinds = [(row["layer"], row["kind"], row["update"]) for row in rows]
    assert kinds == [("a.0", "initial", 0), ("b.0", "initial", 0), ("a.0", "rewire", 1), ("a.0", "rewire", 2)]
    assert [row["grown_total"] for row in rows] == [0, 0, 5, 10]
    now, last = evolver.layers["a.0"].topology, rows[-1]
    assert set(last) == set(TOPOLOGY_COLUMNS) - {"global_step"}
    assert (last["fan_in_min"], last["fan_in_max"]) == (fan_in(now).min(), fan_in(now).max())
    assert (last["fan_in_mean"], last["fan_out_mean"]) == (10 / 4, 10 / 5)
    assert (last["fan_out_min"], last["fan_out_max"]) == (fan_out(now).min(), fan_out(now).max())
    assert last["neurons_without_inputs"] == (fan_in(now) == 0).sum()
    assert last["neurons_without_outputs"] == (fan_out(now) == 0).sum()
    assert last["initial_overlap"] == np.isin(np.arange(10), now.flat).mean() < 1.0
    assert last["degree_relevant"] == fan_out(now)[:2].mean()
    assert last["degree_irrelevant"] == fan_out(now)[2:].mean()
    assert last["dormant"] == 0.25
    for earlier in (rows[0], rows[2]):  # what the layer looked like then, nobody knows any more
        assert "fan_in_min" not in earlier
        assert "initial_overlap" not in earlier
    assert rows[1]["initial_overlap"] == 1.0
    assert {"degree_relevant", "dormant"}.isdisjoint(rows[1])


def test_metrics_before_any_event() -> None:
    evolver = TopologyEvolver({"a": {"a.0": layer(4, 5, 10), "a.1": layer(2, 4, 2)}}, None, seed=0)
    assert topology_metrics(evolver) == {
        "topology/a.0/density": 0.5,
        "topology/a.0/grown_total": 0,
        "topology/a.0/dropped_total": 0,
        "topology/a.0/explored_fraction": 0.5,
        "topology/a.0/dead_neurons": 2,  # outputs 2 and 3, which read nothing; nobody reads them either
        "topology/a.0/initial_overlap": 1.0,
        "topology/a.1/density": 0.25,
        "topology/a.1/grown_total": 0,
        "topology/a.1/dropped_total": 0,
        "topology/a.1/explored_fraction": 0.25,
        "topology/a.1/dead_neurons": 1,
        "topology/a.1/initial_overlap": 1.0,
        "topology/density": 12 / 28,
        "topology/explored_fraction": 12 / 28,
    }


def test_metrics_have_what_only_others_can_tell() -> None:
    evolver = evolved()
    found = topology_metrics(evolver, relevant={"a.0": np.ones(5, bool)}, dormant={"a.0": 0.0, "a.1": 0.1})
    assert found["topology/a.0/dormant"] == 0.0  # is known, and is no gap
    assert found["topology/a.0/degree_relevant"] == 2.0
    assert not {name for name in found if name.startswith("topology/b.0/d") and "degree" in name}
    assert "topology/a.1/dormant" not in found  # not a sparse layer


def test_layers_numbered_side_by_side_do_not_read_one_another() -> None:
    evolver = TopologyEvolver({"a": {"heads.0": layer(3, 4, 12), "heads.1": layer(2, 7, 3)}}, None, seed=0)
    assert topology_metrics(evolver)["topology/heads.0/dead_neurons"] == 0


def test_heads_as_wide_as_what_they_read_do_not_read_one_another_either() -> None:
    heads = {"net.heads.0": layer(3, 3, 9), "net.heads.1": layer(3, 3, 1)}
    found = topology_metrics(TopologyEvolver({"net": heads}, None, seed=0))
    assert [found[f"topology/{name}/dead_neurons"] for name in heads] == [0, 2]


def test_totals_are_cumulative_and_a_shrink_lowers_the_density() -> None:
    rule = RewireRule(drop_fraction=0.2, update_interval=1, last_update=2, shrink_at_end=True)
    evolver = TopologyEvolver({"a": {"a.0": layer(10, 10, 50)}}, rule, seed=0)
    seen = []
    for update in (1, 2, 3, 4):
        evolver.begin_update(update)
        evolver.end_update("a")
        metrics = topology_metrics(evolver)
        seen.append((metrics["topology/a.0/grown_total"], metrics["topology/a.0/dropped_total"]))
    assert seen == [(10, 10), (20, 20), (20, 30), (20, 30)]
    assert metrics["topology/density"] == metrics["topology/a.0/density"] == 0.4
    assert 0.5 < metrics["topology/explored_fraction"] <= 0.7
    assert metrics["topology/explored_fraction"] == pytest.approx(metrics["topology/a.0/explored_fraction"])


def test_without_sparse_layers_there_is_nothing_to_say() -> None:
    assert topology_metrics(TopologyEvolver({"a": {}}, None, seed=0)) == {}
