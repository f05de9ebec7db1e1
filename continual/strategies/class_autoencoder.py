"""A sparse autoencoder for each class, whose connections move while it is fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sparserl.continual.learner import Kind
from sparserl.continual.shared.plane import ClassSums, Plane
from sparserl.continual.shared.sparse_autoencoder import SparseAutoencoder
from sparserl.continual.strategies.class_planes import ClassPlanes
from sparserl.continual.strategies.options import Options
from sparserl.errors import ConfigError
from sparserl.ranges import Count, ShareBelowOne
from sparserl.seeding import stream
from sparserl.topology.rewire import RewireRule, random_topology

END = 0.8
"""Share of the passes after which connections stay."""


@dataclass(frozen=True)
class ClassAutoencoderOptions(Options):
    """The autoencoder of a class, and how its connections move.

    Raises:
        ConfigError: If a value is out of range, or connections would never move.
    """

    components: Count = 20
    """Neurons of the autoencoder of a class."""
    connections: Count = 2500
    """Between its features and neurons, with their places."""
    passes: Count = 100
    """Of least squares over all its weights."""
    update_interval: Count = 2
    """Passes between events in which connections move, in the first four fifths of the passes."""
    drop_fraction: ShareBelowOne = 0.3
    """Share of the connections that move at an event, along a cosine to 0, in [0, 1); 0: none moves."""
    grow: Literal["gradient", "random"] = "gradient"
    """Where connections grow."""
    initial_topology: Literal["components", "random"] = "components"
    """components: the largest weights of the exact autoencoder, which has all connections."""

    group: ClassVar[str] = "class_autoencoder"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {
            "components": 20,
            "connections": 2500,
            "passes": 100,
            "update_interval": 2,
            "drop_fraction": 0.3,
            "grow": "gradient",
            "initial_topology": "components",
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_fraction > 0.0 and self.update_interval > self.last_event:
            raise ConfigError(
                f"--class-autoencoder.passes {self.passes} are too few for an event every {self.update_interval} in "
                f"their first four fifths: use at least {math.ceil(self.update_interval / END)}, or "
                "--class-autoencoder.drop-fraction 0"
            )

    @property
    def last_event(self) -> int:
        """The last pass at which connections may move."""
        return int(END * self.passes)

    @property
    def rule(self) -> RewireRule:
        """How they move; its updates are passes."""
        return RewireRule(
            "weight_magnitude",
            self.grow,
            drop_fraction=self.drop_fraction,
            decay="cosine",
            update_interval=self.update_interval,
            first_update=self.update_interval,
            last_update=max(self.last_event, self.update_interval),
        )


class ClassAutoencoder(ClassPlanes):
    """A sparse linear autoencoder for each class; the class answers whose autoencoder leaves least of a sample.

    It is fitted by alternating least squares when the task ends, with the drop and growth of RigL (or SET) between
    passes: the topology decides which features count for a class. While that goes on, the sums of squares of the
    classes of the task are there, and arrays of (components, features); what is kept of a class are its mean and its
    connections.

    Source:
        Ours; the rule is that of Evci et al. 2020 (RigL), growth at random that of Mocanu et al. 2018 (SET).
    """

    options: ClassAutoencoderOptions

    def _check_sizes(self, n_features: int) -> None:
        own = self.options
        if own.components >= n_features:
            raise ConfigError(
                f"--class-autoencoder.components {own.components} must be below the {n_features} features"
            )
        if not own.components <= own.connections <= own.components * n_features:
            raise ConfigError(
                f"--class-autoencoder.connections {own.connections} must be in [{own.components}, "
                f"{own.components * n_features}]: {own.components} components of {n_features} features"
            )

    def _plane(self, unit: int, sums: ClassSums) -> Plane:
        own, rng = self.options, stream(self._seed, self.options.group, str(unit))
        covariance = sums.covariance
        if own.initial_topology == "random":
            topology = random_topology(own.components, len(covariance), own.connections, rng)
            first = SparseAutoencoder.at_random(covariance, topology, rng)
        else:
            first = SparseAutoencoder.of_components(covariance, own.components, own.connections)
        learned = first.fitted(covariance, own.rule, own.passes, rng)
        kept = {"mean": sums.mean, "values": learned.values, "places": learned.topology.flat}
        return Plane.of_kept(kept, own.components)
