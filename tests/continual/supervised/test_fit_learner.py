"""A classifier of one task: its schedule and decay by hand, what it chooses, its steps by hand, its state."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.fits import CONFIG, SPARSE, fit_learner, table
from support.trees import assert_equal_trees

from sparserl.continual.supervised.fit_learner import FitLearner, balanced_weights
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import ClassifierConfig
from sparserl.continual.supervised.objectives import Score
from sparserl.continual.supervised.tables import table_sequence
from sparserl.continual.supervised.tasks import Samples
from sparserl.errors import ConfigError
from sparserl.metrics.cost import connections, layer_costs
from sparserl.topology.config import TopologyConfig

DENSE = TopologyConfig(method="dense")


# The learning rate, and decay.


@pytest.mark.parametrize(
    ("options", "at", "rate"),
    [
        ({"learning_rate_every": 25_000, "learning_rate_unit": "steps"}, (46, 24_999), 0.1),
        ({"learning_rate_every": 25_000, "learning_rate_unit": "steps"}, (46, 25_000), 0.01),
        ({"learning_rate_every": 25_000, "learning_rate_unit": "steps"}, (99, 53_999), 0.001),
        ({"learning_rate_milestones": (2, 5)}, (1, 10**6), 0.1),
        ({"learning_rate_milestones": (2, 5)}, (2, 0), 0.01),
        ({"learning_rate_milestones": (2, 5)}, (7, 0), 0.001),
    ],
)
def test_the_learning_rate_falls_as_worked_by_hand(options: Any, at: tuple[int, int], rate: float) -> None:
    config = ClassifierConfig(learning_rate=0.1, learning_rate_factor=0.1, **options)
    assert config.learning_rate_at(*at) == pytest.approx(rate)


def test_the_optimizer_gets_the_learning_rate_of_each_epoch() -> None:
    learner = fit_learner(learning_rate_factor=0.5, learning_rate_every=1)
    rates = {step.epoch: learner.optimizer.param_groups[0]["lr"] for step in learner.train()}
    assert rates == {0: 0.02, 1: 0.01, 2: 0.005}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"learning_rate_every": 2}, "learner.learning_rate_factor below 1"),
        ({"learning_rate_factor": 0.1}, "set learner.learning_rate_every"),
        ({"learning_rate_factor": 0.1, "learning_rate_milestones": (3, 2)}, r"must increase, got \[3, 2\]"),
        ({"learning_rate_factor": 0.1, "learning_rate_milestones": (3,), "learning_rate_every": 2}, "leave one out"),
        ({"nesterov": True, "optimizer": "sgd"}, "set learner.momentum, e.g. 0.9, got sgd and momentum 0"),
        ({"nesterov": True}, "momentum of sgd.*got adam"),
        ({"weight_decay": 0.1, "constant_decay": 0.2}, "set one to 0"),
    ],
)
def test_a_schedule_or_decay_without_effect_is_refused(options: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        ClassifierConfig(**options)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"learning_rate_every": 3}, "every 3 is not before the end of a task, 3 epochs"),
        ({"learning_rate_milestones": (1, 4)}, "milestones 4 .* 3 epochs"),
        ({"learning_rate_every": 50, "learning_rate_unit": "steps"}, "every 50 .* 12 steps"),
    ],
)
def test_a_schedule_that_is_longer_than_the_run_is_refused(options: Any, length: str) -> None:
    with pytest.raises(ConfigError, match=length):
        fit_learner(learning_rate_factor=0.1, **options)


def test_a_step_with_constant_decay_is_as_worked_by_hand() -> None:
    """w 1, gradient .5, learning rate .1, momentum .9, decay .01: v -.05, then -.095 at the same gradient."""
    learner = fit_learner(DENSE, optimizer="sgd", learning_rate=0.1, momentum=0.9, constant_decay=0.01)
    (weight, *_) = learner.network.parameters()
    weight.data.fill_(1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "_form_gradients", lambda batch: _gradient_of_a_half(learner))
        steps = learner.train()
        next(steps)
        assert weight.unique().tolist() == pytest.approx([1.0 - 0.01 - 0.05])
        next(steps)
        assert weight.unique().tolist() == pytest.approx([0.94 - 0.0094 - 0.095])


def _gradient_of_a_half(learner: FitLearner) -> float:
    for parameter in learner.network.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    return 0.0


# Steps without autograd.


def test_a_step_by_hand_has_the_gradients_of_autograd() -> None:
    for class_weights in ("none", "balanced"):
        learner = fit_learner(class_weights=class_weights)
        batch = learner._batch(learner._order()[:16])
        loss = learner._form_gradients(batch)
        by_hand = [parameter.grad.clone() for parameter in learner.network.parameters() if parameter.grad is not None]
        assert SupervisedLearner._form_gradients(learner, batch) == pytest.approx(loss, rel=1e-5)
        assert len(by_hand) == 6
        for parameter, gradient in zip(learner.network.parameters(), by_hand, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_kept_samples_are_those_that_are_standardised_for_each_batch() -> None:
    learner = fit_learner()
    order = learner._order()[3:19]
    kept, made = learner._batch(order), SupervisedLearner._batch(learner, order)
    assert torch.equal(kept.x, made.x)
    assert torch.equal(kept.y, made.y)


@pytest.mark.parametrize("topology", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_flops_of_an_epoch_are_six_a_connection_and_sample_but_the_first_layers_four(topology: TopologyConfig) -> None:
    learner = fit_learner(topology)
    first, *others = [cost.weights for cost in layer_costs(learner.network)]
    for step in learner.train():
        if step.epoch == 1:
            break
    samples = len(learner.only_task.train) + 16
    assert learner.flops.total == samples * (4 * first + 6 * sum(others))


# Activations.


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "all_relu", "k_winners"])
def test_an_activation_follows_hidden_layers_in_training_and_use(activation: Any) -> None:
    own: Any = {"winners": 0.5} if activation == "k_winners" else {}
    learner = fit_learner(activation=activation, epochs=30, learning_rate=0.05, **own)
    assert learner.network.activations == [activation, activation, "identity"]
    list(learner.train())
    assert learner.evaluate(learner.only_task.train).accuracy > 0.7


def test_dropout_is_off_in_evaluation() -> None:
    learner = fit_learner(dropout=0.5)
    test = learner.only_task.test
    assert learner.evaluate(test) == learner.evaluate(test)
    batch = learner._batch(np.arange(16))
    assert learner.cross_entropy(batch).item() != learner.cross_entropy(batch).item()


def test_the_boost_of_winners_falls_with_each_epoch() -> None:
    learner = fit_learner(activation="k_winners", boost=2.0, boost_decay=0.5)
    list(learner.train())
    function: Any = learner.network.functions[0]
    assert float(function.boost) == 2.0 * 0.5**3


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"slope": 0.5}, "learner.slope 0.5 has no effect on relu: set learner.activation all_relu"),
        ({"winners": 0.5, "activation": "all_relu"}, "has no effect on all_relu: set learner.activation k_winners"),
    ],
)
def test_an_option_of_another_activation_is_refused(options: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        ClassifierConfig(**options)


# What is chosen, and by what.


def accuracies(learner: FitLearner, values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets validation accuracies be some values, one an epoch."""
    rest = iter(values)
    monkeypatch.setattr(learner, "evaluate", lambda samples: Score(next(rest), 1.0))


