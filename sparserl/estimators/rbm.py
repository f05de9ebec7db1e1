"""A sparse restricted Boltzmann machine, for scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.rbm import RBMLearner
from sparserl.continual.supervised.tables import table_sequence
from sparserl.continual.supervised.task_learner import SAMPLES_AT_A_TIME
from sparserl.estimators.network import Floats, NetworkEstimator, array_of_width, passes, tensor
from sparserl.estimators.perceptron import unlabelled
from sparserl.layers.linear import linear
from sparserl.ranges import Count, Positive, Repeats, ShareBelowOne


@dataclass(eq=False, repr=False, kw_only=True)
class SparseRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkEstimator):  # type: ignore[misc]
    """A Bernoulli restricted Boltzmann machine of which few connections exist (SET-RBM); hidden units are new features.

    It learns by contrastive divergence as `sparserl fit --task rbm`. Parameters are those of scikit-learn's
    `BernoulliRBM` where they mean the same.

    Attributes:
        network_: The trained layer from visible to hidden units; the biases of the visible ones are a parameter of it.
        n_iter_: Passes through the samples.
        loss_curve_: Mean squared error of the end of the chain, of each pass.
        low_: (F,) or a number, what is 0 as a visible unit.
        span_: (F,) or a number, how much above that is 1; infinite for a feature that was constant.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x, _ = load_digits(return_X_y=True)
        >>> SparseRBM(32, density=0.2, n_iter=2, random_state=0).fit_transform(x).shape
        (1797, 32)
    """

    n_components: Count = field(default=256, kw_only=False)
    """Hidden units."""
    learning_rate: Positive = 0.1
    """Learning rate."""
    batch_size: Count = 10
    """Samples a gradient step."""
    n_iter: Repeats = 10
    """Passes through the samples."""
    gibbs_steps: Repeats = 1
    """How often visible and hidden units are drawn anew before a gradient, k of CD-k."""
    constant_decay: ShareBelowOne = 0.0
    """Share of itself that each weight and bias loses at a step, in [0, 1)."""
    scaling: Literal["range", "none"] = "range"
    """Whether features are brought to [0, 1] by the smallest and largest value of each, or are there already."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains a new machine.

        Args:
            X: (N, F) samples, F >= 2.
            y: Nothing is made of it.

        Raises:
            ConfigError: If a parameter or the data is not valid.
            NotFiniteError: If the loss becomes NaN or infinite.
        """
        own = self._checked()
        X = self._samples(X, ensure_min_features=2)
        seed = own._seed()
        config = FitLearnerConfig(
            hidden=(own.n_components,),
            optimizer="sgd",
            learning_rate=own.learning_rate,
            constant_decay=own.constant_decay,
            epochs=own.n_iter,
            batch_size=own.batch_size,
            gibbs_steps=own.gibbs_steps,
        )
        samples = table_sequence(unlabelled(X), scaling=own.scaling, test_share=0.0, seed=seed)
        learner = RBMLearner(samples, config, own._topology(), seed=seed)
        train = learner.only_task.train
        self.low_, self.span_ = train.mean, train.std
        self.loss_curve_ = list(passes(learner))
        self.network_, self.n_iter_ = learner.network, learner.epoch
        return self

    @torch.no_grad()
    def transform(self, X: Any) -> Floats:
        """(N, n_components) probabilities of hidden units, of the type of `X`.

        Args:
            X: (N, F) samples.
        """
        check_is_fitted(self)
        X = self._samples(X, reset=False)
        visible = tensor((X - self.low_) / self.span_)
        hidden = torch.cat([self.network_(part) for part in torch.split(visible, SAMPLES_AT_A_TIME)])
        return hidden.numpy().astype(X.dtype)

    def inverse_transform(self, X: Any) -> Floats:
        """(N, F) samples that hidden units expect, as features came; one that was constant in training is so again.

        Args:
            X: (N, n_components) hidden units, or their probabilities.
        """
        check_is_fitted(self)
        X = array_of_width(X, self._n_features_out)
        (layer,) = self.network_
        visible = torch.zeros(len(X), self.n_features_in_, requires_grad=True)
        (into,) = torch.autograd.grad(layer(visible), visible, tensor(X))  # the layer is linear
        expected = torch.sigmoid(into + self.network_.get_parameter("visible_bias").detach()).numpy()
        span = np.where(np.isinf(self.span_), 0.0, self.span_)
        return (expected * span + self.low_).astype(X.dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error of what the machine makes of samples, as visible units, without draws.

        Args:
            X: (N, F) samples.
            y: Nothing is made of it.
        """
        difference = self.inverse_transform(self.transform(X)) - self._samples(X, reset=False)
        return -float(np.square(difference / self.span_).mean())

    @property
    def _n_features_out(self) -> int:
        return linear(self.network_[0]).shape[0]
