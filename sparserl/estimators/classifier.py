"""A classifier on a sparse multilayer perceptron, for scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner import SAMPLES_AT_A_TIME
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.estimators.network import Floats, NetworkEstimator, classes_in, passes
from sparserl.ranges import Count, InnerShare, NotNegative, ShareBelowOne


@dataclass(eq=False, repr=False)
class SparseMLPClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
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

    hidden_layer_sizes: tuple[Count, ...] = (100,)
    """Neurons of each hidden layer."""
    solver: Literal["sgd", "adam", "rmsprop", "adagrad"] = "adam"
    """Optimizer."""
    momentum: ShareBelowOne = 0.0
    """Momentum of sgd and rmsprop, in [0, 1)."""
    nesterovs_momentum: bool = False
    """Whether the momentum of sgd is Nesterov's."""
    weight_decay: NotNegative = 0.0
    """L2 weight decay, in [0, inf): this times the weight is added to its gradient."""
    early_stopping: bool = False
    """Whether samples are held out, training ends when their accuracy no longer grows, and the best network stays."""
    validation_fraction: InnerShare = 0.1
    """Share of the samples that is held out then, each class alike, in (0, 1)."""
    n_iter_no_change: Count = 10
    """Passes without a better accuracy on them after which training ends."""

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
        learner = own._learner(X.astype(np.float32), labels, tuple(map(str, self.classes_)))
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []
        for loss in passes(learner):
            self.loss_curve_.append(loss)
            if learner.score is not None:
                self.validation_scores_.append(learner.score.merit)
        if learner.best is not None:
            learner.network.load_state_dict(learner.best.network)
        self.network_, self.n_iter_ = learner.network, learner.epoch
        return self

    def _learner(self, x: Floats, labels: Any, classes: tuple[str, ...]) -> FitLearner:
        """What learns the samples."""
        seed = self._seed()
        config = FitLearnerConfig(
            hidden=self.hidden_layer_sizes,
            optimizer=self.solver,
            learning_rate=self.learning_rate_init,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            weight_decay=self.weight_decay,
            epochs=self.max_iter,
            batch_size=self.batch_size,
            patience=self.n_iter_no_change if self.early_stopping else None,
        )
        sequence = table_sequence(
            Table("X", x, labels, classes),
            scaling="none",
            test_share=0.0,
            validation_share=self.validation_fraction if self.early_stopping else 0.0,
            seed=seed,
        )
        return FitLearner(sequence, config, self._topology(), seed=seed)

    @torch.no_grad()
    def predict_proba(self, X: Any) -> Floats:
        """(N, C) float32 probability of each class.

        Args:
            X: (N, F) samples.
        """
        check_is_fitted(self)
        x = torch.from_numpy(self._samples(X, reset=False).astype(np.float32))
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
