"""An autoencoder of sparse layers, for scikit-learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sparserl.continual.supervised.objectives import RECONSTRUCT
from sparserl.continual.supervised.task_learner import SAMPLES_AT_A_TIME
from sparserl.estimators.network import Floats, array_of_width, tensor
from sparserl.estimators.perceptron import PerceptronEstimator, unlabelled
from sparserl.layers.linear import linear
from sparserl.ranges import NotNegative


@dataclass(eq=False, repr=False)
class SparseAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, PerceptronEstimator):  # type: ignore[misc]
    """A multilayer perceptron of sparse layers that reconstructs its samples; what its narrowest hidden layer says of
    them are new features.

    It learns by squared error as `sparserl fit --task reconstruct`. Features are taken as they are: put a
    `StandardScaler` before it.

    Attributes:
        network_: The trained network: that of the best epoch with `early_stopping`, otherwise of the last one.
        n_iter_: Passes through the samples.
        loss_curve_: Mean squared error of each pass.
        validation_scores_: Minus that of the samples held out, after each pass; with `early_stopping` only.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, _ = load_iris(return_X_y=True)
        >>> SparseAutoencoder((8, 2, 8), max_iter=2, random_state=0).fit_transform(x).shape
        (150, 2)
    """

    noise: NotNegative = dataclasses.field(default=0.0, kw_only=True)
    """Standard deviation of normal noise that each step adds to features, in [0, inf); they are reconstructed without
    it."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains a new network.

        Args:
            X: (N, F) samples.
            y: Nothing is made of it.

        Raises:
            ConfigError: If a parameter or the data is not valid.
            NotFiniteError: If the loss becomes NaN or infinite.
        """
        own = self._checked()
        X = self._samples(X)
        self._train(own._learner(unlabelled(X), RECONSTRUCT, noise=own.noise))
        return self

    def transform(self, X: Any) -> Floats:
        """(N, narrowest) activations of the narrowest hidden layer, of the type of `X`.

        Args:
            X: (N, F) samples.
        """
        check_is_fitted(self)
        X = self._samples(X, reset=False)
        return self._through(X, 0, self._code + 1)

    def inverse_transform(self, X: Any) -> Floats:
        """(N, F) samples of which `transform` would have given this, as far as the network has learned to tell.

        Args:
            X: (N, narrowest) activations.
        """
        check_is_fitted(self)
        return self._through(array_of_width(X, self._n_features_out), self._code + 1, len(self.network_))

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error of the reconstruction of samples.

        Args:
            X: (N, F) samples.
            y: Nothing is made of it.
        """
        check_is_fitted(self)
        X = self._samples(X, reset=False)
        return -float(np.square(X - self.inverse_transform(self.transform(X))).mean())

    @property
    def _widths(self) -> list[int]:
        """Outputs of each layer."""
        return [linear(layer).shape[0] for layer in self.network_]

    @property
    def _code(self) -> int:
        """Which layer ends in the narrowest hidden one; the first of equals."""
        return int(np.argmin(self._widths[:-1]))

    @property
    def _n_features_out(self) -> int:
        return self._widths[self._code]

    @torch.no_grad()
    def _through(self, X: Floats, first: int, end: int) -> Floats:
        """Through some of the layers, and what follows each."""
        parts = []
        with self.network_.in_use():
            for x in torch.split(tensor(X), SAMPLES_AT_A_TIME):
                for layer, function in list(zip(self.network_, self.network_.functions, strict=True))[first:end]:
                    x = function(layer(x))
                parts.append(x)
        return torch.cat(parts).numpy().astype(X.dtype)
