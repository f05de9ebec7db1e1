"""der: what is kept with which outputs, and the loss against the formula."""

from __future__ import annotations

import dataclasses
import math
import zlib

import numpy as np
import pytest
import torch
from support.tasks import N_FEATURES, blobs, static
from support.trees import assert_equal_trees

from sparserl.continual.strategies.der import DER, DEROptions
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.memory import ReservoirMemory, samples_at
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Batch, Scenario

CONFIG = LearnerConfig(hidden=(12, 10), epochs=2, optimizer="sgd", learning_rate=0.1, batch_size=16)


def learner_of(scenario: Scenario, **options: float) -> tuple[SupervisedLearner, DER]:
    strategy = DER(DEROptions(**options))  # type: ignore[arg-type]  # counts are whole numbers
    return SupervisedLearner(blobs(scenario), strategy, CONFIG, static(0.5), seed=0), strategy


# --- what is kept -------------------------------------------------------------------------------------


def offered(memory: ReservoirMemory, task: int, count: int) -> None:
    """Offers the first samples of a task, each with outputs that say which one it is."""
    batch = Batch.of(task, blobs().tasks[task].train, np.arange(count))
    memory.add(batch, torch.full((count, 6), float(task)) + torch.arange(count)[:, None] / 100)


def test_all_samples_are_kept_while_there_is_room() -> None:
    memory = ReservoirMemory(blobs(), capacity=10, seed=0)
    offered(memory, 0, 4)
    offered(memory, 2, 3)
    assert (len(memory), memory.seen) == (7, 7)
    assert memory.tasks.tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert memory.indices.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert memory.outputs[:, 5].tolist() == pytest.approx([0.0, 0.01, 0.02, 0.03, 2.0, 2.01, 2.02])
    assert memory.sizes() == {"samples": 7 * (4 * N_FEATURES + 16), "outputs": 7 * 6 * 4}
    assert memory.numbers() == 7 * (N_FEATURES + 1 + 6) + 1


