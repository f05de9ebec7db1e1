"""Importance and reservation of SpaceNet, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.spacenet_runs import LAYERS, array, layers_of, make, recorded, reserved, steps_of, watched

from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.runner import run_sequence
from sparserl.recording import checkpoint

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
