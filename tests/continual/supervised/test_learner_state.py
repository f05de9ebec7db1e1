"""What a classifier is built of, what stays frozen, and what continues from its state."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.classifiers import CONFIG, learn, learner_of
from support.tasks import N_FEATURES, blobs
from support.trees import assert_equal_trees, differences
from torch import nn

from sparserl.continual.learner import Group
from sparserl.continual.strategies import MethodOptions, make_strategy, methods_of
from sparserl.continual.strategies.nispa import NISPAOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import OPTIMIZERS, LearnerConfig
from sparserl.continual.supervised.runner import run_sequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear
from sparserl.recording import checkpoint


class FreezesRows(Strategy):
    """Freezes the first three hidden neurons; whatever else it does to gradients, they stay."""

    def begin_task(self, learner: Any) -> None:
        learner.frozen.freeze(learner.network.get_parameter("0.weight"), torch.arange(3 * N_FEATURES))
        learner.frozen.freeze(learner.network.get_parameter("0.bias"), torch.arange(3))

    def before_step(self, learner: Any, group: Group) -> None:
        for parameter in learner.network.parameters():
            assert parameter.grad is not None
            parameter.grad += 1.0

    def after_step(self, learner: Any, group: Group) -> None:
        bias = learner.network.get_parameter("0.bias")
        assert bias.grad is not None
        self.seen = (bias.detach().clone(), bias.grad.clone())


# --- network ------------------------------------------------------------------------------------------


def test_hidden_layers_are_sparse_and_the_classifier_is_not() -> None:
    layers = list(learner_of(hidden=(12, 20), density=0.25).network)
    assert [type(layer) for layer in layers] == [SparseLinear, SparseLinear, nn.Linear]
    assert [layer.nnz for layer in layers[:2] if isinstance(layer, SparseLinear)] == [3 * N_FEATURES, 60]
    assert all(isinstance(layer, nn.Linear) for layer in learner_of(hidden=(10, 20)).network)


def test_a_new_network_is_the_one_before_the_first_task() -> None:
    learner, twin = learner_of(density=0.5), learner_of(density=0.5)
    learn(learner, 1)
    assert_equal_trees(learner.new_network().state_dict(), twin.network.state_dict())
    assert differences(learner.network.state_dict(), twin.network.state_dict())


@pytest.mark.parametrize(
    ("optimizer", "kind", "momentum"),
    [
        ("sgd", torch.optim.SGD, 0.7),
        ("adam", torch.optim.Adam, None),
        ("rmsprop", torch.optim.RMSprop, 0.7),
        ("adagrad", torch.optim.Adagrad, None),
    ],
)
def test_an_optimizer_gets_its_numbers(
    optimizer: Any, kind: type[torch.optim.Optimizer], momentum: float | None
) -> None:
    learner = learner_of(optimizer=optimizer, learning_rate=0.3, momentum=momentum or 0.0, weight_decay=0.2)
    (group,) = learner.optimizer.param_groups
    assert isinstance(learner.optimizer, kind)
    assert (group["lr"], group["weight_decay"], group.get("momentum")) == (0.3, 0.2, momentum)
    assert len(group["params"]) == 4


# --- freezing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_method_freezes_what_it_likes(optimizer: Any) -> None:
    momentum = 0.9 if optimizer in ("sgd", "rmsprop") else 0.0
    learner = learner_of(FreezesRows, optimizer=optimizer, momentum=momentum, weight_decay=0.1)
    before = copy.deepcopy(learner.network.state_dict())
    for step in learner.train():
        assert isinstance(learner.strategy, FreezesRows)
        bias, gradient = learner.strategy.seen  # what a method sees after the step
        assert torch.equal(bias[:3], before["0.bias"][:3])
        assert (gradient[:3] == 0).all()
        assert (bias[3:] != before["0.bias"][3:]).all()
        assert (gradient[3:] != 0).all()
        assert torch.equal(learner.network.state_dict()["0.weight"][:3], before["0.weight"][:3]), step
    assert (learner.network.state_dict()["0.weight"][3:] != before["0.weight"][3:]).all()
    for name in ("0.bias", "0.weight"):
        for state in learner.optimizer.state[learner.network.get_parameter(name)].values():
            if torch.is_tensor(state) and state.dim():
                assert (state[:3] == 0).all()
                assert (state[3:] != 0).all()


# --- seed and state -----------------------------------------------------------------------------------


def test_a_seed_repeats_a_run_and_another_one_does_not() -> None:
    learners = [learner_of(seed=seed) for seed in (5, 5, 6)]
    losses = [[step.loss for step in learn(learner, 3)] for learner in learners]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    first, _, other = (learner.new_network().get_parameter("0.weight") for learner in learners)
    assert not torch.equal(first, other)
    assert_equal_trees(learners[0].state_dict(), learners[1].state_dict())
    assert differences(learners[0].state_dict(), learners[2].state_dict())


OPTIMIZER_SETTINGS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
    {"optimizer": "adam", "unseen_outputs": "closed"},
    {"optimizer": "rmsprop", "momentum": 0.5},
    {"optimizer": "adagrad", "reset_optimizer": False},
    {"optimizer": "adam", "reset_optimizer": False, "density": 0.5},
]


@pytest.mark.parametrize("setting", OPTIMIZER_SETTINGS)
@pytest.mark.parametrize("stop", [1, 3, 7])  # within an epoch, after one, and within the second task
def test_it_goes_on_bit_for_bit_after_any_step(setting: dict[str, Any], stop: int, tmp_path: Path) -> None:
    whole, interrupted = learner_of(**setting), learner_of(**setting)
    learn(whole, 2)
    if stop > 6:
        learn(interrupted, 1)
    while interrupted.steps < stop:
        next(interrupted.train())
    checkpoint.save(tmp_path / "state", interrupted.state_dict())
    resumed = learner_of(**setting)
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert_equal_trees(resumed.state_dict(), interrupted.state_dict())
    learn(resumed, 2 - resumed.task)
    assert_equal_trees(resumed.state_dict(), whole.state_dict())


def test_a_state_brings_the_state_of_the_method_and_what_is_frozen(tmp_path: Path) -> None:
    class Counting(FreezesRows):
        count = 0

        def after_step(self, learner: Any, group: Group) -> None:
            super().after_step(learner, group)
            self.count += 1

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: Any) -> None:
            self.count = state["count"]

    learner, resumed = learner_of(Counting), learner_of(Counting)
    for _ in range(4):
        next(learner.train())
    checkpoint.save(tmp_path / "state", learner.state_dict())
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert isinstance(resumed.strategy, Counting)
    assert resumed.strategy.count == 4
    bias = resumed.network.get_parameter("0.bias")
    before = bias.detach().clone()
    next(resumed.train())  # the task does not begin again
    assert torch.nonzero(bias != before).view(-1).tolist() == [3, 4, 5, 6]


METHODS = MethodOptions(
    spacenet=SpaceNetOptions(connections=(12, 6), selected=(6,), reserved=(2,)), nispa=NISPAOptions(phase_epochs=1)
)


@pytest.mark.parametrize("method", methods_of("classifier"))
def test_the_generators_of_others_are_left_alone(method: str) -> None:
    sequence = blobs("task")
    torch.manual_seed(11)
    np.random.seed(11)
    drawn, drawn_too = torch.rand(2), np.random.random()
    torch.manual_seed(11)
    np.random.seed(11)
    config = dataclasses.replace(CONFIG, hidden=(16,))
    learner = SupervisedLearner(sequence, make_strategy(method, "classifier", METHODS), config, seed=0)
    list(run_sequence(learner))
    assert torch.equal(torch.rand(2), drawn)
    assert np.random.random() == drawn_too


# --- bad input ----------------------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": ()}, r"learner.hidden needs at least one layer of at least one neuron, got \(\)"),
        ({"hidden": (5, 0)}, r"learner.hidden must be at least 1, got \(5, 0\)"),
        ({"learning_rate": 0.0}, "learner.learning-rate must be positive, got 0.0"),
        ({"learning_rate": NAN}, "learner.learning-rate must be positive, got nan"),
        ({"momentum": -0.1}, r"learner.momentum must be in \[0, 1\), got -0.1"),
        ({"momentum": 0.5}, "learner.momentum 0.5 has no effect on adam; it is for sgd and rmsprop"),
        ({"momentum": 1.0}, r"learner.momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -0.1}, "learner.weight-decay must not be negative, got -0.1"),
        ({"weight_decay": NAN}, "learner.weight-decay must not be negative, got nan"),
        ({"epochs": 0}, "learner.epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "learner.batch-size must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        LearnerConfig(**changes)


def test_the_ends_of_ranges_are_allowed() -> None:
    LearnerConfig(hidden=(1,), momentum=0.0, weight_decay=0.0, epochs=1, batch_size=1)
    assert set(OPTIMIZERS) == {"sgd", "adam", "rmsprop", "adagrad", "asgd"}  # the last for `fit` alone
