"""SpaceNet: a masked dense twin, and the invariants of owned connections.

The twin, `tests/oracle/spacenet_twin.py`, shares draws with the code under test and nothing else.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import mask_of, matrix_of
from oracle.spacenet_twin import Twin
from support.spacenet_runs import (
    BATCHES,
    CONFIG,
    CONNECTIONS,
    EPOCHS,
    HIDDEN,
    LAYERS,
    N_TASKS,
    OPTIONS,
    RESERVED,
    SCENARIOS,
    SELECTED,
    SETTINGS,
    STEPS,
    array,
    ends_of,
    every_setting,
    layers_of,
    make,
    recorded,
    snapshot,
    steps_of,
    watched,
)
from support.tasks import N_FEATURES

from sparserl.continual.shared.sub_networks import FREE
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Scenario

# --- invariants ---------------------------------------------------------------------------------------


@every_setting
def test_connections_of_different_tasks_are_disjoint_and_all_exist_at_the_end(setting: str) -> None:
    learner, run = recorded(setting)
    for _, seen in run:
        for layer in LAYERS:
            listed = list(seen.weights[layer])
            if layer == 2:
                listed += [position for archived in seen.archived.values() for position in archived]
            assert len(listed) == len(set(listed))
    last = ends_of(run)[-1]
    assert [[len(last.own(layer, task)) for task in range(N_TASKS)] for layer in LAYERS] == [
        [count] * N_TASKS for count in CONNECTIONS
    ]
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [N_TASKS * count for count in CONNECTIONS]
    assert sum(layer.nnz for layer in answering) == N_TASKS * sum(CONNECTIONS)


@every_setting
def test_each_task_has_its_connections_through_drop_and_grow(setting: str) -> None:
    learner, run = recorded(setting)
    for task in range(N_TASKS):
        for seen in [watched(learner).begun[task], *steps_of(run, task)]:
            for layer, count in enumerate(CONNECTIONS):
                assert [len(seen.own(layer, one)) for one in range(N_TASKS)] == [count] * (task + 1) + [0] * (
                    N_TASKS - task - 1
                )


@every_setting
def test_connections_and_biases_of_earlier_tasks_never_change(setting: str) -> None:
    learner, run = recorded(setting)
    ends = ends_of(run)
    for task in range(1, N_TASKS):
        for seen in [watched(learner).begun[task], *steps_of(run, task), ends[task]]:
            for earlier in range(task):
                for layer in LAYERS:
                    assert seen.own(layer, earlier) == ends[earlier].own(layer, earlier)


@every_setting
def test_only_biases_of_open_neurons_move(setting: str) -> None:
    learner, run = recorded(setting)
    for task in range(N_TASKS):
        begun, steps = watched(learner).begun[task], steps_of(run, task)
        open_units = [reserved_by == FREE for reserved_by in begun.reserved_by]
        open_units.append(np.isin(np.arange(learner.sequence.n_outputs), learner.sequence.tasks[task].outputs))
        for layer, is_open in enumerate(open_units):
            for seen in steps:
                assert np.array_equal(seen.biases[layer][~is_open], begun.biases[layer][~is_open])
            moved = steps[-1].biases[layer] != begun.biases[layer]
            assert moved.any()
            if layer == 2:
                assert moved[is_open].all()


@every_setting
def test_connections_join_selected_neurons_that_nobody_has_reserved(setting: str) -> None:
    learner, run = recorded(setting)
    for task in range(N_TASKS):
        begun = watched(learner).begun[task]
        reserved = [set(np.flatnonzero(one != FREE).tolist()) for one in begun.reserved_by]
        assert [len(one) for one in reserved] == [task * count for count in RESERVED]
        assert [len(one) for one in begun.selected] == list(SELECTED)
        assert all(not chosen & taken for chosen, taken in zip(begun.selected, reserved, strict=True))
        outputs = [*begun.selected, set(learner.sequence.tasks[task].outputs)]
        inputs = [set(range(N_FEATURES)), *begun.selected]
        for seen in [begun, *steps_of(run, task)]:
            assert seen.selected == begun.selected
            for layer, width in enumerate((N_FEATURES, *HIDDEN)):
                ends = [divmod(position, width) for position in seen.own(layer, task)]
                assert {out for out, _ in ends} <= outputs[layer]
                assert {source for _, source in ends} <= inputs[layer]


@every_setting
def test_optimizer_state_is_one_value_a_connection_and_zero_where_frozen(setting: str) -> None:
    _, run = recorded(setting)
    moments = {"sgd": 0, "momentum": 1, "adagrad": 1}.get(setting, 2)
    moving = [0, 0, 0]
    for task in range(N_TASKS):
        for seen in steps_of(run, task):
            for layer in LAYERS:
                states, nnz = seen.states[layer], len(seen.weights[layer])
                assert len(states) == moments
                assert all(size == nnz for size in seen.state_sizes[layer].values())
                for state in states.values():
                    frozen = [state[at] for at, owner in seen.owner[layer].items() if owner < task]
                    assert not any(frozen)
                    moving[layer] += sum(map(bool, state.values()))
    assert all(moving) or moments == 0


@every_setting
def test_connections_move_after_each_epoch_but_the_last_and_only_in_hidden_layers(setting: str) -> None:
    learner, run = recorded(setting)
    rewired = setting != "static"
    for task in range(N_TASKS):
        begun, steps = watched(learner).begun[task], steps_of(run, task)
        for place, (old, new) in enumerate(zip([begun, *steps[:-1]], steps, strict=True), 1):
            is_event = rewired and place in (BATCHES, 2 * BATCHES)
            for layer in LAYERS:
                grown = new.weights[layer].keys() - old.weights[layer].keys()
                dropped = old.weights[layer].keys() - new.weights[layer].keys()
                # int(.2 * 25) = 5 and int(.2 * 16) = 3 go.
                assert len(grown) == len(dropped) == (((5, 3, 0) if is_event else (0, 0, 0))[layer])
                for position in grown:
                    assert new.weights[layer][position] == 0
                    assert new.importance[layer][position] == 0
                    assert new.owner[layer][position] == task
                    assert all(state[position] == 0 for state in new.states[layer].values())


def test_where_nothing_else_is_free_dropped_connections_come_back_anew() -> None:
    # All 10 F positions of the first layer are taken, so int(.2 * 10 F) of them are dropped and grown again.
    learner = make(config={"hidden": (30, 20)}, connections=(10 * N_FEATURES, 16, 5), reserved=(0, 0))
    for _ in range(BATCHES):
        next(learner.train())
    begun, seen = watched(learner).begun[0], snapshot(learner)
    assert seen.weights[0].keys() == begun.weights[0].keys()
    anew = [position for position, weight in seen.weights[0].items() if weight == 0]
    assert len(anew) == 2 * N_FEATURES
    assert not any(seen.importance[0][position] for position in anew)


@every_setting
def test_topology_events_are_on_the_clock_of_steps(setting: str) -> None:
    learner, _ = recorded(setting)
    archives = SETTINGS[setting][0] != "domain"
    expected = [(0, f"network.{layer}", "initial", 0, 0) for layer in LAYERS]
    for task in range(N_TASKS):
        first = task * STEPS
        if task and archives:
            expected.append((first, "network.2", "archive", 0, 5))
        expected += [(first, f"network.{layer}", "allocate", count, 0) for layer, count in enumerate(CONNECTIONS)]
        for epoch in range(0 if setting == "static" else EPOCHS - 1):
            at = first + (epoch + 1) * BATCHES
            expected += [(at, "network.0", "rewire", 5, 5), (at, "network.1", "rewire", 3, 3)]
    assert learner.evolver is not None
    events = learner.evolver.events
    found = [(event.update, event.layer, event.kind, event.grown, event.dropped) for event in events]
    assert found == expected


@every_setting
def test_neurons_are_reserved_after_each_task_but_the_last(setting: str) -> None:
    _, run = recorded(setting)
    before = [np.full(width, FREE) for width in HIDDEN]
    for task, seen in enumerate(ends_of(run)):
        for old, new, count in zip(before, seen.reserved_by, RESERVED, strict=True):
            taken = np.flatnonzero(new != old)
            assert taken.size == (count if task < N_TASKS - 1 else 0)
            assert (new[taken] == task).all()
            assert (old[taken] == FREE).all()
        before = seen.reserved_by


def test_nothing_is_as_large_as_a_dense_layer() -> None:
    # 300 x 200 neurons and a few connections.
    hidden = (300, 200)
    learner = make(config={"hidden": hidden, "optimizer": "adam"})
    largest = max(N_TASKS * max(CONNECTIONS), 2 * max(hidden))
    for _ in run_sequence(learner):
        sizes = list(tensor_sizes(learner.state_dict()))
        assert max(sizes) <= largest
        assert [layer.values.numel() for layer in layers_of(learner.network)] == [
            layer.nnz for layer in layers_of(learner.network)
        ]
    answering = learner.strategy.network_for_task(learner, 0)
    assert max(one.numel() for one in answering.state_dict().values()) <= largest
    assert {one.numel() for one in answering.parameters()} == {75, 300, 48, 200, 15, 6}


def tensor_sizes(tree: Any) -> list[int]:
    if isinstance(tree, torch.Tensor | np.ndarray):
        return [int(np.prod(tree.shape))]
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else []
    return [size for branch in branches for size in tensor_sizes(branch)]


# --- the masked dense twin ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("neuron_importance", ["cumulative", "final"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_is_the_masked_dense_twin(scenario: Scenario, neuron_importance: str, seed: int) -> None:
    learner = make(scenario, seed=seed, neuron_importance=neuron_importance)
    sequence, own = learner.sequence, watched(learner)
    shapes = [(layer.n_out, layer.n_in) for layer in layers_of(learner.network)]
    units = [set(task.outputs) for task in sequence.tasks]
    every = set(range(sequence.n_outputs))
    closed = [sorted(every - one) if scenario == "task" else [] for one in units]
    twin = Twin(neuron_importance == "cumulative", closed if scenario != "domain" else [])
    for event in run_sequence(learner):
        if isinstance(event, Step):
            if event.epoch == event.batch == 0:
                begun = own.begun[-1]
                drawn = [begun.own(layer, event.task) for layer in LAYERS]
                twin.begin(drawn, begun.selected, shapes, sorted(units[event.task]))
            twin.step(own.batches[-1], CONFIG.learning_rate)
            if event.batch == BATCHES - 1 and event.epoch < EPOCHS - 1:
                twin.rewire(OPTIONS.drop_fraction)
            compare(learner, twin)
        elif isinstance(event, TaskEnded) and event.task < N_TASKS - 1:
            twin.reserve(RESERVED)
            for reserved_by, is_open in zip(snapshot(learner).reserved_by, twin.open, strict=False):
                assert np.array_equal(reserved_by == FREE, is_open)


def compare(learner: SupervisedLearner, twin: Twin) -> None:
    """Fails unless a learner and its twin have the same connections, and nearly the same numbers."""
    state = learner.strategy.state_dict()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    for place, layer in enumerate(layers_of(learner.network)):
        task = state["owner"][place] == learner.task
        values = array(layer.values)
        assert np.array_equal(mask_of(layer.topology) & (matrix_of(layer.topology, task) > 0), twin.current[place])
        close(matrix_of(layer.topology, values), twin.weights[place])
        close(array(layer.bias), twin.biases[place])
        importance = matrix_of(layer.topology, array(state["importance"][place]))
        np.testing.assert_allclose(importance, twin.importance[place], rtol=1e-3, atol=1e-10)
        if twin.cumulative:
            np.testing.assert_allclose(state["cumulative"][place], twin.summed[place], rtol=1e-3, atol=1e-10)
