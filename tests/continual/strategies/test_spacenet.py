"""SpaceNet: a masked dense twin, the invariants of owned connections, cases worked by hand, and going on.

The twin, `tests/oracle/spacenet_twin.py`, shares draws with the code under test and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.dense_topology import mask_of, matrix_of
from oracle.spacenet_twin import Twin
from support.tasks import N_FEATURES, blobs, static
from support.trees import assert_equal_trees, differences
from torch.nn import functional

from sparserl.continual.shared.sub_networks import FREE
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.supervised.learner import Step, SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.tasks import Batch, Scenario
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.recording import checkpoint

N_TASKS, EPOCHS, BATCHES = 3, 3, 3
STEPS = EPOCHS * BATCHES
HIDDEN, SELECTED, RESERVED, CONNECTIONS = (24, 20), (10, 9), (4, 3), (25, 16, 5)
OPTIONS = SpaceNetOptions(connections=CONNECTIONS, selected=SELECTED, reserved=RESERVED)
CONFIG = LearnerConfig(HIDDEN, optimizer="sgd", learning_rate=0.1, epochs=EPOCHS, batch_size=16)  # 16, 16 and 8
SCENARIOS: tuple[Scenario, ...] = ("class", "task", "domain")


class Watched(SpaceNet):
    """SpaceNet that keeps what it was given: the network when a task began, and its batches."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.batches: list[Batch] = []
        self.begun: list[Snapshot] = []

    def begin_task(self, learner: Any) -> None:
        super().begin_task(learner)
        self.begun.append(snapshot(learner))

    def loss(self, learner: Any, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        return super().loss(learner, batch)


def make(
    scenario: Scenario = "class", *, seed: int = 0, config: Any = None, last_first: bool = False, **options: Any
) -> SupervisedLearner:
    sequence = blobs(scenario, n_tasks=N_TASKS, n_train=40)
    if last_first:
        tasks = (dataclasses.replace(task, index=at) for at, task in enumerate(reversed(sequence.tasks)))
        sequence = dataclasses.replace(sequence, tasks=tuple(tasks))
    strategy = Watched(dataclasses.replace(OPTIONS, **options))
    return SupervisedLearner(sequence, strategy, dataclasses.replace(CONFIG, **(config or {})), seed=seed)


def watched(learner: SupervisedLearner) -> Watched:
    assert isinstance(learner.strategy, Watched)
    return learner.strategy


def layers_of(network: torch.nn.Module) -> list[SparseLinear]:
    assert isinstance(network, SparseMLP)
    layers = list(network)
    assert all(isinstance(layer, SparseLinear) for layer in layers)
    return layers  # type: ignore[return-value]


def array(values: Any) -> np.ndarray:
    """A copy."""
    return values.detach().numpy().copy() if torch.is_tensor(values) else np.array(values)


# --- what a run is made of ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A learner as it was.

    Attributes:
        task: Task in training.
        weights: Position to weight, of each layer.
        owner: Position to task, of each layer.
        importance: Position to importance, of each layer.
        archived: Task to (position to weight) of classifier rows that are put away.
        biases: Of each layer.
        reserved_by: Of each hidden layer, the task of each neuron or FREE.
        selected: Neurons of each hidden layer that the task may use.
        cumulative: Importance of the neurons that feed each layer, added up over steps.
        states: Position to optimizer state, of each layer, by name.
        state_sizes: Sizes of the optimizer state that is not shared, by name, of each layer.
    """

    task: int
    weights: list[dict[int, float]]
    owner: list[dict[int, int]]
    importance: list[dict[int, float]]
    archived: dict[int, dict[int, float]]
    biases: list[np.ndarray]
    reserved_by: list[np.ndarray]
    selected: list[set[int]]
    cumulative: list[np.ndarray]
    states: list[dict[str, dict[int, float]]]
    state_sizes: list[dict[str, int]]

    def own(self, layer: int, task: int) -> dict[int, float]:
        """Position to weight of the task's connections."""
        if layer == len(self.weights) - 1 and task in self.archived:
            return self.archived[task]
        return {at: self.weights[layer][at] for at, owner in self.owner[layer].items() if owner == task}


def snapshot(learner: SupervisedLearner) -> Snapshot:
    state = learner.strategy.state_dict()
    layers = layers_of(learner.network)
    flat = [layer.topology.flat.tolist() for layer in layers]

    def by_position(layer: int, values: Any) -> dict[int, Any]:
        return dict(zip(flat[layer], array(values).tolist(), strict=True))

    states = [
        {name: one for name, one in learner.optimizer.state.get(layer.values, {}).items() if torch.is_tensor(one)}
        for layer in layers
    ]
    return Snapshot(
        task=learner.task,
        weights=[by_position(place, layer.values) for place, layer in enumerate(layers)],
        owner=[by_position(place, owner) for place, owner in enumerate(state["owner"])],
        importance=[by_position(place, one) for place, one in enumerate(state["importance"])],
        archived={
            task: dict(zip(array(at).tolist(), array(w).tolist(), strict=True)) for at, w, task in state["archive"]
        },
        biases=[array(layer.bias) for layer in layers],
        reserved_by=[array(tasks) for tasks in state["reserved_by"]],
        selected=[set(np.flatnonzero(array(chosen)).tolist()) for chosen in state["selected"]],
        cumulative=[array(sums) for sums in state["cumulative"]],
        states=[
            {name: by_position(place, one) for name, one in own.items() if one.shape == (len(flat[place]),)}
            for place, own in enumerate(states)
        ],
        state_sizes=[{name: one.numel() for name, one in own.items() if one.dim()} for own in states],
    )


Run = list[tuple[SequenceStarted | Step | TaskEnded, Snapshot]]
SETTINGS: dict[str, tuple[Scenario, dict[str, Any], dict[str, Any]]] = {
    "sgd": ("class", {}, {}),
    "momentum": ("class", {"momentum": 0.9, "weight_decay": 0.01}, {"neuron_importance": "final"}),
    "adam": ("task", {"optimizer": "adam", "learning_rate": 0.02}, {}),
    "adagrad": ("domain", {"optimizer": "adagrad"}, {"initial_value": "sparse_fan_in"}),
    "rmsprop": ("domain", {"optimizer": "rmsprop", "learning_rate": 0.02, "momentum": 0.9}, {}),
    "one optimizer": (
        "class",
        {"optimizer": "adam", "learning_rate": 0.02, "weight_decay": 0.01, "reset_optimizer": False},
        {"initial_value": "uniform"},
    ),
    "static": ("task", {"optimizer": "adam", "learning_rate": 0.02}, {"rewire": False}),
}
"""Scenario, and what else differs, of the runs below."""


@functools.cache
def recorded(setting: str) -> tuple[SupervisedLearner, Run]:
    scenario, config, options = SETTINGS[setting]
    learner = make(scenario, config=config, **options)
    return learner, [(event, snapshot(learner)) for event in run_sequence(learner)]


def steps_of(run: Run, task: int) -> list[Snapshot]:
    return [seen for event, seen in run if isinstance(event, Step) and event.task == task]


def ends_of(run: Run) -> list[Snapshot]:
    """The network when each task had ended."""
    return [seen for event, seen in run if isinstance(event, TaskEnded)]


every_setting = pytest.mark.parametrize("setting", SETTINGS)
LAYERS = range(3)


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
    learner = make(config={"hidden": (30, 20)}, connections=(10 * F, 16, 5), reserved=(0, 0))
    for _ in range(BATCHES):
        next(learner.train())
    begun, seen = watched(learner).begun[0], snapshot(learner)
    assert seen.weights[0].keys() == begun.weights[0].keys()
    anew = [position for position, weight in seen.weights[0].items() if weight == 0]
    assert len(anew) == 2 * F
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


# --- importance by hand -------------------------------------------------------------------------------


def two_steps(**config: Any) -> tuple[SupervisedLearner, list[list[np.ndarray]], list[list[np.ndarray]]]:
    """A learner after two steps, and of each layer the weights before, between and after them, and two gradients."""
    learner = make(config=config)
    gradients, weights = [], []
    for _ in range(2):
        next(learner.train())
        weights.append([array(layer.values) for layer in layers_of(learner.network)])
        gradients.append([array(layer.values.grad) for layer in layers_of(learner.network)])
    begun = [np.array(list(own.values()), np.float32) for own in watched(learner).begun[0].weights]
    return learner, list(zip(*[begun, *weights], strict=True)), list(zip(*gradients, strict=True))


def test_importance_after_two_plain_steps_is_the_learning_rate_times_squared_gradients() -> None:
    learner, _, gradients = two_steps()
    importance = learner.strategy.state_dict()["importance"]
    for own, (first, second) in zip(importance, gradients, strict=True):
        assert (own > 0).any()
        np.testing.assert_allclose(own, 0.1 * (first**2 + second**2), rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rmsprop"])
def test_importance_is_how_far_the_optimizer_went_times_the_gradient(optimizer: str) -> None:
    learner, weights, gradients = two_steps(optimizer=optimizer)
    for own, (start, middle, end), (first, second) in zip(
        learner.strategy.state_dict()["importance"], weights, gradients, strict=True
    ):
        expected = np.abs(middle - start) * np.abs(first) + np.abs(end - middle) * np.abs(second)
        assert (own > 0).any()
        np.testing.assert_allclose(own, expected, rtol=1e-6)


def test_cumulative_importance_of_a_neuron_counts_the_first_of_two_steps_twice() -> None:
    learner, _, gradients = two_steps()
    cumulative = learner.strategy.state_dict()["cumulative"]
    layers = layers_of(learner.network)
    for place, sums in enumerate(cumulative):  # of the neurons that feed each layer
        layer, (first, second) = layers[max(0, place - 1)], gradients[max(0, place - 1)]
        neurons = layer.topology.outputs if place else layer.topology.inputs
        expected = np.zeros(layer.n_out if place else layer.n_in)
        for neuron, one, two in zip(neurons, first, second, strict=True):
            expected[neuron] += 0.1 * (2 * float(one) ** 2 + float(two) ** 2)
        assert sums.any()
        np.testing.assert_allclose(sums, expected, rtol=2e-3, atol=1e-9)


def test_final_importance_keeps_no_sums() -> None:
    learner = make(neuron_importance="final")
    list(run_sequence(learner))
    assert not any(sums.any() for sums in learner.strategy.state_dict()["cumulative"])


def test_importance_starts_anew_with_each_task() -> None:
    learner, run = recorded("sgd")
    for task, begun in enumerate(watched(learner).begun):
        assert not any(value for layer in begun.importance for value in layer.values())
        assert not any(sums.any() for sums in begun.cumulative)
        last = steps_of(run, task)[-1]
        for layer in LAYERS:  # connections of earlier tasks gather none
            owners = {last.owner[layer][position] for position, value in last.importance[layer].items() if value}
            assert owners == {task}


# --- reservation by hand ------------------------------------------------------------------------------


def with_importance(learner: SupervisedLearner, tmp_path: Path, cumulative: dict[int, dict[int, float]]) -> None:
    """Gives neurons that feed a layer this importance, the others none."""
    checkpoint.save(tmp_path / "state", learner.strategy.state_dict())
    state = checkpoint.load(tmp_path / "state")
    for layer, values in cumulative.items():
        state["cumulative"][layer].zero_()
        for neuron, value in values.items():
            state["cumulative"][layer][neuron] = value
    learner.strategy.load_state_dict(state)


def reserved(learner: SupervisedLearner) -> list[dict[int, int]]:
    """Neuron to task, of each hidden layer."""
    found = [array(one) for one in learner.strategy.state_dict()["reserved_by"]]
    return [{int(neuron): int(one[neuron]) for neuron in np.flatnonzero(one != FREE)} for one in found]


def test_the_most_important_free_neurons_are_reserved(tmp_path: Path) -> None:
    learner = make()
    next(learner.train())
    # Four of the first hidden layer, the lower of equals first; three of the second, of which one has any importance.
    with_importance(learner, tmp_path, {1: {23: 5.0, 2: 1.0, 7: 9.0, 11: 1.0, 3: 1.0}, 2: {19: 0.5}})
    learner.finish_task()
    first = {7: 0, 23: 0, 2: 0, 3: 0}, {19: 0, 0: 0, 1: 0}
    assert tuple(reserved(learner)) == first
    list(learner.train())
    # What is reserved is out of question, however important.
    with_importance(learner, tmp_path, {1: {7: 99.0, 23: 98.0, 11: 3.0, 12: 4.0, 13: 5.0, 14: 6.0, 15: 2.0}, 2: {}})
    learner.finish_task()
    second = first[0] | {11: 1, 12: 1, 13: 1, 14: 1}, first[1] | {2: 1, 3: 1, 4: 1}
    assert tuple(reserved(learner)) == second
    list(learner.train())
    learner.finish_task()  # nobody comes after the last task
    assert tuple(reserved(learner)) == second


def test_final_importance_reserves_by_what_connections_have_in_the_end(tmp_path: Path) -> None:
    learner = make(neuron_importance="final")
    next(learner.train())
    checkpoint.save(tmp_path / "state", learner.strategy.state_dict())
    state = checkpoint.load(tmp_path / "state")
    layer = layers_of(learner.network)[0]
    fan_in = np.bincount(layer.topology.outputs, minlength=layer.n_out)
    state["importance"][0].fill_(1.0)  # so a neuron is as important as it has connections
    learner.strategy.load_state_dict(state)
    learner.finish_task()
    ranked = sorted(range(layer.n_out), key=lambda neuron: (-fan_in[neuron], neuron))
    assert reserved(learner)[0].keys() == set(ranked[:4])


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


# --- capacity -----------------------------------------------------------------------------------------


def refusal(
    scenario: Scenario = "class", hidden: tuple[int, ...] = HIDDEN, density: float = 1.0, **options: Any
) -> str:
    sequence = blobs(scenario, n_tasks=N_TASKS)
    strategy = SpaceNet(dataclasses.replace(OPTIONS, **options))
    with pytest.raises(ConfigError) as refused:
        SupervisedLearner(sequence, strategy, dataclasses.replace(CONFIG, hidden=hidden), static(density), seed=0)
    return str(refused.value)


ADVICE = (
    " of it taken by earlier tasks: use more hidden neurons, or lower spacenet.reserved or spacenet.connections "
    "(for agents spacenet.capacity and spacenet.input-capacity)"
)
F = N_FEATURES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"connections": (24 * F + 1, 16, 5)},
            f"task 1 of 3 needs {24 * F + 1} connections in layer 0, where {F} x 24 free neurons have room for "
            f"{24 * F}, 0",
        ),
        (
            {"connections": (25, 481, 5)},
            "task 1 of 3 needs 481 connections in layer 1, where 24 x 20 free neurons have room for 480, 0",
        ),
        (
            {"connections": (25, 16, 41)},
            "task 1 of 3 needs 41 connections in layer 2, where 20 x 2 free neurons have room for 40, 0",
        ),
        (  # 4 of 8 neurons are reserved by each of two tasks
            {"hidden": (8, 20), "connections": (10, 6, 5)},
            f"task 3 of 3 needs 10 connections in layer 0, where {F} x 0 free neurons have room for 0, 20",
        ),
        (  # 13 of 24 neurons: less than none is none
            {"reserved": (13, 3)},
            f"task 3 of 3 needs 25 connections in layer 0, where {F} x 0 free neurons have room for 0, 50",
        ),
        (  # 20 neurons, 12, 4: 64 - 2 * 22 < 22
            {"reserved": (4, 8), "connections": (25, 22, 5)},
            "task 3 of 3 needs 22 connections in layer 1, where 16 x 4 free neurons have room for 64, 44",
        ),
        (  # classifier rows of earlier tasks are away
            {"reserved": (4, 8), "connections": (25, 21, 9)},
            "task 3 of 3 needs 9 connections in layer 2, where 4 x 2 free neurons have room for 8, 0",
        ),
        (  # ... unless all domains share them: 8 - 2 * 3 < 3
            {"scenario": "domain", "reserved": (4, 8), "connections": (25, 21, 3)},
            "task 3 of 3 needs 3 connections in layer 2, where 4 x 2 free neurons have room for 8, 6",
        ),
    ],
)
def test_too_little_room_is_said_with_the_numbers(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message + ADVICE


@pytest.mark.parametrize(
    ("scenario", "connections"), [("class", (42, 21, 8)), ("task", (42, 21, 8)), ("domain", (42, 21, 2))]
)
def test_room_for_the_last_task_is_room_enough(scenario: Scenario, connections: tuple[int, ...]) -> None:
    # 16 * 8 = 128 >= 3 * 42, 16 * 4 = 64 >= 3 * 21, 4 * 2 = 8 >= 8 or 3 * 2.
    learner = make(scenario, reserved=(4, 8), connections=connections)
    list(run_sequence(learner))
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [3 * count for count in connections]


def test_a_task_selects_more_neurons_where_its_connections_have_no_room() -> None:
    # 3 x 3 neurons have no room for 12 connections, 4 x 3 have: of equals the first layer gives way. The classifier
    # needs all 6 x 2. At last every connection exists.
    learner = make(config={"hidden": (6, 6)}, connections=(2 * F, 12, 12), selected=(3, 3), reserved=(0, 0))
    list(run_sequence(learner))
    first, *_, last = watched(learner).begun
    assert [len(chosen) for chosen in first.selected] == [4, 6]
    assert [len(chosen) for chosen in last.selected] == [6, 6]
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.density for layer in answering] == [1.0, 1.0, 1.0]


