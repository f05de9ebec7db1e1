"""joint: row t of the accuracy matrix is a network trained on tasks 0..t and nothing else."""

from __future__ import annotations

import pytest
import torch
from support.tasks import N_FEATURES, blobs, static
from support.trees import assert_equal_trees

from sparserl.continual.strategies.anew import Joint
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step


def learner_of(reset_optimizer: bool = True) -> SupervisedLearner:
    config = LearnerConfig(hidden=(12, 10), epochs=2, batch_size=16, reset_optimizer=reset_optimizer)
    sequence = blobs()
    return SupervisedLearner(sequence, Joint(), config, static(0.5), seed=0)


@pytest.mark.parametrize("reset_optimizer", [True, False])
def test_a_row_depends_on_nothing_that_was_learned_before(reset_optimizer: bool) -> None:
    learner = learner_of(reset_optimizer)
    list(run_sequence(learner))
    alone = learner_of(reset_optimizer)
    initial = {name: value.clone() for name, value in alone.network.state_dict().items()}
    alone.task = 2
    list(alone.train())
    alone.finish_task()
    assert_equal_trees(dict(learner.network.state_dict()), dict(alone.network.state_dict()))
    assert learner.accuracies() == alone.accuracies()
    assert not torch.equal(learner.network[2].weight, initial["2.weight"])


def test_it_starts_from_the_same_weights_at_each_task_with_its_own_optimizer() -> None:
    learner = learner_of()
    parameters = list(learner.network.parameters())
    initial = {name: value.clone() for name, value in learner.network.state_dict().items()}
    for _ in range(3):
        learner.strategy.begin_task(learner)
        assert_equal_trees(dict(learner.network.state_dict()), initial)
        assert not learner.optimizer.state
        assert [id(own) for group in learner.optimizer.param_groups for own in group["params"]] == [
            id(own) for own in parameters
        ]
        list(learner.train())
        learner.finish_task()


def test_all_samples_so_far_are_used_and_counted() -> None:
    learner = learner_of()
    batches, kept = [], []
    for event in run_sequence(learner):
        match event:
            case Step():
                batches.append((event.task, event.batches))
            case TaskEnded():
                kept.append(learner.strategy.memory()["samples"])
    assert [batches.count((task, count)) for task, count in [(0, 3), (1, 5), (2, 8)]] == [6, 10, 16]  # 40, 80, 120
    assert kept == [tasks * 40 * (4 * N_FEATURES + 16) for tasks in (1, 2, 3)]
