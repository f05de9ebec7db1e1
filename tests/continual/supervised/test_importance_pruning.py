"""Importance pruning: strengths and quantiles by hand, when it comes, and that no layer loses all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.fits import SPARSE, fit_learner
from support.trees import assert_equal_trees

from sparserl.errors import ConfigError
from sparserl.topology.config import TopologyConfig
from sparserl.topology.neuron_strength import incoming_strength, weak_outputs
from sparserl.topology.structure import LayerView, SparseTopology

STRENGTHS = np.arange(1, 11) / 10
ALL = np.ones(10, bool)


def test_incoming_strength_is_as_worked_by_hand() -> None:
    """Output 0: .5 and -.25; output 1: none; output 2: -1."""
    topology = SparseTopology(3, 4, np.array([0, 3, 9]))
    view = LayerView(topology, np.array([0.5, -0.25, -1.0], np.float32))
    assert incoming_strength(view).tolist() == [0.75, 0.0, 1.0]


@pytest.mark.parametrize(("share", "gone"), [(0.2, [0, 1]), (0.1, [0]), (0.0, [0])])
def test_weak_outputs_are_those_of_the_published_quantiles(share: float, gone: list[int]) -> None:
    assert np.flatnonzero(weak_outputs(STRENGTHS, ALL, share)).tolist() == gone


def test_outputs_without_connections_are_no_part_of_the_quantile() -> None:
    strengths = np.concatenate([np.zeros(10), STRENGTHS])
    assert np.flatnonzero(weak_outputs(strengths, strengths > 0, 0.2)).tolist() == [10, 11]


@pytest.mark.parametrize("strengths", [np.full(4, 0.5), np.array([0.0, 0.0, 1.0]), np.zeros(3)])
def test_outputs_that_are_all_alike_stay(strengths: np.ndarray) -> None:
    assert not weak_outputs(strengths, strengths > 0, 0.5).any()


def counts(learner: Any) -> list[int]:
    return [layer.nnz for layer in learner.evolver.layers.values()]


def test_it_comes_after_its_epochs_and_connections_are_not_refilled() -> None:
    learner = fit_learner(epochs=9, importance_share=0.25, importance_every=2, importance_after=4)
    before, of_epochs, events = counts(learner), [], []
    for step in learner.train():
        events += [
            (step.epoch + 1, event.layer) for event in learner.evolver.take_events() if event.kind == "importance"
        ]  # type: ignore[union-attr]
        if step.batch + 1 == step.batches:
            of_epochs.append(counts(learner))
    assert [epoch for epoch, layer in events] == [6, 6, 8, 8]
    assert {layer for _, layer in events} == {"network.0", "network.1"}
    assert of_epochs[4] == before
    assert of_epochs[5][0] < before[0]
    assert of_epochs[5][1] < before[1]
    assert of_epochs[6] == of_epochs[5]
    assert of_epochs[8][2] == before[2]
    assert learner.evaluate(learner.only_task.test).accuracy > 0.3


def test_no_layer_is_ever_emptied() -> None:
    learner = fit_learner(epochs=40, importance_share=0.9, importance_every=1, importance_after=0)
    list(learner.train())
    assert min(counts(learner)) > 0


@pytest.mark.parametrize("method", ["set", "rigl", "snfs", "mest"])
def test_it_goes_with_methods_that_move_connections_and_resumes(method: str) -> None:
    topology = TopologyConfig(method=method, density=0.5, output_layer="sparse", density_schedule="constant")
    own: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "epochs": 5}
    own |= {"importance_share": 0.3, "importance_every": 2, "importance_after": 0}
    whole, first, second = (fit_learner(topology, **own) for _ in range(3))
    list(whole.train())
    steps = first.train()
    for _ in range(9):
        next(steps)
    second.load_state_dict(first.state_dict())
    list(second.train())
    assert_equal_trees(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("options", "topology", "what"),
    [
        ({"importance_every": 3}, SPARSE, "set learner.importance_share"),
        ({"importance_share": 0.2}, SPARSE, "in epoch 210 of 3: lower learner.importance_after 200"),
        (
            {"importance_share": 0.2, "importance_every": 1, "importance_after": 0},
            TopologyConfig(method="static", density=0.5),
            "use --topology.method set, .* not static",
        ),
        (
            {"importance_share": 0.2, "importance_every": 1, "importance_after": 0},
            TopologyConfig(method="gmp", density=0.5),
            "not gmp",
        ),
    ],
)
def test_without_effect_it_is_refused(options: Any, topology: TopologyConfig, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        fit_learner(topology, **options)
