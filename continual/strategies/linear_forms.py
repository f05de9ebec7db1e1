"""Methods that answer by a linear function of features, solved from sums over all samples: exact, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import solve

from sparserl.continual.learner import Kind
from sparserl.continual.shared.expansion import Expansion, drawn_inputs
from sparserl.continual.strategies.closed_form import (
    ClosedForm,
    Floats,
    Scores,
    Symmetric,
    Units,
    add_to_classes,
    class_sums,
    means_of,
)
from sparserl.continual.strategies.options import Options
from sparserl.ranges import Count, Positive, PositiveShare
from sparserl.seeding import stream


@dataclass(frozen=True)
class StreamingLDAOptions(Options):
    """How the covariance is made invertible.

    Raises:
        ConfigError: If a value is out of range.
    """

    shrinkage: PositiveShare = 1e-4
    """Share of the identity in the covariance, in (0, 1]."""

    group: ClassVar[str] = "streaming_lda"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"shrinkage": 1e-4}}


class StreamingLDA(ClosedForm):
    """Linear discriminant analysis: means of classes, and one covariance within all of them.

    Source:
        Hayes and Kanan 2020 (SLDA). There each sample moves the covariance by its distance from the mean of its class
        so far, so that the order of samples matters a little; here the covariance is that of all samples.
    """

    options: StreamingLDAOptions

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        del seed
        return {
            "gram": Symmetric(n_features),
            "sums": np.zeros((n_outputs, n_features)),
            "counts": np.zeros(n_outputs, np.int64),
        }

    def learn(self, x: Floats, y: Units) -> None:
        self.arrays["gram"].matrix += x.T @ x
        class_sums(x, y, self.arrays["sums"], self.arrays["counts"])

    def answer(self) -> Scores:
        sums, counts = self.arrays["sums"], self.arrays["counts"]
        means = means_of(sums, counts)
        covariance = (self.arrays["gram"].matrix - means.T @ sums) / max(counts.sum(), 1)
        shrinkage = self.options.shrinkage
        covariance = (1.0 - shrinkage) * covariance + shrinkage * np.eye(len(covariance))
        weights = _solved(covariance, means.T)
        offsets = np.where(counts > 0, 0.5 * (means.T * weights).sum(axis=0), np.inf)
        return lambda x: x @ weights - offsets

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        return super().bytes_of(n_features, n_outputs) + 16.0 * n_features**2


@dataclass(frozen=True)
class RidgeOptions(Options):
    """The penalty.

    Raises:
        ConfigError: If a value is out of range.
    """

    penalty: Positive = 1.0
    """Of the squared weights, against the sum of squared errors, > 0."""

    group: ClassVar[str] = "ridge"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"penalty": 1.0}}


class Ridge(ClosedForm):
    """Ridge regression from features, and 1, to outputs that are 1 for the class of a sample and else 0."""

    options: RidgeOptions | RandomFeaturesOptions

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        del seed
        width = len(self._read(np.zeros((1, n_features)))[0])
        return {"gram": Symmetric(width), "products": np.zeros((width, n_outputs))}

    def _read(self, x: Floats) -> Floats:
        """(B, width) what is regressed on."""
        return np.hstack([x, np.ones((len(x), 1))])

    def learn(self, x: Floats, y: Units) -> None:
        read = self._read(x)
        self.arrays["gram"].matrix += read.T @ read
        add_to_classes(self.arrays["products"].T, read, y)

    def answer(self) -> Scores:
        gram = self.arrays["gram"].matrix
        weights = _solved(gram + self.options.penalty * np.eye(len(gram)), self.arrays["products"])
        return lambda x: self._read(x) @ weights

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        return super().bytes_of(n_features, n_outputs) + 16.0 * n_features**2


@dataclass(frozen=True)
class RandomFeaturesOptions(Options):
    """The features.

    Raises:
        ConfigError: If a value is out of range.
    """

    units: Count = 380
    """Random features."""
    inputs: Count = 50
    """Features of a sample that each of them reads."""
    penalty: Positive = 1.0
    """As that of ridge."""

    group: ClassVar[str] = "random_features"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"units": 380, "inputs": 50, "penalty": 1.0}}


class RandomFeatures(Ridge):
    """Ridge regression from random features, of which each is a ReLU of a few inputs: a sparse layer never trained.

    Weights are standard normal, divided by the root of the number of inputs. There are no biases: standard normal ones
    cost accuracy on split MNIST (89.8 % with them, 90.7 % without).

    Source:
        Zhuang et al. 2022 (ACIL) and McDonnell et al. 2023 (RanPAC), which expand the features of trained networks
        densely.
    """

    options: RandomFeaturesOptions

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        own = self.options
        inputs = drawn_inputs(own.units, n_features, own.inputs, seed, own.group)
        weights = stream(seed, own.group, "weights").standard_normal(inputs.shape) / np.sqrt(own.inputs)
        self._expansion = Expansion(inputs, n_features, weights)
        return {"inputs": inputs, "weights": weights, **super()._zeros(n_features, n_outputs, seed)}

    def _read(self, x: Floats) -> Floats:
        return np.maximum(self._expansion(x), 0.0)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._expansion = Expansion(self.arrays["inputs"], self._expansion.n_features, self.arrays["weights"])

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        own = self.options
        return super().bytes_of(own.units, n_outputs) + 24.0 * own.units * own.inputs


def _solved(matrix: Floats, right: Floats) -> Floats:
    """The solution of a symmetric positive definite system."""
    solution: Floats = solve(matrix, right, assume_a="pos")
    return solution
