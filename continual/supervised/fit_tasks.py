"""What `sparserl fit` can learn of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.objectives import CLASSIFY, RECONSTRUCT, Objective
from sparserl.continual.supervised.rbm import RBMLearner
from sparserl.continual.supervised.variational import VariationalLearner


@dataclass(frozen=True)
class FitTask:
    """Something that can be learned of a table.

    Attributes:
        learner: What learns it.
        objective: What it is trained for.
        has_output_layer: Whether outputs follow the hidden layers.
        regularized: What learns it instead, by the name of a regularizer.
    """

    learner: type[FitLearner]
    objective: Objective
    has_output_layer: bool = True
    regularized: Mapping[str, type[FitLearner]] = field(default_factory=dict)

    def learner_with(self, regularizer: str) -> type[FitLearner]:
        """What learns it with a regularizer, or with none."""
        return self.regularized.get(regularizer, self.learner)


FIT_TASKS: dict[str, FitTask] = {
    "classify": FitTask(FitLearner, CLASSIFY, regularized={"variational_dropout": VariationalLearner}),
    "reconstruct": FitTask(FitLearner, RECONSTRUCT),
    "rbm": FitTask(RBMLearner, RECONSTRUCT, has_output_layer=False),
}
"""By the name that `--task` takes."""
