"""What `sparserl fit` can learn of a table."""

from __future__ import annotations

from dataclasses import dataclass

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.objectives import CLASSIFY, RECONSTRUCT, Objective
from sparserl.continual.supervised.rbm import RBMLearner


@dataclass(frozen=True)
class FitTask:
    """Something that can be learned of a table.

    Attributes:
        learner: What learns it.
        objective: What it is trained for.
        has_output_layer: Whether outputs follow the hidden layers.
    """

    learner: type[FitLearner]
    objective: Objective
    has_output_layer: bool = True


FIT_TASKS: dict[str, FitTask] = {
    "classify": FitTask(FitLearner, CLASSIFY),
    "reconstruct": FitTask(FitLearner, RECONSTRUCT),
    "rbm": FitTask(RBMLearner, RECONSTRUCT, has_output_layer=False),
}
"""By the name that `--task` takes."""
