"""replay and agem: what is kept, what is drawn, and which way a step may not go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import N_FEATURES, blobs, static

from sparserl.continual.learner import Group
from sparserl.continual.shared.projection import project
from sparserl.continual.strategies.memory import AGEM, AGEMOptions, Replay, ReplayOptions, WithMemory
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.memory import SampleMemory
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Batch
from sparserl.errors import ConfigError

CONFIG = LearnerConfig(hidden=(12, 10), epochs=1, batch_size=16)
SAMPLE_BYTES = 4 * N_FEATURES + 16


def kept(strategy: WithMemory) -> SampleMemory:
    assert isinstance(strategy.kept, SampleMemory)
    return strategy.kept


def sizes(memory: SampleMemory) -> list[int]:
    return [own.size for own in memory.indices]


# What is kept.


def test_tasks_share_the_memory_equally() -> None:
    memory = SampleMemory(blobs(), seed=0)
    assert len(memory) == 0
    first = None
    for count, expected in [(20, [20]), (10, [10, 10]), (6, [6, 6, 6])]:
        memory.keep(count)
        assert sizes(memory) == expected
        assert len(memory) == sum(expected)
        assert memory.sizes()["samples"] == sum(expected) * SAMPLE_BYTES
        first = memory.indices[0] if first is None else first
        assert memory.indices[0].tolist() == first[:count].tolist()  # a sample that was given up does not come back
    for own in memory.indices:
        assert np.unique(own).size == own.size
        assert 0 <= own.min() <= own.max() < 40


def test_no_more_is_kept_than_a_task_has() -> None:
    memory = SampleMemory(blobs(), seed=0)
    memory.keep(1000)
    assert np.sort(memory.indices[0]).tolist() == list(range(40))


def test_what_is_kept_depends_on_the_seed_alone() -> None:
    found = []
    for seed in (0, 0, 1):
        memory = SampleMemory(blobs(), seed)
        memory.keep(8)
        found.append(memory.indices[0].tolist())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("samples", "expected"), [(20, [[20], [10, 10], [6, 6, 6]]), (3, [[3], [1, 1], [1, 1, 1]])])
def test_replay_never_keeps_more_than_it_may(samples: int, expected: list[list[int]]) -> None:
    strategy = Replay(ReplayOptions(samples=samples))
    learner = SupervisedLearner(blobs(), strategy, CONFIG, static(0.5), seed=0)
    for after in expected:
        list(learner.train())
        learner.finish_task()
        assert sizes(kept(strategy)) == after
        assert strategy.memory() == {"samples": sum(after) * SAMPLE_BYTES}


def test_agem_keeps_as_many_of_each_task() -> None:
    strategy = AGEM(AGEMOptions(samples_per_task=7))
    list(run_sequence(SupervisedLearner(blobs(), strategy, CONFIG, static(0.5), seed=0)))
    assert sizes(kept(strategy)) == [7, 7, 7]


# What is drawn.


def test_a_batch_is_drawn_uniformly_from_what_is_kept() -> None:
    sequence = blobs()
    memory = SampleMemory(sequence, seed=0)
    memory.keep(4)
    memory.keep_first(1, [np.array([5, 11])], 4)
    kept = {}
    for task, own in enumerate(memory.indices):
        x, y = sequence.tasks[task].train.take(own)
        kept |= {tuple(row.tolist()): (task, int(label)) for row, label in zip(x, y, strict=True)}
    counts = dict.fromkeys(kept, 0)
    for step in range(200):
        batch = memory.batch(30, step)
        assert len(batch) == 30
        for x, y, task in zip(batch.x, batch.y, batch.task, strict=True):
            assert kept[tuple(x.tolist())] == (int(task), int(y))
            counts[tuple(x.tolist())] += 1
    assert all(900 < count < 1100 for count in counts.values())  # 1000 expected, standard deviation 29


def test_a_draw_depends_on_its_step() -> None:
    memory = SampleMemory(blobs(), seed=0)
    memory.keep(20)
    assert torch.equal(memory.batch(16, 3).x, memory.batch(16, 3).x)
    assert not torch.equal(memory.batch(16, 3).x, memory.batch(16, 4).x)


def test_old_samples_are_as_many_as_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = Replay(ReplayOptions(samples=20))
    learner = SupervisedLearner(blobs(), strategy, CONFIG, static(0.5), seed=0)
    seen: list[tuple[int, list[int]]] = []
    cross_entropy = learner.cross_entropy

    def record(batch: Batch) -> torch.Tensor:
        seen.append((learner.task, batch.task.tolist()))
        return cross_entropy(batch)

    monkeypatch.setattr(learner, "cross_entropy", record)
    list(run_sequence(learner))
    for task, tasks in seen:
        new = tasks.count(task)
        assert tasks[:new] == [task] * new
        assert len(tasks) == (2 * new if task else new)
    assert [len(tasks) for _, tasks in seen] == [16, 16, 8, 32, 32, 16, 32, 32, 16]
    assert {old for task, tasks in seen for old in tasks if task == 2} == {0, 1, 2}


# Which way a step may not go.


@pytest.mark.parametrize(
    ("gradient", "reference", "expected"),
    [
        ([1.0, -1.0], [0.0, 1.0], [1.0, 0.0]),
        ([1.0, -3.0], [2.0, 2.0], [2.0, -2.0]),  # product -4, square 8
        ([1.0, -3.0], [-2.0, -2.0], [1.0, -3.0]),
        ([1.0, -1.0], [2.0, 1.0], [1.0, -1.0]),  # the second entries alone would disagree
        ([1.0, -1.0], [1.0, 1.0], [1.0, -1.0]),
        ([1.0, -1.0], [0.0, 0.0], [1.0, -1.0]),
    ],
)
@pytest.mark.parametrize("cut", [1, 2], ids=["two parameters", "one parameter"])
def test_a_projection_by_hand(gradient: list[float], reference: list[float], expected: list[float], cut: int) -> None:
    gradients = list(torch.tensor(gradient).split(cut))
    project(gradients, list(torch.tensor(reference).split(cut)))
    assert torch.cat(gradients).tolist() == expected


@given(st.integers(0, 10_000))
def test_a_projected_gradient_is_the_closest_that_does_not_disagree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradient, reference, other = (torch.from_numpy(rng.normal(size=5)) for _ in range(3))
    projected = gradient.clone()
    project([projected[:2], projected[2:]], [reference[:2], reference[2:]])
    assert projected @ reference >= -1e-9
    allowed = other if other @ reference >= 0 else -other
    assert (projected - gradient).norm() <= (allowed - gradient).norm() + 1e-9


def test_no_step_of_agem_goes_against_its_memory() -> None:
    class Checked(AGEM):
        def before_step(self, learner: Any, group: Group) -> None:
            parameters = list(learner.network.parameters())
            before = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
            super().before_step(learner, group)
            after = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if learner.task == 0:
                assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
                return
            loss = learner.cross_entropy(kept(self).batch(12, learner.steps))
            reference = torch.autograd.grad(loss, parameters)

            def product(gradients: list[torch.Tensor]) -> float:
                return sum(float((a * b).sum()) for a, b in zip(gradients, reference, strict=True))

            disagreements.append(product(before) < 0)
            assert product(after) == pytest.approx(max(product(before), 0.0), abs=1e-5)

    disagreements: list[bool] = []
    strategy = Checked(AGEMOptions(samples_per_task=9, batch_size=12))
    config = LearnerConfig(hidden=(12, 10), epochs=3, optimizer="sgd", learning_rate=0.3, batch_size=16)
    list(run_sequence(SupervisedLearner(blobs(), strategy, config, static(0.5), seed=0)))
    assert any(disagreements)
    assert len(disagreements) == 2 * 3 * 3


# Bad options.


def test_a_memory_without_room_for_each_task_is_refused() -> None:
    strategy = Replay(ReplayOptions(samples=2))
    with pytest.raises(ConfigError, match=r"^replay.samples must be at least 3, one for each task, got 2$"):
        SupervisedLearner(blobs(), strategy, CONFIG, static(0.5), seed=0)
