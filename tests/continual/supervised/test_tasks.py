"""Samples, tasks and batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparserl.continual.supervised.tasks import Batch, Samples, Scenario, Task, TaskSequence

# Three samples of four features as stored; scaled by 0.5, less 1, over 2.
STORED = np.array([[2, 6, 10, 14], [4, 4, 4, 4], [0, 2, 4, 254]], np.uint8)
STANDARDISED = [[0, 1, 2, 3], [0.5, 0.5, 0.5, 0.5], [-0.5, 0, 0.5, 63]]


def samples(order: list[int] | None = None) -> Samples:
    """Three samples: the third, the first and the third stored ones, of units 5, 6 and 7."""
    rows, labels = np.array([2, 0, 2]), np.array([5, 6, 7])
    return Samples(STORED, rows, labels, 1.0, 2.0, 0.5, None if order is None else np.array(order))


def test_samples_are_standardised_when_they_are_taken() -> None:
    before = STORED.copy()
    x, y = samples().take(np.array([1, 2, 1]))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.tolist() == [STANDARDISED[0], STANDARDISED[2], STANDARDISED[0]]
    assert y.tolist() == [6, 7, 6]
    np.testing.assert_array_equal(STORED, before)
    assert len(samples()) == 3


def test_a_slice_takes_its_samples() -> None:
    x, y = samples().take(slice(0, 2))
    assert x.tolist() == [STANDARDISED[2], STANDARDISED[0]]
    assert y.tolist() == [5, 6]
    x, y = samples().take(slice(3, 5))
    assert (x.shape, y.shape) == ((0, 4), (0,))


def test_feature_k_is_the_stored_feature_order_k() -> None:
    x, _ = samples(order=[3, 0, 1, 2]).take(slice(1, 2))
    assert x.tolist() == [[3, 0, 1, 2]]


def test_floats_are_left_alone_as_they_are_stored() -> None:
    stored = np.array([[0.25, 4.0]], np.float32)
    x, _ = Samples(stored, np.array([0]), np.array([0]), mean=1.0, std=2.0).take(slice(None))
    assert x.tolist() == [[-0.375, 1.5]]
    assert stored.tolist() == [[0.25, 4.0]]


def test_each_feature_may_have_its_own_numbers_as_it_is_stored() -> None:
    mean, std = np.array([1, 2, 3, 4], np.float32), np.array([1, 2, 4, np.inf], np.float32)
    for order, expected in ((None, [[1, 2, 1.75, 0]]), (np.array([3, 0, 1, 2]), [[0, 1, 2, 1.75]])):
        x, _ = Samples(STORED, np.array([0]), np.array([0]), mean, std, 1.0, order).take(slice(None))
        assert x.tolist() == expected


def sequence(scenario: Scenario, *outputs: tuple[int, ...], n_outputs: int) -> TaskSequence:
    tasks = tuple(Task(index, "", units, units, samples(), samples()) for index, units in enumerate(outputs))
    return TaskSequence("", scenario, tasks, 4, n_outputs, {})


def test_classes_compete_with_all_that_were_learned() -> None:
    by_class = sequence("class", (8, 1), (0, 5), (2, 3), n_outputs=9)
    assert len(by_class) == 3
    assert by_class.competing(0, after=0) == (1, 8)
    assert by_class.competing(0, after=1) == by_class.competing(1, after=1) == (0, 1, 5, 8)
    assert by_class.competing(1, after=2) == (0, 1, 2, 3, 5, 8)


def test_classes_compete_within_a_given_task() -> None:
    by_task = sequence("task", (4, 1), (0, 5), n_outputs=6)
    assert [by_task.competing(task, after) for task, after in [(0, 0), (0, 1), (1, 1)]] == [(4, 1), (4, 1), (0, 5)]


def test_all_units_compete_in_all_domains() -> None:
    by_domain = sequence("domain", (0, 1), (0, 1), n_outputs=2)
    assert [by_domain.competing(task, after) for task, after in [(0, 0), (1, 1)]] == [(0, 1), (0, 1)]


def test_a_batch_knows_its_task() -> None:
    batch = Batch.of(3, samples(), np.array([0, 1]))
    assert len(batch) == 2
    assert batch.x.tolist() == [STANDARDISED[2], STANDARDISED[0]]
    assert (batch.y.tolist(), batch.task.tolist(), batch.task.dtype) == ([5, 6], [3, 3], torch.int64)
    assert (batch.index.tolist(), batch.index.dtype) == ([0, 1], torch.int64)


def test_batches_are_joined_in_order_and_picked_from() -> None:
    one, two = Batch.of(0, samples(), slice(0, 1)), Batch.of(2, samples(), slice(1, 3))
    assert Batch.joined([one]) is one
    joined = Batch.joined([two, one])
    assert joined.x.tolist() == [STANDARDISED[0], STANDARDISED[2], STANDARDISED[2]]
    assert (joined.y.tolist(), joined.task.tolist(), joined.index.tolist()) == ([6, 7, 5], [2, 2, 0], [1, 2, 0])
    for places in (torch.tensor([2, 0]), torch.tensor([True, False, True])):
        picked = joined[places]
        assert sorted(zip(picked.y.tolist(), picked.task.tolist(), strict=True)) == [(5, 0), (6, 2)]
    assert (joined[torch.tensor([2, 0])].y.tolist(), joined[torch.tensor([2, 0])].index.tolist()) == ([5, 6], [0, 1])
    assert len(joined[torch.tensor([], dtype=torch.int64)]) == 0


def test_a_sequence_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        sequence("domain", (0,), n_outputs=1).n_outputs = 2  # type: ignore[misc]
