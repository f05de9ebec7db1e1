"""Tasks so small that they are learned in milliseconds: two classes each, a Gaussian blob or a pattern for each."""

from __future__ import annotations

import dataclasses
import math

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


IMAGE = (2, 6, 5)
"""Channels, height and width of `pictures`."""


def pictures(scenario: Scenario = "class", n_tasks: int = 3, n_train: int = 40, n_test: int = 30) -> TaskSequence:
    """As `blobs`, of pictures: of each class a pattern of 3 x 3 pixels, anywhere in noise. Always the same."""
    rng = np.random.default_rng(8)
    patterns = rng.choice([-2.0, 2.0], size=(n_tasks * PER_TASK, IMAGE[0], 3, 3))

    def samples(task: int, count: int) -> Samples:
        labels = np.arange(count) % PER_TASK
        features = rng.normal(scale=0.3, size=(count, *IMAGE)).astype(np.float32)
        for picture, label in zip(features, labels, strict=True):
            row, column = rng.integers(IMAGE[1] - 2), rng.integers(IMAGE[2] - 2)
            picture[:, row : row + 3, column : column + 3] += patterns[task * PER_TASK + label]
        first = 0 if scenario == "domain" else task * PER_TASK
        return Samples(features.reshape(count, -1), np.arange(count), labels + first, mean=0.0, std=1.0)

    parts = [(samples(task, n_train), samples(task, n_test)) for task in range(n_tasks)]
    tasks = [
        dataclasses.replace(task, train=train, test=test)
        for task, (train, test) in zip(blobs(scenario, n_tasks).tasks, parts, strict=True)
    ]
    outputs = 1 + max(tasks[-1].outputs)
    return TaskSequence("pictures", scenario, tuple(tasks), math.prod(IMAGE), outputs, {}, image=IMAGE)


def static(density: float) -> TopologyConfig:
    """As many connections in each hidden layer, which stay."""
    return DENSE if density == 1.0 else TopologyConfig("static", density, allocation="uniform")
