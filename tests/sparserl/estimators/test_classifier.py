"""The classifier for scikit-learn is the learner of `sparserl fit`, and refuses what that cannot do."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError, NotFiniteError
from sparserl.estimators import SparseMLPClassifier
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig

X, Y = load_iris(return_X_y=True)
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (12, 8),
    "density": 0.25,
    "max_iter": 3,
    "learning_rate_init": 0.01,
    "random_state": 0,
}


def fitted(**changes: Any) -> SparseMLPClassifier:
    return SparseMLPClassifier(**{**SMALL, **changes}).fit(X, Y)


def test_it_trains_as_the_learner_does() -> None:
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    table = Table("X", X.astype(np.float32), Y, ("0", "1", "2"))
    sequence = table_sequence(table, scaling="none", test_share=0.0, seed=seed)
    config = FitLearnerConfig(hidden=(12, 8), learning_rate=0.01, epochs=3, batch_size=40)
    learner = FitLearner(sequence, config, TopologyConfig("set", 0.25, output_layer="sparse"), seed=seed)
    losses = [step.loss for step in learner.train()]
    own = fitted(batch_size=40)
    for name, tensor in learner.network.state_dict().items():
        np.testing.assert_array_equal(own.network_.state_dict()[name], tensor)
    np.testing.assert_allclose(own.loss_curve_, np.reshape(losses, (3, 4)).mean(axis=1))
    assert own.n_iter_ == 3


def test_connections_are_as_many_as_asked_for() -> None:
    assert [layer.nnz for layer in fitted(density=(0.5, 0.25, 0.5)).network_] == [24, 24, 12]
    dense = fitted(method="dense", density=None)
    assert not any(isinstance(layer, SparseLinear) for layer in dense.network_)
    by_epsilon = fitted(density=None, topology={"epsilon": (1, 1, 1)})
    assert [layer.nnz for layer in by_epsilon.network_] == [16, 20, 11]


def test_what_stands_between_layers_is_an_option() -> None:
    own = fitted(activation="k_winners", dropout=0.25)
    assert [type(function).__name__ for function in own.network_.functions[:2]] == ["Dropout", "Dropout"]
    np.testing.assert_array_equal(own.predict_proba(X), own.predict_proba(X))  # none is dropped in use
    assert not np.array_equal(own.predict_proba(X), fitted(activation="sigmoid").predict_proba(X))


def test_classes_weigh_what_is_said() -> None:
    rare = np.concatenate([np.arange(50), np.arange(50, 60)])
    x, y = X[rare], np.where(Y[rare] == 0, "often", "seldom")
    both = [
        SparseMLPClassifier(**SMALL, class_weight=weight).fit(x, y).predict_proba(x)
        for weight in ("balanced", {"often": 0.6, "seldom": 3.0}, None)
    ]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)
    assert both[0][:, 1].mean() > both[2][:, 1].mean()


def test_the_seed_decides_and_copies_say_the_same() -> None:
    one, same, other = fitted(), fitted(), fitted(random_state=1)
    np.testing.assert_array_equal(one.predict_proba(X), same.predict_proba(X))
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict_proba(X), one.predict_proba(X))
    assert clone(one).get_params() == one.get_params()


def test_early_stopping_keeps_the_best_network() -> None:
    own = fitted(early_stopping=True, validation_fraction=0.2, n_iter_no_change=2, max_iter=30)
    best = int(np.argmax(own.validation_scores_))
    assert own.n_iter_ == len(own.validation_scores_) == min(best + 3, 30)
    assert fitted(max_iter=3).validation_scores_ == []


def test_a_search_over_parameters_takes_it() -> None:
    pipeline = make_pipeline(StandardScaler(), SparseMLPClassifier(**SMALL))
    grid = {"sparsemlpclassifier__density": np.array([0.3, 0.6]), "sparsemlpclassifier__max_iter": np.array([2])}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert search.best_params_["sparsemlpclassifier__density"] in (0.3, 0.6)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"learning_rate_init": -1.0}, "learning_rate_init must be positive, got -1.0"),
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"hidden_layer_sizes": "wide"}, "hidden_layer_sizes must be"),
        ({"hidden_layer_sizes": ()}, "at least one layer"),
        ({"solver": "lbfgs"}, "unknown solver 'lbfgs'"),
        ({"method": "sett"}, "unknown topology method 'sett'; did you mean 'set'"),
        ({"topology": {"dropp": "sign_change"}}, "unknown topology key 'dropp'; did you mean 'drop'"),
        ({"topology": {"density": 0.1}}, "density is a parameter of its own; leave 0.1 out of topology"),
        ({"topology": 3}, "topology must be a mapping of fields of a TopologyConfig, got 3"),
        ({"topology": {"epsilon": (20,)}}, r"density 0.25 has no effect beside epsilon \(20,\)"),
        ({"method": "dense"}, "density 0.25 has no effect beside method='dense'; set density=None"),
        ({"early_stopping": True, "validation_fraction": 1.0}, r"validation_fraction must be in \(0, 1\), got 1.0"),
        ({"momentum": 0.9}, "learner.momentum 0.9 has no effect on adam"),
    ],
)
def test_what_cannot_be_met_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        fitted(**changes)


def test_a_loss_that_is_not_finite_ends_training() -> None:
    with pytest.raises(NotFiniteError, match=r"the loss became (nan|inf) at step"):
        fitted(solver="sgd", learning_rate_init=1e30)
