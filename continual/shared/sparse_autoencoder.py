"""A sparse linear autoencoder of some samples, of which sums say all: least squares, and connections that move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from sparserl.continual.shared.plane import Floats, largest_entries
from sparserl.topology.event_clock import next_due
from sparserl.topology.plan import plan_together
from sparserl.topology.rewire import RewireRule, remap
from sparserl.topology.structure import LayerView, SparseTopology

RIDGE = 1e-6
"""Of the mean square length of components, added where their products are inverted."""


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """x ~ W' z with codes z = (W W')^-1 W x, which are what fits a centred sample x best.

    Attributes:
        topology: Of W: r components, F features.
        values: (nnz,) its weights. After a pass, the codes that fitted it have variance 1, so weights of all components
            are in the unit of the features.
    """

    topology: SparseTopology
    values: Floats

    @classmethod
    def of_components(cls, covariance: Floats, components: int, connections: int) -> SparseAutoencoder:
        """The `connections` largest weights of the exact autoencoder, which has all.

        Args:
            covariance: (F, F) of the samples.
            components: r, at most F.
            connections: At most r F.
        """
        size = len(covariance)
        variances, vectors = eigh(covariance, subset_by_index=(size - components, size - 1))
        weights = (vectors * np.sqrt(np.maximum(variances, 0.0))).T.ravel()
        flat = largest_entries(weights, connections)
        return cls(SparseTopology(components, len(covariance), flat), weights[flat])

    @classmethod
    def at_random(cls, covariance: Floats, topology: SparseTopology, rng: np.random.Generator) -> SparseAutoencoder:
        """Normal weights of a given topology, with the standard deviation of the feature that each reads."""
        deviations = np.sqrt(np.maximum(np.diag(covariance), 0.0))[topology.inputs]
        return cls(topology, deviations * rng.standard_normal(topology.nnz))

    @property
    def matrix(self) -> Floats:
        """(r, F) W."""
        weights = np.zeros(self.topology.size)
        weights[self.topology.flat] = self.values
        return weights.reshape(self.topology.n_out, self.topology.n_in)

    def fitted(self, covariance: Floats, rule: RewireRule, passes: int, rng: np.random.Generator) -> SparseAutoencoder:
        """After passes of least squares, with connections dropped and grown between them as the rule says.

        A pass forms the codes of the weights as they are, and then the weights, a component at a time, that make the
        samples of these codes best.

        Args:
            covariance: (F, F) of the samples.
            rule: Its updates are passes; growth by gradient goes by that of half the mean squared error.
            passes: How many, >= 1.
            rng: Draws where growth is random.
        """
        fitted, due = self, rule.first_update
        for one in range(1, passes + 1):
            fitted, view = fitted._pass(covariance)
            if one == due and not rule.is_over(one) and rule.drop_fraction > 0.0:
                change = plan_together(rule, [view], one, [None], [None])[0].rewired(rule, rng)
                fitted, due = SparseAutoencoder(change.new, remap(fitted.values, change)), next_due(rule, one)
        return fitted

    def _pass(self, covariance: Floats) -> tuple[SparseAutoencoder, LayerView]:
        """After one pass, and what an event sees then."""
        weights = self.matrix
        products = weights @ weights.T
        ridge = RIDGE * np.trace(products) / len(products) or 1.0  # of no weights, whatever can be inverted
        codes = np.linalg.solve(products + ridge * np.eye(len(products)), weights)
        with_features = codes @ covariance
        with_codes = with_features @ codes.T
        variances = np.diag(with_codes)
        row_ptr, col = self.topology.rows
        for row in np.flatnonzero(variances > 0.0).tolist():
            read = col[row_ptr[row] : row_ptr[row + 1]]
            missing = with_features[row, read] - with_codes[row] @ weights[:, read]
            weights[row, read] += missing / variances[row]
        scales = np.sqrt(variances)
        values = (weights * scales[:, np.newaxis]).ravel()[self.topology.flat]
        # The gradient is the product of the pairs: what codes and features have in common, less what is made of it.
        inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales > 0.0)[:, np.newaxis]
        samples = ((covariance, inverse * codes), (weights.T, -inverse * with_codes))
        return SparseAutoencoder(self.topology, values), LayerView(self.topology, values, samples)
