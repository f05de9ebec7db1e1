"""Means of classes and one covariance: distances that can be compared between tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparserl.continual.shared.plane import ClassSums
from sparserl.continual.shared.task_statistics import ComparedTasks, TaskStatistics
from sparserl.errors import ConfigError

RNG = np.random.default_rng(0)


def sums_of(x: np.ndarray, y: np.ndarray) -> dict[int, ClassSums]:
    sums = {unit: ClassSums.none(x.shape[1]) for unit in np.unique(y).tolist()}
    for unit, of_class in sums.items():
        of_class.add(x[y == unit])
    return sums


def test_with_all_directions_it_is_the_mahalanobis_distance_a_feature() -> None:
    x, y = RNG.normal(size=(90, 5)) @ RNG.normal(size=(5, 5)), np.repeat([3, 7, 8], 30)
    x[:, 2] = 4.0  # never varies, so nobody reads it
    statistics = TaskStatistics.of_sums(sums_of(x, y), rank=9)
    means = np.stack([x[y == unit].mean(axis=0) for unit in (3, 7, 8)])
    centred = np.delete(x - np.repeat(means, 30, axis=0), 2, axis=1)
    inverse = np.linalg.inv(centred.T @ centred / 90)
    new = RNG.normal(size=(6, 5))
    for unit, mean in enumerate(means):
        apart = np.delete(new - mean, 2, axis=1)
        expected = (apart @ inverse * apart).sum(axis=1) / 4
        np.testing.assert_allclose(statistics.distances(new)[:, unit], expected, rtol=1e-8)
    assert statistics.kept["units"].tolist() == [3, 7, 8]
    # Of the samples themselves it is 1, whatever their scale.
    own = statistics.distances(x)[np.arange(90), np.repeat([0, 1, 2], 30)]
    assert own.mean() == pytest.approx(1.0)


def test_directions_that_are_not_kept_share_their_mean_variance() -> None:
    x = RNG.normal(size=(4000, 4)) * [5.0, 1.0, 2.0, 3.0]
    x -= x.mean(axis=0)
    statistics = TaskStatistics.of_sums(sums_of(x, np.zeros(4000, np.int64)), rank=1)
    variances = np.linalg.eigvalsh(x.T @ x / 4000)
    np.testing.assert_allclose(statistics.kept["variances"], [variances[3], variances[:3].mean()], rtol=1e-8)
    along = statistics.kept["components"][0]
    expected = (along**2 / variances[3] + (1.0 - along**2) / variances[:3].mean()) / 4
    np.testing.assert_allclose(statistics.distances(np.eye(4))[:, 0], expected, rtol=1e-6)


def test_tasks_of_other_scales_are_compared_by_what_is_usual_in_each() -> None:
    """A sample that is 2 deviations from one task and 6 from the other, whose features are a hundred times as large."""
    small, large = RNG.normal(size=(500, 3)), 100.0 * RNG.normal(size=(500, 6))
    compared = ComparedTasks(rank=2)
    compared.add([(torch.from_numpy(small[:200]), torch.zeros(200)), (torch.from_numpy(small[200:]), torch.zeros(300))])
    compared.add([(torch.from_numpy(large), torch.ones(500))])
    scores = compared.scores([torch.full((1, 3), 6.0), torch.full((1, 6), 200.0)], n_outputs=4)
    assert scores.argmax().item() == 1
    np.testing.assert_allclose(scores[0, :2], [-36.0, -4.0], rtol=0.3)
    assert scores[0, 2:].tolist() == [-np.inf] * 2
    again = ComparedTasks(rank=2)
    again.load_state(compared.state())
    new = [torch.ones(5, 3), torch.ones(5, 6)]
    assert torch.equal(again.scores(new, 4), compared.scores(new, 4))


def test_features_that_never_vary_say_nothing() -> None:
    x, y = np.ones((10, 4)), np.repeat([0, 1], 5)
    x[:, 0] = RNG.normal(size=10)
    with pytest.raises(ConfigError, match=r"1 neurons vary .* use logits"):
        TaskStatistics.of_sums(sums_of(x, y), rank=2)