def test_the_layer_with_more_neurons_left_gives_way() -> None:
    # 8 of 10 and 2 of 6 neurons have no room for 20 connections, and 8 and 3 have: 2 are left there and 4 here.
    learner = make(config={"hidden": (10, 6)}, connections=(F, 20, 2), selected=(8, 2), reserved=(0, 0))
    next(learner.train())
    assert [len(chosen) for chosen in watched(learner).begun[0].selected] == [8, 3]


def test_connections_outside_of_the_selected_neurons_take_no_room() -> None:
    # 4 neurons have 4 F = 32 positions for 3 F = 24 connections; what the first task has elsewhere does not count.
    learner = make(config={"hidden": (200, 20)}, connections=(3 * F, 10, 5), selected=(4, 9))
    list(run_sequence(learner))
    first, second, third = (begun.selected[0] for begun in watched(learner).begun)
    assert not first & second
    assert not (first | second) & third
    assert len(first) == len(second) == len(third) == 4


def test_neurons_that_are_selected_for_want_of_room_were_free() -> None:
    learner = make(config={"hidden": (16, 14)}, connections=(20, 24, 8), selected=(4, 4), reserved=(3, 3))
    list(run_sequence(learner))
    for begun in watched(learner).begun:
        assert sum(map(len, begun.selected)) > 8
        for chosen, reserved_by in zip(begun.selected, begun.reserved_by, strict=True):
            assert (reserved_by[sorted(chosen)] == FREE).all()


