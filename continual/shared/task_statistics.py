"""Statistics of what a task's network makes of its samples, by which classes of different tasks can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch

from sparserl.continual.shared.plane import ClassSums, Floats, Plane, add_by_class
from sparserl.errors import ConfigError


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """A mean of each class, and one covariance within all of them: some directions, and one variance in all others.

    Attributes:
        kept: Arrays by name: `units` (C,) output units of the classes; `read` (k,) features that vary; `means` (C, k);
            `components` (r, k) orthonormal; `variances` (r + 1,) along each of them and in any other direction.
    """

    kept: Mapping[str, Any]

    @classmethod
    def of_sums(cls, sums: Mapping[int, ClassSums], rank: int) -> TaskStatistics:
        """Those of samples, of which sums say all.

        Args:
            sums: Of the features of each class, by output unit.
            rank: r, or one less than there are features that vary.

        Raises:
            ConfigError: If fewer than two features vary.
        """
        count = sum(of_class.count for of_class in sums.values())
        means = np.array([of_class.mean for of_class in sums.values()])
        grams = (one.gram - one.count * np.outer(mean, mean) for one, mean in zip(sums.values(), means, strict=True))
        within: Floats = reduce(np.add, grams)
        variances = np.diag(within)
        read = np.flatnonzero(variances > 1e-9 * variances.max(initial=0.0))
        if read.size < 2:
            raise ConfigError(f"{read.size} neurons vary within classes of a task, and statistics need two: use logits")
        around_means = ClassSums(within[np.ix_(read, read)], np.zeros(read.size), count)
        plane = Plane.of_sums(around_means, components=min(rank, read.size - 1), has_variances=True)
        kept = {name: plane.kept[name] for name in ("components", "variances")}
        return cls({"units": np.array([*sums]), "read": read, "means": means[:, read], **kept})

    def distances(self, features: Floats) -> Floats:
        """(B, C) squared distances of (B, n) features from each mean: in deviations, the mean over features.

        So those of tasks with other features and other covariances can be compared: of samples of the task they are
        about 1.
        """
        read, means = self.kept["read"], self.kept["means"]
        plane = Plane.of_kept({**self.kept, "mean": np.zeros(read.size)}, len(self.kept["components"]))
        distances = [plane.squared_deviations(features[:, read] - mean) / read.size for mean in means]
        return np.stack(distances, axis=1)


class ComparedTasks:
    """Statistics of the tasks learned so far, by which classes of all of them are ranked.

    Args:
        rank: Of `TaskStatistics`.

    Attributes:
        tasks: Of each task.
    """

    def __init__(self, rank: int):
        self.rank, self.tasks = rank, list[TaskStatistics]()

    def add(self, parts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """The next task, by (B, n) features of its samples and (B,) output units, some at a time.

        Raises:
            ConfigError: As `TaskStatistics.of_sums`.
        """
        sums: dict[int, ClassSums] = {}
        for features, units in parts:
            add_by_class(sums, features.numpy().astype(np.float64), units.numpy())
        self.tasks.append(TaskStatistics.of_sums(sums, self.rank))

    def scores(self, features: Sequence[torch.Tensor], n_outputs: int) -> torch.Tensor:
        """(B, n_outputs) how near samples are to each class; -inf for classes of no task.

        Args:
            features: (B, n) of the same samples, by the network of each task.
            n_outputs: Outputs.
        """
        scores = torch.full((len(features[0]), n_outputs), -math.inf)
        for of_task, read in zip(self.tasks, features, strict=True):
            distances = of_task.distances(read.numpy().astype(np.float64))
            scores[:, of_task.kept["units"]] = -torch.from_numpy(distances).to(scores.dtype)
        return scores

    def state(self) -> list[dict[str, Any]]:
        """What is kept of each task."""
        return [dict(of_task.kept) for of_task in self.tasks]

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Keeps what was kept."""
        self.tasks = [TaskStatistics({name: np.asarray(one) for name, one in kept.items()}) for kept in state]
