"""A classifier on a sparse multilayer perceptron, for scikit-learn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted

from sparserl.continual.supervised.objectives import CLASSIFY
from sparserl.continual.supervised.task_learner import SAMPLES_AT_A_TIME
from sparserl.estimators.network import Floats, classes_in, tensor
from sparserl.estimators.perceptron import PerceptronEstimator, unlabelled


@dataclass(eq=False, repr=False)
class SparseMLPClassifier(ClassifierMixin, PerceptronEstimator):  # type: ignore[misc]
    """A multilayer perceptron of sparse layers, trained by cross-entropy, as `sparserl fit` trains it.

    Features are taken as they are: put a `StandardScaler` before it. Parameters are those of scikit-learn's
    `MLPClassifier` where they mean the same.

    Known differences from `MLPClassifier`: training takes all `max_iter` passes unless `early_stopping`; probabilities
    are float32.

    Attributes:
        classes_: (C,) the labels, sorted.
        network_: The trained network: that of the best epoch with `early_stopping`, otherwise of the last one.
        n_iter_: Passes through the samples.
        loss_curve_: Mean loss of each pass.
        validation_scores_: Accuracy on the samples held out, after each pass; with `early_stopping` only.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> clf = SparseMLPClassifier((32,), batch_size=16, max_iter=40, learning_rate_init=0.01, random_state=0)
        >>> bool(clf.fit(x, y).score(x, y) > 0.9)
        True
    """

    class_weight: Any = dataclasses.field(default=None, kw_only=True)
    """What a class weighs in the loss: a mapping from labels, `balanced` for all the same, None for as many samples as
    it has."""

    def fit(self, X: Any, y: Any) -> Self:
        """Trains a new network.

        Args:
            X: (N, F) samples.
            y: (N,) labels of any kind, at least two different ones.

        Raises:
            ConfigError: If a parameter or the data is not valid.
            NotFiniteError: If the loss becomes NaN or infinite.
        """
        own = self._checked()
        X, y = self._samples(X, y=y)
        self.classes_, labels = classes_in(y)
        table = dataclasses.replace(unlabelled(X), y=labels, classes=tuple(map(str, self.classes_)))
        learner = own._learner(table, CLASSIFY)
        if own.class_weight is not None:
            weights = compute_class_weight(own.class_weight, classes=self.classes_, y=y)
            learner.class_weights = torch.tensor(weights, dtype=torch.float32)
        self._train(learner)
        return self

    @torch.no_grad()
    def predict_proba(self, X: Any) -> Floats:
        """(N, C) float32 probability of each class.

        Args:
            X: (N, F) samples.
        """
        check_is_fitted(self)
        x = tensor(self._samples(X, reset=False))
        with self.network_.in_use():
            logits = torch.cat([self.network_(part) for part in torch.split(x, SAMPLES_AT_A_TIME)])
        return logits.softmax(dim=1).numpy()

    def predict(self, X: Any) -> Any:
        """(N,) the most probable label.

        Args:
            X: (N, F) samples.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