def test_training_ends_after_epochs_without_a_better_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fit_learner(epochs=9, patience=2)
    accuracies(learner, [0.3, 0.5, 0.5, 0.4, 0.9], monkeypatch)
    epochs = [step.epoch for step in learner.train()]
    assert max(epochs) == 3
    assert learner.stopped
    assert learner.best is not None
    assert (learner.best.epoch, learner.best.score.accuracy) == (2, 0.5)
    assert list(learner.train()) == []


def test_the_best_network_is_kept_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fit_learner(epochs=3)
    accuracies(learner, [0.3, 0.5, 0.4], monkeypatch)
    states = []
    for step in learner.train():
        if step.batch + 1 == step.batches:
            states.append({name: tensor.clone() for name, tensor in learner.network.state_dict().items()})
    assert learner.best is not None
    assert_equal_trees(dict(learner.best.network), states[1])
    assert learner.best.step == 2 * learner.steps // 3


def test_a_network_that_is_pruned_further_takes_the_place_of_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = TopologyConfig(method="gmp", density=0.3, update_interval=1, begin_fraction=0.3, end_fraction=0.6)
    learner = fit_learner(topology, epochs=5)
    accuracies(learner, [0.9, 0.8, 0.7, 0.4, 0.5], monkeypatch)
    counts = [step.epoch and connections([learner.network]) for step in learner.train()]
    assert learner.best is not None
    assert (learner.best.epoch, learner.best.score.accuracy, learner.best.connections) == (3, 0.7, counts[-1])
    assert counts[-1] < counts[4]  # of the second epoch


