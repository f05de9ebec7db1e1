"""Ensembles of one run: phases and large events by hand, members, and that a run goes on bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.fits import SPARSE, fit_learner
from support.trees import assert_equal_trees

from sparserl.continual.supervised.ensemble import Phases
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.objectives import Score
from sparserl.errors import ConfigError
from sparserl.topology.config import TopologyConfig

EACH_EPOCH = TopologyConfig(method="set", density=0.5, output_layer="sparse", drop_fraction=0.2)
OWN: dict[str, Any] = {"epochs": 8, "ensemble": 3, "ensemble_explore": 2, "learning_rate": 0.02}


def test_phases_are_those_of_the_published_run() -> None:
    phases = Phases(450, 150, 3)
    assert phases.ends == [150, 250, 350, 450]
    assert [phases.phase(epoch) for epoch in (0, 149, 150, 249, 250, 449)] == [None, None, 0, 0, 1, 2]
    changes = [epoch for epoch in range(1, 450) if phases.factor(epoch) != phases.factor(epoch - 1)]
    assert changes == [150, 200, 250, 300, 350, 400]
    assert [phases.factor(epoch) for epoch in (0, 150, 200, 250)] == [1.0, 0.1, 0.01, 0.1]


def test_phases_of_unequal_length_fill_the_run() -> None:
    phases = Phases(10, 3, 3)
    assert phases.ends == [3, 5, 8, 10]
    assert [phases.phase(epoch) for epoch in range(10)] == [None] * 3 + [0, 0, 1, 1, 1, 2, 2]


def test_the_learning_rate_follows_the_phases() -> None:
    learner = fit_learner(EACH_EPOCH, **OWN)
    rates = {step.epoch: learner.optimizer.param_groups[0]["lr"] for step in learner.train()}
    assert list(rates.values()) == pytest.approx([0.02, 0.02, 0.002, 0.0002, 0.002, 0.0002, 0.002, 0.0002])


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_an_event_between_two_phases_drops_four_fifths(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases end after epochs 2, 4, 6 and 8; the next event is at the first step of epochs 5 and 7."""
    topology = TopologyConfig(
        method=method, density=0.5, output_layer="sparse", drop_fraction=0.2, decay="constant", end_fraction=1.0
    )
    learner = fit_learner(topology, **OWN)
    clock = learner.clock
    assert clock is not None
    fractions: dict[int, float] = {}
    end_update = clock.end_update

    def recorded(group: str) -> Any:
        rule = clock.rule
        events = end_update(group)
        if events and rule is not None:
            fractions[clock.update] = rule.fraction(clock.update)
        return events

    monkeypatch.setattr(clock, "end_update", recorded)
    dropped = {}
    for _ in learner.train():
        dropped |= {event.update: event.dropped / event.nnz for event in clock.take_events() if event.kind == "rewire"}
    assert fractions == {1: 0.2, 5: 0.2, 9: 0.2, 13: 0.2, 17: 0.8, 21: 0.2, 25: 0.8, 29: 0.2}
    assert clock.rule == learner._bound_topology().rule()
    if method == "set":  # what RigL drops it may grow again
        assert {update for update, share in dropped.items() if share > 0.7} == {17, 25}


def accuracies(learner: FitLearner, values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    rest = iter(values)
    monkeypatch.setattr(learner, "evaluate", lambda samples: Score(next(rest), 1.0))


def test_members_are_the_best_of_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fit_learner(EACH_EPOCH, **OWN)
    accuracies(learner, [0.9, 0.9, 0.1, 0.2, 0.5, 0.5, 0.4, 0.3], monkeypatch)
    list(learner.train())
    assert learner.ensemble is not None
    assert learner.best is not None
    assert [member.epoch for member in learner.ensemble.members] == [4, 5, 7]
    assert learner.best.epoch == 1


def test_probabilities_are_those_of_the_members() -> None:
    learner = fit_learner(EACH_EPOCH, **OWN)
    list(learner.train())
    test = learner.only_task.test
    members = learner.member_probabilities(test)
    assert members.shape == (3, len(test), 3)
    torch.testing.assert_close(members.sum(dim=2), torch.ones(3, len(test)))
    assert learner.ensemble is not None
    for probabilities, member in zip(members.numpy(), learner.ensemble.members, strict=True):
        learner.network.load_state_dict(dict(member.network))
        accuracy = (probabilities.argmax(axis=1) == test.labels).mean()
        assert learner.evaluate(test).accuracy == pytest.approx(accuracy)
    assert not np.array_equal(members[0], members[1])


@pytest.mark.parametrize("stop", [13, 16, 24])  # after 16 and 24 a large event is still to come
def test_a_learner_with_members_goes_on_bit_for_bit(stop: int) -> None:
    whole, first, second = (fit_learner(EACH_EPOCH, **OWN) for _ in range(3))
    list(whole.train())
    steps = first.train()
    for _ in range(stop):
        next(steps)
    second.load_state_dict(first.state_dict())
    list(second.train())
    assert_equal_trees(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("topology", "options", "what"),
    [
        (SPARSE, {"ensemble_explore": 2}, "set learner.ensemble"),
        (SPARSE, {**OWN, "patience": 2}, "learner.patience 2 does not go with learner.ensemble 3"),
        (
            SPARSE,
            {**OWN, "learning_rate_factor": 0.1, "learning_rate_every": 2},
            "learning_rate_factor 0.1 does not go",
        ),
        (SPARSE, {**OWN, "epochs": 4}, "needs more than 4 epochs"),
        (SPARSE, {**OWN, "validation_share": 0.0}, "set a validation share"),
        (TopologyConfig(method="static", density=0.5), OWN, "use --method set"),
        (TopologyConfig(method="gmp", density=0.5), OWN, "use --method set"),
        (TopologyConfig(method="dsr", density=0.5), OWN, "use --method set"),
        (
            TopologyConfig(method="rigl", density=0.5, end_fraction=0.5),
            OWN,
            "after epoch 6, and the topology rests .* set topology.end_fraction 1",
        ),
    ],
)
def test_what_does_not_go_with_an_ensemble_is_refused(topology: TopologyConfig, options: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        fit_learner(topology, **options)