def capacity(scenario: Scenario, hidden: Sequence[int], taken: Sequence[int]) -> list[int]:
    """Most connections of a task in each layer, with `taken` neurons reserved after each, wherever they are."""
    most = []
    for layer in LAYERS:
        shares = not (layer == 2 and scenario != "domain")
        rooms = []
        for task in range(N_TASKS):
            sides = [F, *(width - task * gone for width, gone in zip(hidden, taken, strict=True)), 2]
            rooms.append(sides[layer] * sides[layer + 1] // (task + 1 if shares else 1))
        most.append(min(rooms))
    return most


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.data(), st.sampled_from(SCENARIOS))
def test_what_has_room_is_learned_to_the_end(data: st.DataObject, scenario: Scenario) -> None:
    taken = data.draw(st.tuples(*[st.integers(0, 3)] * 2), "reserved")
    hidden = data.draw(st.tuples(*(st.integers(2 * gone + 2, 2 * gone + 8) for gone in taken)), "hidden")
    selected = data.draw(st.tuples(*(st.integers(1, width) for width in hidden)), "selected")
    most = capacity(scenario, hidden, taken)
    connections = data.draw(st.tuples(*(st.integers(max(1, most_of // 2), most_of) for most_of in most)), "connections")
    options: dict[str, Any] = {"selected": selected, "reserved": taken, "connections": connections}
    learner = make(scenario, config={"hidden": hidden, "epochs": 2, "batch_size": 40}, **options)
    list(run_sequence(learner))
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [3 * count for count in connections]
    one_more = [count + (place == np.argmin(most)) for place, count in enumerate(most)]
    assert "free neurons have room for" in refusal(scenario, hidden, **options | {"connections": tuple(one_more)})


@pytest.mark.parametrize(("hidden", "layers"), [((24,), 1), ((24, 20, 20), 3)])
def test_another_number_of_layers_is_refused(hidden: tuple[int, ...], layers: int) -> None:
    said = refusal(hidden=hidden)
    assert said == f"spacenet.connections is for 2 hidden layer(s), learner.hidden has {layers}"


def test_a_density_is_refused() -> None:
    said = refusal(density=0.5)
    assert said == (
        "the method counts connections itself (spacenet.connections) and says where they go: leave --topology.method "
        "static and its options out, or use --method naive"
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_networks_of_other_depths(layers: int) -> None:
    options: dict[str, Any] = {
        "connections": (*(20, 12, 8)[:layers], 5),
        "selected": (9,) * layers,
        "reserved": (2,) * layers,
    }
    learner = make(config={"hidden": (16,) * layers}, **options)
    list(run_sequence(learner))
    counts = options["connections"]
    assert [layer.nnz for layer in layers_of(learner.strategy.network_for_task(learner, 0))] == [
        3 * one for one in counts
    ]


# --- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selected": (10,)}, "one a hidden layer, got 3, 1 and 2"),
        ({"reserved": (4, 3, 2)}, "one a hidden layer, got 3, 2 and 3"),
        ({"connections": (25, 16)}, "one a hidden layer, got 2, 2 and 2"),
        ({"connections": (25,), "selected": (), "reserved": ()}, "one a hidden layer, got 1, 0 and 0"),
        ({"connections": (25, 0, 5)}, "spacenet.connections must be at least 1, got (25, 0, 5)"),
        ({"selected": (10, 0)}, "spacenet.selected must be at least 1, got (10, 0)"),
        ({"reserved": (4, -1)}, "spacenet.reserved must not be negative, got (4, -1)"),
        ({"drop_fraction": 1.0}, "spacenet.drop-fraction must be in [0, 1), got 1.0"),
        ({"drop_fraction": -0.1}, "spacenet.drop-fraction must be in [0, 1), got -0.1"),
        ({"drop_fraction": math.nan}, "spacenet.drop-fraction must be in [0, 1), got nan"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        dataclasses.replace(OPTIONS, **changes).of_kind("classifier")
    assert str(refused.value).endswith(message)
    assert "\n" not in str(refused.value)


def test_the_ends_of_ranges_are_allowed() -> None:
    learner = make(drop_fraction=0.0, reserved=(0, 0))
    list(run_sequence(learner))
    assert reserved(learner) == [{}, {}]
    assert learner.strategy.state_dict()["evolver"]["dropped_total"] == {
        "network.0": 0,
        "network.1": 0,
        "network.2": 10,
    }


def test_the_defaults_are_those_of_the_released_script() -> None:
    own = SpaceNetOptions().of_kind("classifier")
    assert (own.connections, own.selected, own.reserved) == ((10_000, 1_640, 80), (80, 80), (40, 40))
    assert (own.drop_fraction, own.rewire, own.neuron_importance, own.initial_value) == (
        0.2,
        True,
        "cumulative",
        "xavier",
    )
    assert 5 * sum(own.connections or ()) == 58_600
