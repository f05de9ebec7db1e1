"""AFAF: candidates and sizes worked by hand, what each task's connections join, and what later tasks leave alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.tasks import N_FEATURES, blobs

from sparserl.continual.shared.activity import summed_activity
from sparserl.continual.shared.owned import FREE
from sparserl.continual.strategies.afaf import AFAF, AFAFOptions, Candidates, candidates_of
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear

N_TASKS = 4
HIDDEN = (20, 30)
CONFIG = LearnerConfig(HIDDEN, optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=16)
# 10 and 9 neurons may be used, int(.3 * 10) = 3 and int(.5 * 9) = 4 are fixed; int(.4 * 10) = 4 candidates, 5 more.
OPTIONS = AFAFOptions(
    allocated=0.5, allocated_last=0.3, fixed=0.3, fixed_last=0.5, reused=0.4, added=0.5, reuse_from=1, reused_layers=1
)


def make(scenario: Scenario = "class", hidden: tuple[int, ...] = HIDDEN, **options: Any) -> SupervisedLearner:
    strategy = AFAF(dataclasses.replace(OPTIONS, **options))
    config = dataclasses.replace(CONFIG, hidden=hidden)
    return SupervisedLearner(blobs(scenario, n_tasks=N_TASKS, n_train=40), strategy, config, seed=0)


def ends(learner: SupervisedLearner, layer: int, task: int) -> list[tuple[int, int]]:
    """(output, input) of the present connections of a task."""
    own = learner.strategy.state_dict()["owner"][layer] == task
    flat = layers(learner)[layer].topology.flat[own]
    return [divmod(position, layers(learner)[layer].n_in) for position in flat.tolist()]


def weights(learner: SupervisedLearner, layer: int, task: int) -> dict[tuple[int, int], float]:
    own = learner.strategy.state_dict()["owner"][layer] == task
    return dict(
        zip(ends(learner, layer, task), layers(learner)[layer].values.detach().numpy()[own].tolist(), strict=True)
    )


def layers(learner: SupervisedLearner) -> list[SparseLinear]:
    return list(learner.network)  # type: ignore[arg-type]  # are sparse


def reserved(learner: SupervisedLearner, layer: int) -> set[int]:
    return set(np.flatnonzero(learner.strategy.state_dict()["reserved_by"][layer] != FREE).tolist())


def finish(learner: SupervisedLearner) -> None:
    list(learner.train())
    learner.finish_task()


# --- candidates and sizes -----------------------------------------------------------------------------

ACTIVITY = np.array([0.0, 0.9, 0.3, 0.0, 0.7, 0.1])


@pytest.mark.parametrize(
    ("kind", "count", "chosen"),
    [
        ("most", 2, [1, 4]),
        ("least", 2, [5, 2]),  # silent ones are none
        ("most", 5, [1, 4, 2, 5, 0]),
        ("least", 6, [5, 2, 4, 1]),
        ("most", 0, []),
    ],
)
def test_candidates_of_six_neurons(kind: Candidates, count: int, chosen: list[int]) -> None:
    assert candidates_of(ACTIVITY, count, kind, np.random.default_rng(0)).tolist() == chosen


def test_random_candidates_are_any_neurons() -> None:
    drawn = [candidates_of(ACTIVITY, 2, "random", np.random.default_rng(seed)).tolist() for seed in range(40)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert {neuron for pair in drawn for neuron in pair} == set(range(6))
    assert sorted(candidates_of(ACTIVITY, 9, "random", np.random.default_rng(0)).tolist()) == list(range(6))


def test_sizes_of_the_released_script() -> None:
    # Two layers of 2048 neurons and a classifier of which a task has two outputs, as behind its convolutions.
    options = AFAFOptions(reused_layers=1)
    assert options.allocated_of([2048, 2048]) == [409, 204]
    assert options.fixed_of([2048, 2048]) == [122, 204]
    first = int(0.25 * 784 * 409)
    assert options.connections_of([784, 2048, 2048, 10], 2, reusing=False) == [first, 20_859, 285]
    assert options.connections_of([784, 2048, 2048, 10], 2, reusing=True) == [0, 20_859, 285]


def test_activity_is_a_sum_over_the_samples_of_a_class() -> None:
    learner = make()
    finish(learner)
    x, y = learner.sequence.tasks[1].train.take(slice(None))
    whole, of_each = learner.activity()
    sums, counts = summed_activity(learner.network, [(x[:7], y[:7]), (x[7:], y[7:])])
    assert counts == {2: int((y == 2).sum()), 3: int((y == 3).sum())}
    assert of_each == counts
    hidden = np.maximum(layers(learner)[0](x[y == 3]).detach().numpy(), 0.0).sum(axis=0)
    np.testing.assert_allclose(whole[3][0], hidden, rtol=1e-5, atol=1e-6)
    for unit in (2, 3):
        assert [one.size for one in whole[unit]] == list(HIDDEN)
        for own, other in zip(whole[unit], sums[unit], strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


# --- a task that reuses neurons -----------------------------------------------------------------------


def begun(learner: SupervisedLearner, activity: Mapping[int, np.ndarray]) -> None:
    """Begins task 1 as if its classes had these activations in the first hidden layer."""
    counts = dict.fromkeys(activity, 20)
    sums = {unit: [20 * own, 20 * own] for unit, own in activity.items()}
    learner.activity = lambda: (sums, counts)  # type: ignore[method-assign]
    learner.strategy.begin_task(learner)


def test_a_class_reads_its_candidates_and_shared_free_neurons() -> None:
    learner = make(drop_fraction=0.0)
    finish(learner)
    closed, last_closed = reserved(learner, 0), reserved(learner, 1)
    assert (len(closed), len(last_closed)) == (3, 4)
    old = sorted(closed)[:2]
    free = sorted(set(range(20)) - closed)
    candidates = {2: {*old, *free[:2]}, 3: {*old, *free[2:4]}}
    activity = {unit: np.isin(np.arange(20), list(own)) + 0.0 for unit, own in candidates.items()}
    begun(learner, activity)

    assert ends(learner, 0, 1) == []  # reused as it is
    middle, output = ends(learner, 1, 1), ends(learner, 2, 1)
    # int(.25 * 10 * 9) = 22 and int(.7 * 9 * 2) = 12, half of each for either class.
    assert (len(middle), len(output)) == (22, 12)
    assert sorted(out for out, _ in output) == [2] * 6 + [3] * 6
    selected = [set(np.flatnonzero(one).tolist()) for one in learner.strategy.state_dict()["selected"]]
    assert len(selected[1]) == 9
    assert not selected[1] & last_closed
    assert {source for _, source in output} <= selected[1]
    assert {out for out, _ in middle} <= selected[1]
    sources = {source for _, source in middle}
    assert sources <= selected[0]
    added = selected[0] - candidates[2] - candidates[3]
    assert not added & closed
    assert len(selected[0] - candidates[2]) >= 5  # those drawn beside the candidates of the first class
    assert len(added) in range(3, 6)
    assert selected[0] >= candidates[2] | candidates[3]
    assert sources & set(old)  # what is reserved may be read


def test_connections_lead_to_no_reserved_neuron_and_reused_layers_get_none() -> None:
    learner = make(hidden=(20, 20, 30), reused_layers=1, reuse_from=2, density=0.2)
    for task in range(N_TASKS):
        closed = [reserved(learner, layer) for layer in range(3)]
        next(steps := learner.train())
        for events_left in (1, 0):
            for layer in range(3):
                assert not {out for out, _ in ends(learner, layer, task)} & closed[layer]
            assert bool(ends(learner, 0, task)) == (task < 2)
            assert not {source for _, source in ends(learner, 3, task)} & closed[2]
            if events_left:
                list(steps)
        learner.finish_task()


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_connections_of_earlier_tasks_never_change(scenario: Scenario) -> None:
    learner = make(scenario, fixed_last=0.2)
    kept: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    for task in range(N_TASKS):
        finish(learner)
        for (layer, earlier), old in kept.items():
            assert weights(learner, layer, earlier) == old
        kept |= {(layer, task): weights(learner, layer, task) for layer in range(2)}
    assert [len(kept[0, task]) for task in range(N_TASKS)] == [int(0.25 * N_FEATURES * 10), 0, 0, 0]
    assert [len(kept[1, task]) for task in range(N_TASKS)] == [22, 22, 22, 22]
    answering = list(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [int(0.25 * N_FEATURES * 10), 88, 12 * N_TASKS]


def test_neurons_matter_by_what_they_send_and_only_selected_ones_are_reserved() -> None:
    learner = make()
    steps = learner.train()
    for _ in range(3):  # an epoch, at whose end connections move
        next(steps)
    state = learner.strategy.state_dict()
    importance, selected = state["importance"], state["selected"]
    sums = np.zeros(20)
    for (_, source), value in zip(ends(learner, 1, 0), importance[1].tolist(), strict=True):
        sums[source] += value
    shared = learner.strategy._shared  # type: ignore[attr-defined]
    np.testing.assert_allclose(shared._summed(1), sums)
    list(steps)
    worth = [one.copy() for one in learner.strategy.state_dict()["cumulative"][1:]]
    learner.finish_task()
    for layer, count in enumerate((3, 4)):
        ranked = sorted(np.flatnonzero(selected[layer]), key=lambda neuron: -worth[layer][neuron])
        assert reserved(learner, layer) == set(ranked[:count])


def test_a_reserved_neuron_that_matters_again_takes_a_place() -> None:
    learner = make()
    finish(learner)
    list(learner.train())
    state = learner.strategy.state_dict()
    old = sorted(reserved(learner, 0))
    shared = learner.strategy._shared  # type: ignore[attr-defined]
    shared.selected[0][:] = False
    shared.selected[0][[old[0], *sorted(set(range(20)) - set(old))[:3]]] = True
    shared._cumulative[1][old[0]] = 1e9
    learner.finish_task()
    assert np.count_nonzero(state["reserved_by"][0] == 1) == 2  # of three places, the third is the old neuron's


def test_where_candidates_have_no_room_more_free_neurons_are_drawn() -> None:
    learner = make(density=0.5, reused=0.1, added=0.1)  # 22 of 2 x 9 positions, for each class
    finish(learner)
    next(learner.train())
    assert len(ends(learner, 1, 1)) == int(0.5 * 10 * 9) // 2 * 2
    assert np.count_nonzero(learner.strategy.state_dict()["selected"][1]) > 9  # where more neurons are left


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reused_layers": 2}, "afaf.reused-layers 2 must be below the number of hidden layers, 2: use 1"),
        (
            {"allocated_last": 0.5, "fixed_last": 1.0},
            "where 14 x 0 free neurons have room for 0, 73 of it taken by earlier tasks: use more hidden neurons, or "
            "lower afaf.fixed, afaf.fixed-last or afaf.density",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make(**options)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
