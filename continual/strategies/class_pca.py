"""Principal components of each class: the class answers that a sample is closest to, as its components tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sparserl.continual.learner import Kind
from sparserl.continual.shared.plane import ClassSums, Plane
from sparserl.continual.strategies.class_planes import ClassPlanes
from sparserl.continual.strategies.closed_form import Floats
from sparserl.continual.strategies.options import Options
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


class ClassPCA(ClassPlanes):
    """A plane for each class, through its mean along its principal components: a linear autoencoder, solved exactly.

    With `inputs` or `connections` it is sparse: a class chooses which features its components read, or which feature
    each of them reads.
    """

    options: ClassPCAOptions

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

    def _plane(self, unit: int, sums: ClassSums) -> Plane:
        del unit
        own = self.options
        return Plane.of_sums(
            sums,
            components=own.components,
            inputs=own.inputs,
            connections=own.connections,
            has_variances=own.score == "likelihood",
        )

    def _score(self, plane: Plane, x: Floats) -> Floats:
        return plane.log_likelihood(x) if self.options.score == "likelihood" else super()._score(plane, x)
