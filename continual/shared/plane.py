"""A plane through the mean of some samples along their principal components, of which few numbers may be kept.

All follows from sums over the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, svd

Floats = npt.NDArray[np.float64]
Units = npt.NDArray[np.int64]
DEPENDENT = 1e-6
"""Singular value, in those of the largest, up to which rows of components count as combinations of others."""


@dataclass(eq=False)
class ClassSums:
    """Of the samples of one class.

    Attributes:
        gram: (F, F) sum of their outer products.
        total: (F,) sum.
        count: Samples.
    """

    gram: Floats
    total: Floats
    count: int = 0

    @classmethod
    def none(cls, n_features: int) -> ClassSums:
        """Before the first sample."""
        return cls(np.zeros((n_features, n_features)), np.zeros(n_features))

    def add(self, x: Floats) -> None:
        """Adds (B, F) samples."""
        self.gram += x.T @ x
        self.total += x.sum(axis=0)
        self.count += len(x)

    @property
    def mean(self) -> Floats:
        """(F,) of the samples."""
        return self.total / self.count

    @property
    def covariance(self) -> Floats:
        """(F, F) of the samples."""
        covariance: Floats = self.gram / self.count - np.outer(self.mean, self.mean)
        return covariance


def add_by_class(sums: dict[int, ClassSums], x: Floats, y: Units) -> None:
    """Adds (B, F) samples to the sums of their classes (B,), which are made where a class has none yet."""
    for unit in np.unique(y).tolist():
        sums.setdefault(unit, ClassSums.none(x.shape[1])).add(x[y == unit])


@dataclass(frozen=True, eq=False)
class Plane:
    """What is kept of it, and what follows from that.

    Attributes:
        kept: Arrays by name: `mean` (k,); `components` (r, k), or of sparse ones `values` (m,) and `places` (m,) in the
            (r, k) matrix; `inputs` (k,) features that are read and `others` (1,) the one number for all other features,
            where not all are read; `variances` (r + 1,) along each component and, last, in any other direction.
        basis: (r, k) orthonormal rows that span the plane.
    """

    kept: Mapping[str, Any]
    basis: Floats

    @classmethod
    def of_sums(
        cls,
        sums: ClassSums,
        *,
        components: int,
        inputs: int | None = None,
        connections: int | None = None,
        has_variances: bool = False,
    ) -> Plane:
        """The plane of samples, of which sums say all.

        Args:
            sums: Of them.
            components: r, below F and `inputs`.
            inputs: k, features that are read; all if None.
            connections: m, entries of the components that are kept; all if None.
            has_variances: Whether `variances` are kept; not with `connections`.
        """
        mean, covariance = sums.mean, sums.covariance
        kept: dict[str, Any] = {}
        outside, directions = 0.0, len(mean) - components
        if inputs is not None:
            read, others = chosen_inputs(mean, np.diag(covariance), inputs)
            rest = np.delete(np.arange(len(mean)), read)
            outside = np.diag(covariance)[rest].sum() + np.square(mean[rest] - others).sum()
            kept = {"inputs": read, "others": np.array([others])}
            mean, covariance = mean[read], covariance[np.ix_(read, read)]
        variances, vectors = eigh(covariance, subset_by_index=(len(mean) - components, len(mean) - 1))
        kept["mean"] = mean
        if connections is None:
            kept["components"] = np.ascontiguousarray(vectors.T)
        else:
            real = variances > 1e-12 * variances[-1]  # fewer samples than components have fewer directions
            loadings = (vectors * np.sqrt(np.where(real, variances, 0.0))).T.ravel()
            places = largest_entries(loadings, connections)
            kept |= {"values": loadings[places], "places": places}
        if has_variances:
            outside += np.trace(covariance) - variances.sum()
            rest_variance = max(outside / directions, np.finfo(np.float64).tiny)
            kept["variances"] = np.array([*np.maximum(variances, rest_variance), rest_variance])
        return cls.of_kept(kept, components)

    @classmethod
    def of_kept(cls, kept: Mapping[str, Any], components: int) -> Plane:
        """The plane of what is kept of it."""
        if "components" in kept:
            return cls(kept, kept["components"])
        loadings = np.zeros((components, len(kept["mean"])))
        loadings.ravel()[kept["places"]] = kept["values"]
        loadings = loadings[loadings.any(axis=1)]
        if not len(loadings):
            return cls(kept, loadings)
        _, sizes, basis = svd(loadings, full_matrices=False)
        return cls(kept, basis[sizes > DEPENDENT * sizes[0]])

    def distances(self, x: Floats) -> tuple[Floats, Floats]:
        """(B, r) squares of (B, F) samples along the basis from the mean, and (B,) squared distances from the plane."""
        outside: Floats = np.zeros(len(x))
        if "inputs" in self.kept:
            apart = np.square(x - self.kept["others"])
            x, outside = x[:, self.kept["inputs"]], apart.sum(axis=1) - apart[:, self.kept["inputs"]].sum(axis=1)
        centred = x - self.kept["mean"]
        along = np.square(centred @ self.basis.T)
        return along, outside + np.square(centred).sum(axis=1) - along.sum(axis=1)

    def log_likelihood(self, x: Floats) -> Floats:
        """(B,) of a Gaussian with the variances of the plane, up to a constant.

        Source:
            Tipping and Bishop 1999, probabilistic principal components.
        """
        *inside, rest = self.kept["variances"]
        log_volume = np.log(inside).sum() + (x.shape[1] - len(inside)) * np.log(rest)
        likelihood: Floats = -0.5 * (self.squared_deviations(x) + log_volume)
        return likelihood

    def squared_deviations(self, x: Floats) -> Floats:
        """(B,) squared distances of (B, F) samples from the mean, each direction in the unit of its deviation."""
        along, outside = self.distances(x)
        *inside, rest = self.kept["variances"]
        deviations: Floats = outside / rest + (along / inside).sum(axis=1)
        return deviations


def largest_entries(weights: Floats, count: int) -> Units:
    """(count,) sorted places of the weights of largest magnitude; among equals the lower place first."""
    places: Units = np.sort(np.argsort(-np.abs(weights), kind="stable")[:count])
    return places


def chosen_inputs(mean: Floats, variance: Floats, count: int) -> tuple[Units, float]:
    """Features that are worth a mean of their own, and the mean of all others.

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
