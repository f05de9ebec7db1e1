"""Principal components of each class: the class answers that a sample is closest to, as its components tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.linalg import eigh

from sparserl.continual.learner import Kind
from sparserl.continual.strategies.closed_form import ClosedForm, Floats, Units
from sparserl.continual.strategies.options import Options
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.errors import ConfigError
from sparserl.ranges import Count


@dataclass(frozen=True)
class ClassPCAOptions(Options):
    """What is kept of a class.

    Raises:
        ConfigError: If a value is out of range.
    """

    components: Count = 10
    """Of each class."""
    inputs: Count | None = None
    """Features that the components of a class read, and whose means are kept: those that one number, for all others of
    the class, would be furthest from. All by default."""
    score: Literal["reconstruction", "likelihood"] = "reconstruction"
    """reconstruction: how far a sample is from the plane of a class. likelihood: of a Gaussian with the
    variances of the components, and one for all other directions (probabilistic PCA), which are kept as well."""

    group: ClassVar[str] = "class_pca"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"components": 10, "inputs": None, "score": "reconstruction"}
    }


@dataclass(eq=False)
class _Sums:
    """Of the samples of one class, while its task is learned."""

    gram: Floats
    total: Floats
    count: int = 0


class ClassPCA(ClosedForm):
    """A plane for each class, through its mean along its principal components: a linear autoencoder, solved exactly.

    With `inputs` its connections are sparse: the class chooses which features its components read, and where nothing
    varies nothing is kept. While a task is learned, the sums of squares of its classes are there as well; they go when
    it ends. Exact, whatever the order of samples and of tasks, as long as all samples of a class are in one task.

    Source:
        Tipping and Bishop 1999 for the likelihood.
    """

    options: ClassPCAOptions

    def start(self, sequence: TaskSequence, seed: int) -> None:
        tasks_of = Counter(unit for task in sequence.tasks for unit in task.outputs)
        if max(tasks_of.values()) > 1:
            raise ConfigError(
                f"class_pca needs all samples of a class in one task, and tasks of {sequence.name}, "
                f"{sequence.scenario}-incremental, share outputs: use --method streaming_lda"
            )
        super().start(sequence, seed)
        read = self.options.inputs
        if read is not None and read >= sequence.n_features:
            raise ConfigError(
                f"--class-pca.inputs {read} must be below the {sequence.n_features} features; leave it out to read all"
            )
        width, what = (sequence.n_features, "features") if read is None else (read, "--class-pca.inputs")
        if self.options.components >= width:
            raise ConfigError(f"--class-pca.components {self.options.components} must be below the {width} {what}")
        self._present: dict[int, _Sums] = {}
        self._n_outputs = sequence.n_outputs

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        del n_features, n_outputs, seed
        return {}

    def learn(self, x: Floats, y: Units) -> None:
        for unit in np.unique(y).tolist():
            own = x[y == unit]
            sums = self._present.setdefault(unit, _Sums(np.zeros((x.shape[1],) * 2), np.zeros(x.shape[1])))
            sums.gram += own.T @ own
            sums.total += own.sum(axis=0)
            sums.count += len(own)

    def end(self) -> None:
        for unit, sums in self._present.items():
            mean = sums.total / sums.count
            covariance = sums.gram / sums.count - np.outer(mean, mean)
            n, r = len(mean), self.options.components
            if self.options.inputs is not None:
                read, others = chosen_inputs(mean, np.diag(covariance), self.options.inputs)
                self.arrays |= {f"{unit}.inputs": read, f"{unit}.others": np.array([others])}
                rest = np.delete(np.arange(n), read)
                outside = np.diag(covariance)[rest].sum() + np.square(mean[rest] - others).sum()
                mean, covariance = mean[read], covariance[np.ix_(read, read)]
            else:
                outside = 0.0
            variances, vectors = eigh(covariance, subset_by_index=(len(mean) - r, len(mean) - 1))
            self.arrays |= {f"{unit}.mean": mean, f"{unit}.components": np.ascontiguousarray(vectors.T)}
            if self.options.score == "likelihood":
                outside += np.trace(covariance) - variances.sum()
                rest_variance = max(outside / (n - r), np.finfo(np.float64).tiny)
                self.arrays[f"{unit}.variances"] = np.array([*np.maximum(variances, rest_variance), rest_variance])
        self._present = {}

    def scores(self, x: Floats) -> Floats:
        scores = np.full((len(x), self._n_outputs), -np.inf)
        for unit in range(self._n_outputs):
            if f"{unit}.mean" not in self.arrays:
                continue
            centred, outside = x, np.zeros(len(x))
            if self.options.inputs is not None:
                read = self.arrays[f"{unit}.inputs"]
                apart = np.square(x - self.arrays[f"{unit}.others"])
                centred, outside = x[:, read], apart.sum(axis=1) - apart[:, read].sum(axis=1)
            centred = centred - self.arrays[f"{unit}.mean"]
            along = np.square(centred @ self.arrays[f"{unit}.components"].T)
            outside += np.square(centred).sum(axis=1) - along.sum(axis=1)
            scores[:, unit] = -outside
            if self.options.score == "likelihood":
                *inside, rest = self.arrays[f"{unit}.variances"]
                log_volume = np.log(inside).sum() + (x.shape[1] - len(inside)) * np.log(rest)
                scores[:, unit] = -0.5 * (outside / rest + (along / inside).sum(axis=1) + log_volume)
        return scores

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        return 8.0 * n_features * (n_features * n_outputs + n_outputs * self.options.components)

    def state_dict(self) -> dict[str, Any]:
        present = {
            str(unit): {"gram": torch.from_numpy(one.gram), "total": torch.from_numpy(one.total), "count": one.count}
            for unit, one in self._present.items()
        }
        return {"learned": super().state_dict(), "present": present}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.arrays = {name: tensor.numpy().copy() for name, tensor in state["learned"].items()}
        self._present = {
            int(unit): _Sums(one["gram"].numpy().copy(), one["total"].numpy().copy(), one["count"])
            for unit, one in state["present"].items()
        }


def chosen_inputs(mean: Floats, variance: Floats, count: int) -> tuple[Units, float]:
    """Features of a class that are worth a mean of their own, and the mean of all others.

    Features are chosen by their mean squared distance from that number, which is the mean of those that are left, in
    turn until neither changes; it begins with the median.

    Args:
        mean: (F,) of each feature.
        variance: (F,).
        count: Features, below F.

    Returns:
        (count,) features, sorted, and the number.

    Example:
        >>> chosen_inputs(np.array([0.0, 5.0, 0.0, 0.2]), np.array([0.1, 0.0, 9.0, 0.0]), 2)
        (array([1, 2]), 0.1)
    """
    others = float(np.median(mean))
    for _ in range(100):
        order = np.argsort(-(variance + np.square(mean - others)), kind="stable")
        before, others = others, float(mean[order[count:]].mean())
        if others == before:
            break
    return np.sort(order[:count]), others
