"""Feature selection by sparse networks, for scikit-learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted

from sparserl.continual.supervised.splits import Scaling
from sparserl.continual.supervised.tables import table_sequence
from sparserl.errors import ConfigError
from sparserl.estimators.feature_selection import SELECTIONS, Options, Selection
from sparserl.estimators.network import Estimator, classes_in
from sparserl.estimators.perceptron import unlabelled
from sparserl.ranges import Count, PositiveShare, Repeats, Share


@dataclass(eq=False, repr=False)
class SparseFeatureSelector(SelectorMixin, Estimator):  # type: ignore[misc]
    """Keeps the features that a sparse network, trained on all of them, finds most important.

    Attributes:
        feature_importances_: (F,) what each feature is worth; only their order means something.
        support_: (F,) which features are kept; of equals the first ones.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> kept = SparseFeatureSelector(2, method="attribution", epochs=20, random_state=0).fit_transform(x, y)
        >>> kept.shape
        (150, 2)
    """

    n_features: Count = 50
    """How many features are kept."""
    method: Literal["wast", "quickselection", "attribution"] = "wast"
    """How they are chosen: by what a denoising autoencoder fails to reconstruct, and its weights (WAST), by the weights
    of one (QuickSelection), or by attribution to the outputs of a classifier (SET-Attr)."""
    scaling: Scaling | None = None
    """What features are standardised by while the network learns: the mean and standard deviation of each feature, of
    all together, or none; as its source has it if None: of all together for wast, otherwise of each. Chosen features
    are given as they came."""
    epochs: Repeats | None = None
    """Passes through the samples; as its source has them if None: 10, 100, 200."""
    hidden_layer_sizes: tuple[Count, ...] | None = None
    """Neurons of each hidden layer; as its source has them if None: 200; 1000; 1000 and 100."""
    density: PositiveShare | None = None
    """Share of connections that exist, in (0, 1]; as its source has them if None: a fifth, or by factors."""
    error_share: Share | None = None
    """Of errors of reconstruction in what wast finds a feature worth, beside the strength of its neuron, in [0, 1];
    .9 if None. Its source has .4 for pictures and .01 or less for very wide tables."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains a network and ranks the features by it.

        Args:
            X: (N, F) samples.
            y: (N,) labels, at least two different ones, where the method needs them; otherwise nothing is made of them.

        Raises:
            ConfigError: If a parameter or the data is not valid.
            NotFiniteError: If the loss becomes NaN or infinite.
        """
        own = self._checked()
        selection = SELECTIONS[own.method]
        labels = None
        if selection.needs_labels:
            X, y = self._samples(X, y=y)
            labels = classes_in(y)
        else:
            X = self._samples(X)
        if own.n_features > X.shape[1]:
            raise ConfigError(f"n_features must be at most {X.shape[1]}, the features of X, got {own.n_features}")
        seed = own._seed()
        scaling = selection.scaling if own.scaling is None else own.scaling
        table = unlabelled(X)
        if labels is not None:
            table = dataclasses.replace(table, y=labels[1], classes=tuple(map(str, labels[0])))
        samples = table_sequence(table, scaling=scaling, test_share=0.0, seed=seed)
        self.feature_importances_ = selection.importances(samples, own._options(selection), seed)
        best = np.argsort(-self.feature_importances_, kind="stable")[: own.n_features]
        self.support_ = np.isin(np.arange(X.shape[1]), best)
        return self

    def _options(self, selection: Selection) -> Options:
        """What the selection is told.

        Raises:
            ConfigError: If it has no such option.
        """
        if self.error_share is not None and selection.usual.error_share is None:
            others = " or ".join(name for name, one in SELECTIONS.items() if one.usual.error_share is not None)
            raise ConfigError(f"error_share {self.error_share:g} is of {others}, and has no effect on {self.method}")
        given = {
            "hidden": self.hidden_layer_sizes,
            "epochs": self.epochs,
            "density": self.density,
            "error_share": self.error_share,
        }
        told: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(selection.usual, **told)

    def _get_support_mask(self) -> npt.NDArray[np.bool_]:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.method in SELECTIONS and SELECTIONS[self.method].needs_labels
        return tags
