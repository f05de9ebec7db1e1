"""Small runs of SpaceNet on a classifier, and what they were made of after each step."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.tasks import blobs

from sparserl.continual.shared.sub_networks import FREE
from sparserl.continual.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Batch, Scenario
from sparserl.layers import SparseLinear, SparseMLP

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


def reserved(learner: SupervisedLearner) -> list[dict[int, int]]:
    """Neuron to task, of each hidden layer."""
    found = [array(one) for one in learner.strategy.state_dict()["reserved_by"]]
    return [{int(neuron): int(one[neuron]) for neuron in np.flatnonzero(one != FREE)} for one in found]
