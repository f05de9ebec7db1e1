"""A budget that groups share: events of all at one update, worked by hand, whenever each of them steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.layers import sparse, weights
from support.tasks import blobs

from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule

ALL = RewireRule(
    "below_threshold",
    "random_other",
    0.2,
    update_interval=2,
    drop_threshold=0.15,
    budget="survivors",
    budget_scope="all",
)
# 2 of 6 are below the threshold, and 1 of 9.
A, B = [0.1, -0.1, 0.5, 0.6, 0.7, 0.8], [0.1, *[0.9] * 8]


def groups() -> dict[str, dict[str, SparseLinear]]:
    first, second = sparse(1, 20, list(range(6)), A), sparse(1, 20, list(range(9)), B)
    return {"a": {"a.0": first}, "b": {"b.0": second}, "none": {}}


def counts(evolver: TopologyEvolver) -> list[int]:
    return [layer.topology.nnz for layer in evolver.layers.values()]


def test_connections_move_between_groups() -> None:
    evolver = TopologyEvolver(groups(), ALL, seed=0)
    evolver.begin_update(1)
    assert evolver.end_update("b") == []  # waits for a
    events = evolver.end_update("a")
    # 3 lost, and 4 and 8 left: 1 and 2 grow.
    assert [(event.layer, event.nnz, event.dropped, event.grown) for event in events] == [
        ("a.0", 5, 2, 1),
        ("b.0", 10, 1, 2),
    ]
    assert evolver.end_update("none") == []
    assert {0.5, 0.6, 0.7, 0.8} < {round(value, 3) for value in weights(evolver.layers["a.0"]).values()}  # type: ignore[arg-type]
    assert evolver.state_dict()["thresholds"] == dict.fromkeys(("a", "b"), 0.15)  # 3 of 15 is a fifth


def test_the_event_is_where_all_step() -> None:
    """Group a at each update, b at every third: events are due at 1, 3, 5, ... and fall on 3, 6, 9."""
    evolver = TopologyEvolver(groups(), replace(ALL, drop_threshold=10.0), seed=0)
    found = []
    for update in range(1, 11):
        evolver.begin_update(update)
        assert evolver.end_update("a") == []
        if update % 3 == 0 and evolver.end_update("b"):
            found.append(update)
        assert sum(counts(evolver)) == 15
    assert found == [3, 6, 9]


def test_the_last_batches_of_each_count() -> None:
    rule = replace(ALL, drop="weight_magnitude", grow="gradient", gradient_batches=2, update_interval=10)
    evolver = TopologyEvolver(groups(), rule, seed=0)
    grown: dict[str, list[int]] = {}
    for update in range(1, 7):
        evolver.begin_update(update)
        for group, layer in (("a", evolver.layers["a.0"]), ("b", evolver.layers["b.0"])):
            if group == "b" and update % 3:
                continue
            if layer.capture:  # position 9 + update has the only gradient
                x = torch.zeros(20, 1)
                x[9 + update] = 1.0
                layer.activation_pairs.append((x, torch.ones(1, 1)))
            before = {name: one.topology.flat for name, one in evolver.layers.items()}
            if evolver.end_update(group):
                grown |= {
                    name: np.setdiff1d(one.topology.flat, before[name]).tolist() for name, one in evolver.layers.items()
                }
                assert update == 6
    # Of b its steps at 3 and 6. Of a the first is kept, and the last takes the place of those in between.
    assert set(grown["b.0"]) <= {12, 15}
    assert set(grown["a.0"]) <= {10, 15}
    assert grown["a.0"]
    assert grown["b.0"]


def test_a_stored_clock_goes_on_while_one_waits() -> None:
    whole = TopologyEvolver(groups(), ALL, seed=0)
    whole.begin_update(1)
    whole.end_update("a")
    state = whole.state_dict()
    resumed = TopologyEvolver(groups(), ALL, seed=0)
    resumed.load_state_dict(state)
    for evolver in (whole, resumed):
        evolver.begin_update(2)
        evolver.end_update("a")
        assert evolver.end_update("b")
    for one, other in zip(whole.layers.values(), resumed.layers.values(), strict=True):
        assert one.topology.flat.tolist() == other.topology.flat.tolist()


@pytest.mark.parametrize("fields", [{"budget": "own"}, {"replaces_step": True}, {"budget_scope": "al"}])
def test_scopes_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TopologyError, match=r"budget_scope all needs a budget|budget_scope group|did you mean 'all'"):
        replace(ALL, **fields)


def test_one_network_shares_with_no_other() -> None:
    topology = TopologyConfig(method="dsr", budget_scope="all")
    with pytest.raises(ConfigError, match="budget-scope is for agents: a classifier is one network"):
        SupervisedLearner(blobs(), Strategy(), LearnerConfig(hidden=(4,)), topology, seed=0)
