"""What estimators on a multilayer perceptron have in common: its layers, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import Objective
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.estimators.network import NetworkEstimator, passes
from sparserl.ranges import Count, InnerShare, NotNegative, Positive, Repeats, ShareBelowOne


@dataclass(eq=False, repr=False, kw_only=True)
class PerceptronEstimator(NetworkEstimator):
    """Base of those whose network is trained by `FitLearner`; parameters as of scikit-learn's `MLPClassifier`."""

    hidden_layer_sizes: tuple[Count, ...] = field(default=(100,), kw_only=False)
    """Neurons of each hidden layer."""
    activation: Literal["relu", "tanh", "sigmoid", "all_relu", "k_winners"] = "relu"
    """What follows a hidden layer."""
    dropout: ShareBelowOne = 0.0
    """Share of hidden activations that are 0 in training, in [0, 1)."""
    solver: Literal["sgd", "adam", "rmsprop", "adagrad"] = "adam"
    """Optimizer."""
    learning_rate_init: Positive = 1e-3
    """Learning rate."""
    momentum: ShareBelowOne = 0.0
    """Momentum of sgd and rmsprop, in [0, 1)."""
    nesterovs_momentum: bool = False
    """Whether the momentum of sgd is Nesterov's."""
    weight_decay: NotNegative = 0.0
    """L2 weight decay, in [0, inf): this times the weight is added to its gradient."""
    batch_size: Count = 200
    """Samples a gradient step."""
    max_iter: Repeats = 200
    """Passes through the samples."""
    early_stopping: bool = False
    """Whether samples are held out, training ends when the network no longer becomes better on them, and the best one
    stays."""
    validation_fraction: InnerShare = 0.1
    """Share of the samples that is held out then, each class alike, in (0, 1)."""
    n_iter_no_change: Count = 10
    """Passes without a better network after which training ends."""

    def _learner(self, table: Table, objective: Objective, **more: Any) -> FitLearner:
        """What learns a table for an objective; `more` are further fields of its config."""
        seed = self._seed()
        config = FitLearnerConfig(
            hidden=self.hidden_layer_sizes,
            activation=self.activation,
            dropout=self.dropout,
            optimizer=self.solver,
            learning_rate=self.learning_rate_init,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            weight_decay=self.weight_decay,
            epochs=self.max_iter,
            batch_size=self.batch_size,
            patience=self.n_iter_no_change if self.early_stopping else None,
            **more,
        )
        held_out = self.validation_fraction if self.early_stopping else 0.0
        sequence = table_sequence(table, scaling="none", test_share=0.0, validation_share=held_out, seed=seed)
        return FitLearner(sequence, config, self._topology(), objective, seed=seed)

    def _train(self, learner: FitLearner) -> None:
        """Trains the network, and keeps it."""
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] = []
        for loss in passes(learner):
            self.loss_curve_.append(loss)
            if learner.score is not None:
                self.validation_scores_.append(learner.score.merit)
        if learner.best is not None:
            learner.network.load_state_dict(learner.best.network)
        self.network_, self.n_iter_ = learner.network, learner.epoch


def unlabelled(x: np.ndarray) -> Table:
    """Samples as a table."""
    return Table("X", x.astype(np.float32, copy=False), None)
