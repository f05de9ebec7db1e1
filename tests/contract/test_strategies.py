"""What every continual method of the table does, whatever it fights forgetting with."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from support.tasks import blobs
from support.trees import assert_equal_trees

from sparserl.continual.supervised.learner import LearnerConfig, Step, SupervisedLearner
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.strategies import STRATEGIES, MethodOptions, make_strategy
from sparserl.continual.supervised.strategies.penalty import (
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWCOptions,
    SIOptions,
)
from sparserl.continual.supervised.strategies.replay import AGEMOptions, ReplayOptions
from sparserl.continual.supervised.strategies.spacenet import SpaceNetOptions
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

Event = SequenceStarted | Step | TaskEnded
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
OPTIONS = MethodOptions(
    l2=L2Options(strength=0.1),
    ewc=EWCOptions(strength=1.0, fisher_samples=4),
    online_ewc=OnlineEWCOptions(strength=1.0, gamma=0.5, fisher_samples=4),
    si=SIOptions(strength=0.1),
    mas=MASOptions(strength=0.01, samples=4),
    replay=ReplayOptions(samples=20),
    agem=AGEMOptions(samples_per_task=9, batch_size=12),
    spacenet=SpaceNetOptions(connections=(40, 30, 6), selected=(12, 10), reserved=(5, 4)),
)
LEARNER = LearnerConfig(hidden=(32, 24), optimizer="sgd", learning_rate=0.2, momentum=0.5, epochs=4, batch_size=16)
BATCHES = math.ceil(40 / 16)
DENSITY = {name: 1.0 if name in ("spacenet", "static_sparse") else 0.6 for name in STRATEGIES}
"""The others learn on a sparse hidden layer, so that what they keep for each connection is tried too."""
REFUSED = {("packnet", "class"), ("packnet", "domain")}
CASES = [(name, scenario) for name in STRATEGIES for scenario in SCENARIOS if (name, scenario) not in REFUSED]


def make(name: str, scenario: Scenario, *, seed: int = 0, **changes: Any) -> SupervisedLearner:
    sequence = blobs(scenario)
    config = LearnerConfig(**{**vars(LEARNER), "density": DENSITY[name], **changes})
    return SupervisedLearner(sequence, make_strategy(name, sequence, OPTIONS, seed=seed), config, seed=seed)


def rows(learner: SupervisedLearner) -> np.ndarray:
    """The accuracy matrix of the rest of a run."""
    return np.array([learner.accuracies() for event in run_sequence(learner) if isinstance(event, TaskEnded)])


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_it_learns_three_tasks_and_repeats_with_the_same_seed(name: str, scenario: Scenario) -> None:
    learners, matrices = [], []
    for unrelated in (1, 2):
        torch.manual_seed(unrelated)
        np.random.seed(unrelated)
        learners.append(make(name, scenario))
        matrices.append(rows(learners[-1]))
    assert_equal_trees(learners[0].state_dict(), learners[1].state_dict())
    assert_equal_trees(*matrices)
    (matrix, _), learner = matrices, learners[0]
    assert matrix.shape == (3, 3)
    assert matrix[0, 0] > 0.85
    assert ((matrix >= 0) & (matrix <= 1))[np.tril_indices(3)].all()
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all() == (scenario == "class")  # otherwise every output can be asked
    assert all(torch.isfinite(parameter).all() for parameter in learner.network.parameters())
    assert all(purpose and type(size) is int and size >= 0 for purpose, size in learner.strategy.memory().items())


@pytest.mark.parametrize("name", STRATEGIES)
def test_another_seed_gives_another_network(name: str) -> None:
    one, other = (make(name, "task", seed=seed) for seed in (0, 1))
    for learner in (one, other):
        list(learner.train())
    assert not torch.equal(one.network[0].bias, other.network[0].bias)


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_interrupted_it_goes_on_as_if_never_interrupted(name: str, scenario: Scenario, tmp_path: Path) -> None:
    adam = {"optimizer": "adam", "momentum": 0.0, "learning_rate": 0.02, "reset_optimizer": False, "epochs": 3}
    events, states = [], []
    whole = make(name, scenario, **adam)
    for event in run_sequence(whole):
        events.append(event)
        states.append(copy.deepcopy(whole.state_dict()))
    for label, stop in stops(events).items():
        checkpoint.save(tmp_path / label, states[stop])
        resumed = make(name, scenario, **adam)
        resumed.load_state_dict(checkpoint.load(tmp_path / label))
        assert_equal_trees(resumed.state_dict(), states[stop])
        rest = [vars(event) for event in run_sequence(resumed)]
        assert_equal_trees(rest, [vars(event) for event in events[stop + 1 :]])
        assert_equal_trees(resumed.state_dict(), states[-1])


def stops(events: list[Event]) -> dict[str, int]:
    """Places in a run at which to interrupt it."""
    ended = [place for place, event in enumerate(events) if isinstance(event, TaskEnded)]
    return {
        "between tasks": ended[0],
        "within an epoch": ended[0] + BATCHES + 1,
        "last step of a task": ended[1] - 1,
    }


@pytest.mark.parametrize(("name", "scenario"), sorted(REFUSED))
def test_a_scenario_that_a_method_cannot_learn_is_refused(name: str, scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match=f"{name} .*{scenario}") as refusal:
        make(name, scenario)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_its_options_are_a_group_of_the_config(name: str) -> None:
    spec = STRATEGIES[name]
    assert spec.summary
    assert spec.options is None or hasattr(MethodOptions(), spec.options)


def test_naive_forgets_and_joint_does_not() -> None:
    naive, joint = (rows(make(name, "class")) for name in ("naive", "joint"))
    assert np.diagonal(naive).min() > 0.85
    assert naive[-1, :2].max() < 0.1
    assert joint[np.tril_indices(3)].min() > 0.85
