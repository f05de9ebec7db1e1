"""Tasks so small that they are learned in milliseconds: two classes each, a Gaussian blob for each class."""

from __future__ import annotations

import numpy as np

from sparserl.continual.supervised.connections import DENSE
from sparserl.continual.supervised.tasks import Samples, Scenario, Task, TaskSequence
from sparserl.topology.config import TopologyConfig

PER_TASK = 2
N_FEATURES = 8


def blobs(scenario: Scenario = "class", n_tasks: int = 3, n_train: int = 40, n_test: int = 30) -> TaskSequence:
    """Each class lies around a corner of the cube [-1, 1]^8; the classes of a task take turns. Always the same."""
    rng = np.random.default_rng(7)
    corners = rng.choice([-1.0, 1.0], size=(n_tasks * PER_TASK, N_FEATURES))

    def outputs(task: int) -> tuple[int, ...]:
        first = 0 if scenario == "domain" else task * PER_TASK
        return tuple(range(first, first + PER_TASK))

    def samples(count: int) -> list[Samples]:
        place = np.arange(n_tasks * count)
        task, label = place // count, place % PER_TASK
        noise = rng.normal(scale=0.4, size=(place.size, N_FEATURES))
        features = (corners[task * PER_TASK + label] + noise).astype(np.float32)
        return [
            Samples(features, place[task == own], label[task == own] + outputs(own)[0], mean=0.0, std=1.0)
            for own in range(n_tasks)
        ]

    parts = zip(samples(n_train), samples(n_test), strict=True)
    tasks = [
        Task(index, f"blobs {index}", tuple(range(index * PER_TASK, (index + 1) * PER_TASK)), outputs(index), *part)
        for index, part in enumerate(parts)
    ]
    return TaskSequence("blobs", scenario, tuple(tasks), N_FEATURES, 1 + max(tasks[-1].outputs), {})


def static(density: float) -> TopologyConfig:
    """As many connections in each hidden layer, which stay."""
    return DENSE if density == 1.0 else TopologyConfig("static", density, allocation="uniform")