def test_later_each_sample_takes_the_place_that_is_drawn_for_it() -> None:
    memory, expected = ReservoirMemory(blobs(), capacity=5, seed=3), [0, 1, 2, 3, 4]
    offered(memory, 0, 5)
    rng = np.random.default_rng([3, *_names("reservoir", "5")])
    for row, place in enumerate(rng.integers(np.arange(6, 26))):
        if place < 5:
            expected[place] = 100 + row
    offered(memory, 1, 20)
    assert (100 * memory.tasks + memory.indices).tolist() == expected
    assert memory.outputs[:, 0].tolist() == pytest.approx([one // 100 + one % 100 / 100 for one in expected])
    assert any(one >= 100 for one in expected)


def _names(*names: str) -> list[int]:
    return [zlib.crc32(name.encode()) for name in names]


def test_every_sample_is_as_likely_to_be_there() -> None:
    counts = np.zeros(40)
    for seed in range(400):
        memory = ReservoirMemory(blobs(), capacity=10, seed=seed)
        for start in range(0, 40, 8):
            batch = Batch.of(0, blobs().tasks[0].train, np.arange(start, start + 8))
            memory.add(batch, torch.zeros(8, 6))
        counts[memory.indices] += 1
        assert len(memory) == 10
    assert counts.sum() == 4000
    assert np.abs(counts - 100).max() < 40  # standard deviation 9


def test_what_is_drawn_comes_with_its_own_outputs() -> None:
    memory = ReservoirMemory(blobs(), capacity=30, seed=0)
    offered(memory, 1, 10)
    offered(memory, 0, 10)
    batch, outputs = memory.batch(50, step=4)
    assert torch.equal(outputs[:, 0], batch.task + batch.index / 100)
    assert set(batch.task.tolist()) == {0, 1}
    assert batch.task.tolist() != sorted(batch.task.tolist())  # halves of a draw are alike
    for x, task, index in zip(batch.x, batch.task.tolist(), batch.index.tolist(), strict=True):
        assert torch.equal(x, blobs().tasks[task].train.take(np.array([index]))[0][0])
    assert torch.equal(memory.batch(50, 4)[0].x, batch.x)
    assert not torch.equal(memory.batch(50, 5)[0].x, batch.x)


def test_samples_are_given_in_the_order_asked_for() -> None:
    tasks, indices = np.array([2, 0, 2, 1]), np.array([3, 1, 0, 7])
    batch = samples_at(blobs(), tasks, indices)
    assert (batch.task.tolist(), batch.index.tolist()) == (tasks.tolist(), indices.tolist())


def test_a_step_offers_its_samples_with_the_outputs_before_it() -> None:
    learner, strategy = learner_of("class", samples=1000)
    steps = learner.train()
    for _ in range(2):
        order = learner._order()[16 * learner.batch : 16 * learner.batch + 16]
        batch = Batch.of(0, learner.sequence.tasks[0].train, order)
        before = learner.network(batch.x).detach().numpy()
        next(steps)
        np.testing.assert_array_equal(strategy.kept.indices[-16:], order)
        np.testing.assert_array_equal(strategy.kept.outputs[-16:], before)
    list(steps)
    assert strategy.kept.seen == 80  # two epochs of 40


# --- the loss -----------------------------------------------------------------------------------------

OWN: dict[Scenario, list[list[int]]] = {
    "class": [list(range(6))] * 3,
    "task": [[0, 1], [2, 3], [4, 5]],
    "domain": [[0, 1]] * 3,
}


def entropy(logits: np.ndarray, y: int, competing: list[int]) -> float:
    powers = np.exp(logits[competing])
    return -math.log(powers[competing.index(y)] / powers.sum())


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("scenario", OWN)
def test_the_loss_is_the_formula(scenario: Scenario, beta: float) -> None:
    learner, strategy = learner_of(scenario, samples=9, alpha=0.3, beta=beta, batch_size=5)
    for _ in range(2):
        list(learner.train())
        learner.finish_task()
    batch = Batch.of(2, learner.sequence.tasks[2].train, np.arange(6))
    drawn, kept = strategy.kept.batch(10 if beta else 5, learner.steps)
    with torch.no_grad():
        new, old = (learner.network(one.x).double().numpy() for one in (batch, drawn))
    expected = np.mean([entropy(new[row], int(batch.y[row]), OWN[scenario][2]) for row in range(6)])
    expected += 0.3 * float(np.square(old[:5] - kept[:5].numpy()).mean())
    if beta:
        labelled = [entropy(old[row], int(drawn.y[row]), OWN[scenario][int(drawn.task[row])]) for row in range(5, 10)]
        expected += 0.7 * np.mean(labelled)
    assert strategy.loss(learner, batch).item() == pytest.approx(expected, rel=1e-5)


def test_without_weight_it_is_fine_tuning() -> None:
    learner, _ = learner_of("class", alpha=0.0)
    naive = SupervisedLearner(learner.sequence, Strategy(), CONFIG, static(0.5), seed=0)
    for one in (learner, naive):
        list(run_sequence(one))
    for name, value in naive.network.state_dict().items():
        torch.testing.assert_close(learner.network.state_dict()[name], value)


def test_the_first_classes_are_still_chosen_where_fine_tuning_has_forgotten_them() -> None:
    def remembered(alpha: float) -> float:
        """Accuracy on the first task after the second."""
        strategy = DER(DEROptions(samples=30, alpha=alpha, batch_size=16))
        config = dataclasses.replace(CONFIG, epochs=20, optimizer="adam", learning_rate=0.02)
        learner = SupervisedLearner(blobs(), strategy, config, static(0.5), seed=0)
        for _ in range(2):
            list(learner.train())
            learner.finish_task()
        return learner.accuracy(0)

    assert remembered(0.0) < 0.1
    assert remembered(1.0) > 0.85


def test_a_reservoir_survives_in_a_state() -> None:
    learner, strategy = learner_of("class", samples=9)
    list(learner.train())
    _, other = learner_of("class", samples=9)
    other.load_state_dict(strategy.state_dict())
    assert_equal_trees(other.state_dict(), strategy.state_dict())
    batch = Batch.of(0, learner.sequence.tasks[0].train, np.arange(40))
    for one in (strategy, other):
        one.kept.add(batch, torch.ones(40, 6))
    assert_equal_trees(other.state_dict(), strategy.state_dict())
