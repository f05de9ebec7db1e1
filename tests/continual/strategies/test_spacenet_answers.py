"""SpaceNet: what a task begins with, what answers, and going on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.spacenet_runs import (
    BATCHES,
    CONNECTIONS,
    HIDDEN,
    LAYERS,
    N_TASKS,
    RESERVED,
    SCENARIOS,
    SETTINGS,
    STEPS,
    ends_of,
    layers_of,
    make,
    recorded,
    snapshot,
    steps_of,
    watched,
)
from support.tasks import N_FEATURES
from support.trees import assert_equal_trees, differences
from torch.nn import functional

from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Scenario
from sparserl.recording import checkpoint

# --- allocation and seeds -----------------------------------------------------------------------------


def test_without_rewiring_the_first_connections_are_the_same() -> None:
    moving, static = make(), make(rewire=False)
    for learner in (moving, static):
        next(learner.train())
    for own, other in zip(watched(moving).begun, watched(static).begun, strict=True):
        assert own.weights == other.weights
        assert own.selected == other.selected
    another = make(seed=1)
    next(another.train())
    assert watched(another).begun[0].weights[0].keys() != watched(moving).begun[0].weights[0].keys()
    assert watched(another).begun[0].selected != watched(moving).begun[0].selected


def test_tasks_and_layers_select_neurons_of_their_own() -> None:
    learner = make(config={"hidden": (20, 20)}, selected=(9, 9), reserved=(0, 0))
    list(run_sequence(learner))
    chosen = [frozenset(layer) for begun in watched(learner).begun for layer in begun.selected]
    assert len(set(chosen)) == N_TASKS * 2


@pytest.mark.parametrize(
    ("initial_value", "bounds"),
    [
        ("xavier", [math.sqrt(6 / (24 + N_FEATURES)), math.sqrt(6 / (20 + 24)), math.sqrt(6 / (6 + 20))]),
        ("uniform", [1 / math.sqrt(N_FEATURES), 1 / math.sqrt(24), 1 / math.sqrt(20)]),
    ],
)
def test_first_weights_are_drawn_within_the_bounds_of_the_dense_layer(initial_value: str, bounds: list[float]) -> None:
    learner = make(initial_value=initial_value)
    next(learner.train())
    for weights, bound in zip(watched(learner).begun[0].weights, bounds, strict=True):
        largest = max(map(abs, weights.values()))
        assert 0.5 * bound < largest <= bound
    assert all(not bias.any() for bias in watched(learner).begun[0].biases)


def test_a_task_selects_what_is_left_if_it_is_less() -> None:
    # 12 neurons less 2 * 4: the third task has 4 where it would use 10.
    learner = make(config={"hidden": (12, 20)}, connections=(8, 6, 5), rewire=False)
    list(run_sequence(learner))
    assert [len(begun.selected[0]) for begun in watched(learner).begun] == [10, 8, 4]


# --- answers ------------------------------------------------------------------------------------------

X = torch.linspace(-2.0, 2.0, 9 * N_FEATURES).sin().view(9, N_FEATURES)


def union(learner: SupervisedLearner, owned: list[list[dict[int, float]]]) -> torch.Tensor:
    """Logits of `X` by a dense network of some tasks' connections, owned[task][layer], and the present biases."""
    x = X.double()
    for layer, module in enumerate(layers_of(learner.network)):
        matrix = np.zeros((module.n_out, module.n_in))
        for task in owned:
            for position, weight in task[layer].items():
                matrix.ravel()[position] += weight
        assert module.bias is not None
        x = functional.linear(torch.relu(x) if layer else x, torch.tensor(matrix), module.bias.detach().double())
    return x


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_union_of_all_connections_answers_with_archived_rows_restored(scenario: Scenario, last_first: bool) -> None:
    learner = make(scenario, last_first=last_first)
    ended: list[list[dict[int, float]]] = []
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            ended.append([snapshot(learner).own(layer, event.task) for layer in LAYERS])
            owned = ended
        elif isinstance(event, Step):
            owned = [*ended, [snapshot(learner).own(layer, event.task) for layer in LAYERS]]
        else:
            continue
        with torch.no_grad():
            answers = [learner.strategy.network_for_task(learner, task)(X) for task in range(N_TASKS)]
        for answer in answers:
            torch.testing.assert_close(answer.double(), union(learner, owned), rtol=1e-4, atol=1e-5)
    assert len(ended) == N_TASKS


