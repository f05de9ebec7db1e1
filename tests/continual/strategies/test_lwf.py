"""lwf: what the old network teaches, against the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.tasks import blobs, static
from support.trees import assert_equal_trees

from sparserl.continual.strategies.lwf import LwF, LwFOptions, distillation
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Batch, Scenario

CONFIG = LearnerConfig(hidden=(12, 10), epochs=4, optimizer="sgd", learning_rate=0.1, batch_size=16)


def learner_of(scenario: Scenario, options: LwFOptions) -> tuple[SupervisedLearner, LwF]:
    strategy = LwF(options)
    return SupervisedLearner(blobs(scenario), strategy, CONFIG, static(0.5), seed=0), strategy


def test_a_divergence_by_hand() -> None:
    # Halved, the learner's logits give 1/4 and 3/4, the teacher's 1/2 and 1/2.
    logits, target = torch.tensor([[0.0, 2 * math.log(3)]]), torch.zeros(1, 2)
    expected = -4 * (0.5 * math.log(1 / 4) + 0.5 * math.log(3 / 4))
    assert distillation(logits, target, [0, 1], 2.0).item() == pytest.approx(expected)
    # A third class, which the teacher does not know, takes half of it: 1/8, 1/2, 3/8.
    logits = torch.tensor([[0.0, 2 * math.log(4), 2 * math.log(3)]])
    expected = -4 * (0.5 * math.log(1 / 8) + 0.5 * math.log(3 / 8))
    assert distillation(logits, target, [0, 2], 2.0).item() == pytest.approx(expected)


def test_a_divergence_is_the_mean_over_samples() -> None:
    logits, target = torch.randn(5, 3), torch.randn(5, 2)
    each = [distillation(logits[i : i + 1], target[i : i + 1], [0, 2], 1.5).item() for i in range(5)]
    assert distillation(logits, target, [0, 2], 1.5).item() == pytest.approx(np.mean(each), rel=1e-5)


OLD_CHOICES: dict[Scenario, list[tuple[list[int], list[int]]]] = {
    # Outputs that the old network chooses among for tasks 0 and 1, and those that compete while task 2 is learned.
    "class": [([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])] * 2,
    "task": [([0, 1], [0, 1]), ([2, 3], [2, 3])],
    "domain": [([0, 1], [0, 1])] * 2,
}


@pytest.mark.parametrize("scenario", OLD_CHOICES)
def test_the_loss_is_the_formula(scenario: Scenario) -> None:
    learner, strategy = learner_of(scenario, LwFOptions(alpha=0.7, temperature=3.0))
    for _ in range(2):
        list(learner.train())
        learner.finish_task()
    batch = Batch.of(2, learner.sequence.tasks[2].train, np.arange(6))
    with torch.no_grad():
        old = learner.network(batch.x).double().numpy()
        learner.network[2].weight.add_(0.3 * torch.arange(10.0))
        new = learner.network(batch.x).double().numpy()

    def probabilities(logits: np.ndarray) -> np.ndarray:
        return np.exp(logits) / np.exp(logits).sum()

    expected = 0.0
    own = {"class": range(6), "task": [4, 5], "domain": [0, 1]}[scenario]
    for row in range(6):
        right = list(own).index(int(batch.y[row]))
        expected -= math.log(probabilities(new[row][list(own)])[right]) / 6
        for known, competing in OLD_CHOICES[scenario]:
            teacher, pupil = probabilities(old[row][known] / 3), probabilities(new[row][competing] / 3)
            for unit, share in zip(known, teacher, strict=True):
                expected -= 0.7 * 9 / 6 * share * math.log(pupil[competing.index(unit)])
    assert strategy.loss(learner, batch).item() == pytest.approx(expected, rel=1e-5)


def test_the_first_task_has_no_teacher() -> None:
    learner, strategy = learner_of("class", LwFOptions(alpha=100.0))
    strategy._old.network[2].bias.data.fill_(math.nan)
    batch = Batch.of(0, learner.sequence.tasks[0].train, np.arange(6))
    assert torch.equal(strategy.loss(learner, batch), learner.cross_entropy(batch))


@pytest.mark.parametrize("scenario", OLD_CHOICES)
def test_a_teacher_without_weight_is_fine_tuning(scenario: Scenario) -> None:
    learner, _ = learner_of(scenario, LwFOptions(alpha=0.0))
    naive = SupervisedLearner(learner.sequence, Strategy(), CONFIG, static(0.5), seed=0)
    for one in (learner, naive):
        list(run_sequence(one))
    assert_equal_trees(dict(learner.network.state_dict()), dict(naive.network.state_dict()))


def test_the_teacher_is_the_network_at_the_end_of_the_last_task_and_stays() -> None:
    learner, strategy = learner_of("class", LwFOptions())
    list(learner.train())
    learner.finish_task()
    old = {name: value.clone() for name, value in learner.network.state_dict().items()}
    size = sum(value.nbytes for value in old.values())
    assert strategy.memory() == {"old network": size}
    list(learner.train())
    assert_equal_trees(strategy.state_dict()["old"], old)
    assert not torch.equal(learner.network[2].weight, old["2.weight"])


def test_the_first_classes_are_still_chosen_where_fine_tuning_has_forgotten_them() -> None:
    def remembered(alpha: float) -> float:
        """Accuracy on the first task after the second."""
        learner, _ = learner_of("class", LwFOptions(alpha=alpha))
        for _ in range(2):
            list(learner.train())
            learner.finish_task()
        return learner.accuracy(0)

    assert remembered(0.0) < 0.1
    assert remembered(1.0) > 0.85
