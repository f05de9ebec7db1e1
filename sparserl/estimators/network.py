"""What estimators on a sparse network have in common: their parameters and how these are checked.

An estimator is a dataclass: its fields are scikit-learn's parameters, each with its range and its description. As
scikit-learn wants it, they are stored as they come and checked in `fit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from sparserl.config import build
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.tasks import Integers
from sparserl.errors import ConfigError, NotFiniteError, shown
from sparserl.ranges import PositiveShare, check_ranges
from sparserl.topology.config import TopologyConfig
from sparserl.topology.methods import METHODS

Floats = npt.NDArray[np.floating]
FLOATS = (np.float64, np.float32)
"""What samples may be; networks compute with float32."""
OF_PARAMETERS = ("method", "density")
"""Fields of a topology that are parameters of their own."""


@dataclass(eq=False, repr=False, kw_only=True)
class Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """Base of the estimators; fitted attributes end in an underscore."""

    random_state: Any = None
    """Seed, generator, or None for NumPy's global one: of weights, connections, batches and splits."""

    def _checked(self) -> Self:
        """The same with parameters of the types that their annotations say.

        Raises:
            ConfigError: If one is of another type or out of range.
        """
        given = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        checked = build(type(self), given)
        check_ranges(checked, "", hyphens=False)
        return checked

    def _seed(self) -> int:
        """A root seed."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _samples(self, x: Any, **options: Any) -> Any:
        """Samples as an array, and labels if there are any, after scikit-learn has looked at them."""
        return validate_data(self, x, dtype=FLOATS, **options)


@dataclass(eq=False, repr=False, kw_only=True)
class NetworkEstimator(Estimator):
    """Base of those that are one network."""

    method: str = "set"
    """Named topology, of `sparserl list methods`."""
    density: PositiveShare | tuple[PositiveShare, ...] | None = None
    """Share of connections that exist, in (0, 1]: one for all layers, or one for each. Half of them if None, or as
    `epsilon` in `topology` says."""
    topology: Any = None
    """Further fields of a `TopologyConfig`, as a mapping; layers are all sparse unless it says otherwise."""

    def _topology(self) -> TopologyConfig:
        """The topology that the parameters say.

        Raises:
            ConfigError: If they contradict each other.
        """
        given = {} if self.topology is None else self.topology
        if not isinstance(given, Mapping):
            raise ConfigError(f"topology must be a mapping of fields of a TopologyConfig, got {shown(given)}")
        for name in OF_PARAMETERS:
            if name in given:
                raise ConfigError(f"{name} is a parameter of its own; leave {shown(given[name])} out of topology")
        if self.density is not None and (given.get("epsilon") is not None or _is_dense(self.method)):
            without = "method='dense'" if _is_dense(self.method) else f"epsilon {shown(given['epsilon'])} in topology"
            raise ConfigError(f"density {shown(self.density)} has no effect beside {without}; set density=None")
        own = {} if _is_dense(self.method) else {"output_layer": "sparse"}
        return TopologyConfig.coerce({**own, **given, "method": self.method, "density": self.density})


def _is_dense(method: str) -> bool:
    return method in METHODS and METHODS[method].dense


def _plain(value: Any) -> Any:
    """Without NumPy's types, which a search over parameters gives."""
    return value.item() if isinstance(value, np.generic) else value


def tensor(x: Floats) -> torch.Tensor:
    """Samples as a network takes them."""
    return torch.from_numpy(x.astype(np.float32))


def array_of_width(x: Any, width: int) -> Any:
    """Something to transform back as an array, after scikit-learn has looked at it.

    Raises:
        ConfigError: If it has not `width` columns.
    """
    x = check_array(x, dtype=FLOATS)
    if x.shape[1] != width:
        raise ConfigError(f"X must have {width} columns, as transform gives, got {x.shape[1]}")
    return x


def classes_in(y: Any) -> tuple[Any, Integers]:
    """(C,) labels, sorted, and (N,) the place of each sample's among them.

    Raises:
        ValueError: If labels are no classes.
        ConfigError: If there is a single class.
    """
    check_classification_targets(y)
    classes, places = np.unique(y, return_inverse=True)
    if classes.size == 1:
        raise ConfigError(f"y has 1 class, {shown(classes[0])}; there must be at least two")
    return classes, places.astype(np.int64)


def passes(learner: SupervisedLearner) -> Iterator[float]:
    """Trains a learner; yields the mean loss of the steps of each pass through the samples, after it.

    Raises:
        NotFiniteError: If the loss becomes NaN or infinite.
    """
    total = 0.0
    for step in learner.train():
        for loss in step.losses.values():
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss became {loss}", learner.steps)
            total += loss
        if step.batch + 1 == step.batches:
            yield total / step.batches
            total = 0.0