def test_an_answer_does_not_change_what_is_archived() -> None:
    learner = make()
    list(run_sequence(learner))
    state = snapshot(learner)
    with torch.no_grad():
        layers_of(learner.strategy.network_for_task(learner, 0))[-1].values.zero_()
    assert snapshot(learner).archived == state.archived
    assert snapshot(learner).weights == state.weights


def test_while_a_task_is_trained_rows_of_earlier_ones_are_away() -> None:
    learner, run = recorded("sgd")
    for task in range(N_TASKS):
        for seen in steps_of(run, task):
            assert {position // HIDDEN[1] for position in seen.weights[2]} <= set(learner.sequence.tasks[task].outputs)
            assert list(seen.archived) == list(range(task))


def test_domains_share_their_outputs_and_archive_nothing() -> None:
    _, run = recorded("adagrad")
    last = ends_of(run)[-1]
    assert last.archived == {}
    assert len(last.weights[2]) == N_TASKS * CONNECTIONS[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_learns(scenario: Scenario) -> None:
    options: dict[str, Any] = {"connections": (50, 60, 12), "selected": (20, 20), "reserved": (8, 8)}
    config = {"hidden": (40, 40), "optimizer": "adam", "learning_rate": 0.05, "epochs": 4}
    learner = make(scenario, config=config, **options)
    rows = [learner.accuracies() for event in run_sequence(learner) if isinstance(event, TaskEnded)]
    assert rows[0][0] > 0.85
    assert np.diagonal(rows).max() > 0.85


def test_who_uses_what() -> None:
    learner = make()
    none = [(0, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert [(len(use.owned), use.frozen, use.reserved) for use in learner.usage()] == none
    sizes = [(24 * N_FEATURES, 24), (20 * 24, 20), (6 * 20, 6)]
    for event in run_sequence(learner):
        ended = event.task + 1 if isinstance(event, TaskEnded) else learner.task
        closed = [*(count * min(ended, N_TASKS - 1) for count in RESERVED), 0]
        assert learner.usage() == [
            ConnectionUsage(f"network.{layer}", (count,) * ended, count * ended, *sizes[layer], closed[layer])
            for layer, count in enumerate(CONNECTIONS)
        ]
    # Two bytes a connection of the network; archived rows are not in it.
    assert learner.strategy.memory() == {"owners": 2 * (75 + 48 + 5)}


# --- going on -----------------------------------------------------------------------------------------

STOPS = {
    "first step": 1,
    "before a rewire": BATCHES - 1,
    "right after a rewire": BATCHES,
    "within an epoch": BATCHES + 1,
    "last epoch": STEPS - 1,
    "last step of a task": STEPS,
    "first step of the second task": STEPS + 1,
    "right after a rewire of the second task": STEPS + BATCHES,
    "last task": 2 * STEPS + 2 * BATCHES,
}


def continued(learner: SupervisedLearner, setting: str, tmp_path: Path) -> SupervisedLearner:
    scenario, config, options = SETTINGS[setting]
    checkpoint.save(tmp_path / "state", learner.state_dict())
    resumed = make(scenario, config=config, **options)
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert_equal_trees(resumed.state_dict(), learner.state_dict())
    list(run_sequence(resumed))
    return resumed


def resumes(stop: int, between: bool, setting: str, tmp_path: Path) -> None:
    whole, _ = recorded(setting)
    scenario, config, options = SETTINGS[setting]
    learner = make(scenario, config=config, **options)
    for event in run_sequence(learner):
        if learner.steps == stop and isinstance(event, TaskEnded) == between:
            break
    resumed = continued(learner, setting, tmp_path)
    assert_equal_trees(resumed.state_dict(), whole.state_dict())
    with torch.no_grad():
        assert torch.equal(
            resumed.strategy.network_for_task(resumed, 0)(X), whole.strategy.network_for_task(whole, 0)(X)
        )


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS.keys())
@pytest.mark.parametrize("setting", ["momentum", "one optimizer"])
def test_it_goes_on_after_any_step_as_if_never_interrupted(setting: str, stop: int, tmp_path: Path) -> None:
    resumes(stop, False, setting, tmp_path)


@pytest.mark.parametrize("setting", ["momentum", "one optimizer", "adagrad", "rmsprop"])
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_it_goes_on_between_tasks(setting: str, tasks: int, tmp_path: Path) -> None:
    resumes(tasks * STEPS, True, setting, tmp_path)


def test_another_seed_gives_another_run() -> None:
    runs = [make(seed=seed) for seed in (0, 0, 1)]
    for learner in runs:
        list(run_sequence(learner))
    assert not differences(runs[0].state_dict(), runs[1].state_dict())
    assert differences(runs[0].state_dict()["strategy"], runs[2].state_dict()["strategy"])
