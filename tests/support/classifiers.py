"""What tests of classifiers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from support.tasks import blobs, static

from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Scenario, TaskSequence

CONFIG = LearnerConfig(hidden=(7,), epochs=2, batch_size=16, learning_rate=0.05)


COUNTS = (40, 30, 35)
"""Training samples of the three tasks: batches of 16, 16 and 8; 16 and 14; 16, 16 and 3."""


def tasks(scenario: Scenario = "class") -> TaskSequence:
    """Three tasks of two classes with unlike numbers of samples."""
    sequence = blobs(scenario, n_tasks=3, n_train=40, n_test=30)

    def shortened(index: int, count: int) -> Any:
        train = sequence.tasks[index].train
        return dataclasses.replace(
            sequence.tasks[index],
            train=dataclasses.replace(train, rows=train.rows[:count], labels=train.labels[:count]),
        )

    made: TaskSequence = dataclasses.replace(sequence, tasks=tuple(shortened(*pair) for pair in enumerate(COUNTS)))
    return made


def learner_of(
    strategy: Callable[..., Strategy] = Strategy,
    scenario: Scenario = "class",
    seed: int = 0,
    density: float = 1.0,
    **changes: Any,
) -> SupervisedLearner:
    config = dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(tasks(scenario), strategy(), config, static(density), seed=seed)


def learn(learner: SupervisedLearner, n_tasks: int) -> list[Step]:
    steps = []
    for _ in range(n_tasks):
        steps += list(learner.train())
        learner.finish_task()
    return steps
