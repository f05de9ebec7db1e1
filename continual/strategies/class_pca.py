"""Principal components of each class: the class answers that a sample is closest to, as its components tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from sparserl.continual.learner import Kind
from sparserl.continual.shared.plane import Plane
from sparserl.continual.strategies.closed_form import ClosedForm, Floats, Scores, Units, as_arrays, as_tensors
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
    connections: Count | None = None
    """Entries of the components of a class that are kept, the largest as samples vary along them, with their places.
    All by default."""
    score: Literal["reconstruction", "likelihood"] = "reconstruction"
    """reconstruction: how far a sample is from the plane of a class. likelihood: of a Gaussian with the variances of
    the components, and one for all other directions (probabilistic PCA), which are kept as well."""

    group: ClassVar[str] = "class_pca"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"components": 10, "inputs": None, "connections": None, "score": "reconstruction"}
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.connections is not None and self.score == "likelihood":
            raise ConfigError(
                f"--class-pca.connections {self.connections} leaves no variances of components: use "
                "--class-pca.score reconstruction"
            )


@dataclass(eq=False)
class _Sums:
    """Of the samples of one class, while its task is learned."""

    gram: Floats
    total: Floats
    count: int = 0


class ClassPCA(ClosedForm):
    """A plane for each class, through its mean along its principal components: a linear autoencoder, solved exactly.

    With `inputs` or `connections` it is sparse: a class chooses which features its components read, or which feature
    each of them reads. While a task is learned, the sums of squares of its classes are there as well; they go when it
    ends. Exact, whatever the order of samples and of tasks, as long as all samples of a class are in one task.
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
        self._check_sizes(sequence.n_features)
        self._present: dict[int, _Sums] = {}
        self._planes: dict[int, Plane] = {}
        self._n_outputs = sequence.n_outputs

    def _check_sizes(self, n_features: int) -> None:
        own = self.options
        if own.inputs is not None and own.inputs >= n_features:
            raise ConfigError(
                f"--class-pca.inputs {own.inputs} must be below the {n_features} features; leave it out to read all"
            )
        width, what = (n_features, "features") if own.inputs is None else (own.inputs, "--class-pca.inputs")
        if own.components >= width:
            raise ConfigError(f"--class-pca.components {own.components} must be below the {width} {what}")
        if own.connections is not None and not own.components <= own.connections < own.components * width:
            raise ConfigError(
                f"--class-pca.connections {own.connections} must be in [{own.components}, {own.components * width}): "
                f"{own.components} components of {width} {what}"
            )

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
        own = self.options
        for unit, sums in self._present.items():
            self._planes[unit] = Plane.of_sums(
                sums.gram,
                sums.total,
                sums.count,
                components=own.components,
                inputs=own.inputs,
                connections=own.connections,
                has_variances=own.score == "likelihood",
            )
        self._present = {}

    def answer(self) -> Scores:
        return self._scores

    def _scores(self, x: Floats) -> Floats:
        scores = np.full((len(x), self._n_outputs), -np.inf)
        for unit, plane in self._planes.items():
            scores[:, unit] = plane.log_likelihood(x) if self.options.score == "likelihood" else -plane.distances(x)[1]
        return scores

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        return 8.0 * n_features * (n_features * n_outputs + n_outputs * self.options.components)

    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": {str(unit): as_tensors(plane.kept) for unit, plane in self._planes.items()},
            "present": {str(unit): as_tensors(vars(one)) for unit, one in self._present.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._planes = {
            int(unit): Plane.of_kept(as_arrays(kept), self.options.components)
            for unit, kept in state["learned"].items()
        }
        self._present = {int(unit): _Sums(**as_arrays(sums)) for unit, sums in state["present"].items()}