def test_patience_needs_validation_samples() -> None:
    with pytest.raises(ConfigError, match=r"learner\.patience 2 .* set a validation share"):
        fit_learner(validation_share=0.0, patience=2)
    learner = fit_learner(validation_share=0.0)
    list(learner.train())
    assert learner.score is learner.best is None


def test_test_samples_choose_nothing() -> None:
    sequence = table_sequence(table(), validation_share=0.2, seed=0)
    (task,) = sequence.tasks
    others = dataclasses.replace(task.test, labels=np.roll(task.test.labels, 7))
    swapped = dataclasses.replace(sequence, tasks=(dataclasses.replace(task, test=others),))
    learners = [FitLearner(one, CONFIG, SPARSE, seed=0) for one in (sequence, swapped)]
    for learner in learners:
        list(learner.train())
    assert learners[0].evaluate(task.test) != learners[1].evaluate(others)
    assert_equal_trees(*(learner.state_dict() for learner in learners))


def test_balanced_classes_weigh_the_same() -> None:
    """Of 6 samples 3, 2 and 1: each class weighs 2 in all."""
    labels = np.array([0, 0, 0, 1, 1, 2])
    samples = Samples(np.zeros((6, 1), np.float32), np.arange(6), labels, 0.0, 1.0)
    weights = balanced_weights(samples, (0, 1, 2))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 1.0, 2.0]))


def test_a_score_is_as_worked_by_hand() -> None:
    """A network whose outputs are its biases, log 3, 0, 0: probabilities .6, .2, .2."""
    learner = fit_learner(DENSE)
    for parameter in learner.network.parameters():
        parameter.data.zero_()
    learner.network[-1].bias.data[0] = np.log(3.0)  # type: ignore[union-attr,index,operator]
    test = learner.only_task.test
    of_first = float((test.labels == 0).mean())
    score = learner.evaluate(test)
    assert score.accuracy == pytest.approx(of_first)
    assert score.loss == pytest.approx(-of_first * np.log(0.6) - (1 - of_first) * np.log(0.2), rel=1e-5)


# State.


SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True}


@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize(
    ("topology", "own"),
    [
        (DENSE, SGD),
        (SPARSE, SGD),
        (SPARSE, {"activation": "k_winners", "winners": 0.3}),
        (SPARSE, {"activation": "all_relu", "dropout": 0.3}),
    ],
    ids=["dense", "sparse", "k winners", "dropout"],
)
def test_a_learner_goes_on_bit_for_bit(topology: TopologyConfig, own: dict[str, Any], stop: int) -> None:
    options: Any = {**own, "patience": 2, "epochs": 4}
    whole = fit_learner(topology, **options)
    list(whole.train())
    first = fit_learner(topology, **options)
    steps = first.train()
    for _ in range(stop):
        next(steps)
    second = fit_learner(topology, **options)
    second.load_state_dict(first.state_dict())
    list(second.train())
    assert_equal_trees(second.state_dict(), whole.state_dict())
