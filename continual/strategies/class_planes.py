"""Methods that keep a plane for each class: the class answers that a sample is closest to."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparserl.continual.shared.plane import ClassSums, Plane, add_by_class
from sparserl.continual.strategies.closed_form import ClosedForm, Floats, Scores, Units, as_arrays, as_tensors
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.errors import ConfigError


class ClassPlanes(ClosedForm):
    """A plane for each class, through its mean.

    While a task is learned, the sums of squares of its classes are there as well; they go when it ends. Exact, whatever
    the order of samples and of tasks, as long as all samples of a class are in one task.
    """

    options: Any

    def start(self, sequence: TaskSequence, seed: int) -> None:
        tasks_of = Counter(unit for task in sequence.tasks for unit in task.outputs)
        if max(tasks_of.values()) > 1:
            raise ConfigError(
                f"{self.options.group} needs all samples of a class in one task, and tasks of {sequence.name}, "
                f"{sequence.scenario}-incremental, share outputs: use --method streaming_lda"
            )
        super().start(sequence, seed)
        self._check_sizes(sequence.n_features)
        self._seed, self._n_outputs = seed, sequence.n_outputs
        self._present: dict[int, ClassSums] = {}
        self._planes: dict[int, Plane] = {}

    @abstractmethod
    def _check_sizes(self, n_features: int) -> None:
        """Raises ConfigError if the options ask for more than there is."""

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        del n_features, n_outputs, seed
        return {}

    def learn(self, x: Floats, y: Units) -> None:
        add_by_class(self._present, x, y)

    def end(self) -> None:
        self._planes |= {unit: self._plane(unit, sums) for unit, sums in self._present.items()}
        self._present = {}

    @abstractmethod
    def _plane(self, unit: int, sums: ClassSums) -> Plane:
        """The plane of a class, of all its samples."""

    def answer(self) -> Scores:
        return self._scores

    def _scores(self, x: Floats) -> Floats:
        scores = np.full((len(x), self._n_outputs), -np.inf)
        for unit, plane in self._planes.items():
            scores[:, unit] = self._score(plane, x)
        return scores

    def _score(self, plane: Plane, x: Floats) -> Floats:
        """(B,) of (B, F) samples: how well they fit a plane."""
        return -plane.distances(x)[1]

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        components: int = self.options.components
        return 8.0 * n_features * n_outputs * (n_features + components)

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
        self._present = {int(unit): ClassSums(**as_arrays(sums)) for unit, sums in state["present"].items()}
