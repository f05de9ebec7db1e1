"""What is logged of a topology, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparserl.layers import SparseLinear
from sparserl.metrics.connectivity import topology_metrics
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import SparseTopology


def layer(n_out: int, n_in: int, nnz: int) -> SparseLinear:
    return SparseLinear(SparseTopology(n_out, n_in, np.arange(nnz)))


def test_before_any_event() -> None:
    evolver = TopologyEvolver({"a": {"a.0": layer(4, 5, 10), "a.1": layer(2, 5, 2)}}, None, seed=0)
    assert topology_metrics(evolver) == {
        "topology/a.0/density": 0.5,
        "topology/a.0/grown_total": 0,
        "topology/a.0/dropped_total": 0,
        "topology/a.0/explored_fraction": 0.5,
        "topology/a.1/density": 0.2,
        "topology/a.1/grown_total": 0,
        "topology/a.1/dropped_total": 0,
        "topology/a.1/explored_fraction": 0.2,
        "topology/density": 12 / 30,
        "topology/explored_fraction": 12 / 30,
    }


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
