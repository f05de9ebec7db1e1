"""Methods without a network: what they answer, that order does not matter, and what they keep."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge as SklearnRidge
from support.tasks import N_FEATURES, blobs
from support.trees import assert_equal_trees

from sparserl.continual.shared.expansion import Expansion
from sparserl.continual.strategies import STRATEGIES, MethodOptions, make_strategy
from sparserl.continual.strategies.class_autoencoder import ClassAutoencoderOptions
from sparserl.continual.strategies.class_means import FlyCode, FlyCodeOptions, NearestMean, NearestMeanOptions
from sparserl.continual.strategies.class_pca import ClassPCA, ClassPCAOptions
from sparserl.continual.strategies.class_planes import ClassPlanes
from sparserl.continual.strategies.closed_form import ClosedForm, Symmetric
from sparserl.continual.strategies.linear_forms import (
    RandomFeatures,
    RandomFeaturesOptions,
    Ridge,
    RidgeOptions,
    StreamingLDA,
    StreamingLDAOptions,
)
from sparserl.continual.supervised import closed_form_learner
from sparserl.continual.supervised.closed_form_learner import ClosedFormLearner
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Samples, Scenario, Task, TaskSequence
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

OPTIONS = MethodOptions(
    class_pca=ClassPCAOptions(components=2),
    class_autoencoder=ClassAutoencoderOptions(components=2, connections=10, passes=10),
    random_features=RandomFeaturesOptions(units=20, inputs=3),
    fly_code=FlyCodeOptions(units=200, inputs=3, winners=0.1),
)
METHODS = [name for name, spec in STRATEGIES.items() if not spec.strategy.has_network]
CASES = [
    (name, scenario)
    for name in METHODS
    for scenario in get_args(Scenario)
    if scenario != "domain" or not issubclass(STRATEGIES[name].strategy, ClassPlanes)
]
RNG = np.random.default_rng(3)


def learner_of(name: str, scenario: Scenario = "class", seed: int = 0, **sequence: Any) -> ClosedFormLearner:
    strategy: Any = make_strategy(name, "classifier", OPTIONS)
    return ClosedFormLearner(dataclasses.replace(blobs(scenario), **sequence), strategy, seed=seed)


def one_task(x: np.ndarray, y: np.ndarray) -> TaskSequence:
    samples = Samples(x, np.arange(len(x)), y.astype(np.int64), mean=0.0, std=1.0)
    units = tuple(range(int(y.max()) + 1))
    task = Task(0, "all", units, units, samples, samples)
    return TaskSequence("made", "class", (task,), x.shape[1], len(units), {})


def learned(strategy: ClosedForm, x: np.ndarray, y: np.ndarray) -> ClosedForm:
    learner = ClosedFormLearner(one_task(x, y), strategy, seed=0)
    for _ in run_sequence(learner):
        pass
    return strategy


def kept_of(strategy: ClosedForm, unit: int) -> dict[str, np.ndarray]:
    return {name: one.numpy() for name, one in strategy.state_dict()["learned"][str(unit)].items()}


# All of them.


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_three_tasks_are_learned(name: str, scenario: Scenario) -> None:
    learner = learner_of(name, scenario)
    for _ in run_sequence(learner):
        pass
    least = 0.55 if scenario == "domain" else 0.85  # where tasks share outputs, a class is two blobs or three
    assert np.mean(learner.accuracies()) > least
    assert learner.steps == learner.total_steps == 3
    assert (
        learner.strategy.numbers_kept()
        == learner.numbers_kept()
        == sum(one.numel() for one in learner.weights().values())
    )


@pytest.mark.parametrize("name", METHODS)
def test_answers_are_by_all_samples_so_far(name: str) -> None:
    learner = learner_of(name)
    for task in range(3):
        list(learner.train())
        learner.accuracies()  # by what is known before the task ends
        learner.finish_task()
        again = learner_of(name)
        again.load_state_dict(learner.state_dict())
        assert learner.accuracies()[: task + 1] == again.accuracies()[: task + 1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_the_order_of_tasks_is_no_matter(name: str, order: list[int]) -> None:
    answers = []
    for tasks in ([0, 1, 2], order):
        learner = learner_of(name, tasks=tuple(blobs().tasks[task] for task in tasks))
        for _ in run_sequence(learner):
            pass
        x = np.concatenate([task.test.take(slice(None))[0].numpy() for task in blobs().tasks]).astype(np.float64)
        answers.append(learner.strategy.scores(x))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-8, atol=1e-9)
    assert (answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).all()


@pytest.mark.parametrize("name", METHODS)
def test_stopped_after_any_step_it_goes_on_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form_learner, "SAMPLES_A_STEP", 16)
    whole, states = learner_of(name), []
    for _ in run_sequence(whole):
        states.append(copy.deepcopy(whole.state_dict()))
    assert len(states) > 9
    for stop in (0, 2, len(states) // 2, len(states) - 2):
        checkpoint.save(tmp_path / str(stop), states[stop])
        resumed = learner_of(name)
        resumed.load_state_dict(checkpoint.load(tmp_path / str(stop)))
        assert_equal_trees(resumed.state_dict(), states[stop])
        for _ in run_sequence(resumed):
            pass
        assert_equal_trees(resumed.state_dict(), whole.state_dict())
        assert resumed.accuracies() == whole.accuracies()


# Each by itself.


def test_nearest_mean_by_hand() -> None:
    x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [0.0, 6.0]], np.float32)
    nearest = learned(NearestMean(NearestMeanOptions()), x, np.array([0, 0, 1, 1]))
    assert nearest.scores(np.array([[1.0, 2.4], [1.0, 2.7]])).argmax(axis=1).tolist() == [0, 1]  # even at (1, 2.6)
    assert nearest.numbers_kept() == 2 * 2 + 2
    scaled = learned(NearestMean(NearestMeanOptions(unit_norm=True)), x[1:], np.array([0, 1, 1]))
    assert scaled.scores(np.array([[3.0, 2.9], [0.3, 0.31]])).argmax(axis=1).tolist() == [0, 1]


def test_components_are_those_of_scikit_learn() -> None:
    x = (RNG.normal(size=(300, 6)) * [3, 2, 1, 0.5, 0.3, 0.2] @ RNG.normal(size=(6, 6))).astype(np.float32)
    y = np.repeat([0, 1, 2], 100)
    new = RNG.normal(size=(50, 6))
    planes = learned(ClassPCA(ClassPCAOptions(components=2)), x, y)
    likelihoods = learned(ClassPCA(ClassPCAOptions(components=2, score="likelihood")), x, y)
    for unit in range(3):
        pca = PCA(n_components=2, svd_solver="full").fit(x[y == unit].astype(np.float64))
        outside = np.square(new - pca.inverse_transform(pca.transform(new))).sum(axis=1)
        np.testing.assert_allclose(planes.scores(new)[:, unit], -outside, rtol=1e-6)
        # Variances there divide by the number of samples less one.
        covariance = 0.99 * pca.get_covariance()
        distance = ((new - pca.mean_) @ np.linalg.inv(covariance) * (new - pca.mean_)).sum(axis=1)
        expected = -0.5 * (distance + np.linalg.slogdet(covariance)[1])
        np.testing.assert_allclose(likelihoods.scores(new)[:, unit], expected, rtol=1e-6)
    assert planes.numbers_kept() == 3 * (6 + 2 * 6)
    assert likelihoods.numbers_kept() == 3 * (6 + 2 * 6 + 3)


def test_a_class_may_read_the_features_that_it_chooses_alone() -> None:
    # The last two are the same in all samples but for little.
    x = (RNG.normal(size=(200, 6)) * [3, 2, 1, 0.5, 0.01, 0.01] + [0, 1, 2, 3, -1, -1.02]).astype(np.float32)
    own = learned(ClassPCA(ClassPCAOptions(components=2, inputs=4)), x, np.repeat([0, 1], 100))
    new = RNG.normal(size=(50, 6))
    for unit, place in enumerate((slice(0, 100), slice(100, 200))):
        of_class = x[place].astype(np.float64)
        assert kept_of(own, unit)["inputs"].tolist() == [0, 1, 2, 3]
        assert kept_of(own, unit)["others"] == pytest.approx(of_class[:, 4:].mean())
        pca = PCA(n_components=2, svd_solver="full").fit(of_class[:, :4])
        outside = np.square(new[:, :4] - pca.inverse_transform(pca.transform(new[:, :4]))).sum(axis=1)
        outside += np.square(new[:, 4:] - of_class[:, 4:].mean()).sum(axis=1)
        np.testing.assert_allclose(own.scores(new)[:, unit], -outside, rtol=1e-6)
    assert own.numbers_kept() == 2 * (4 + 1 + 4 + 2 * 4)


def test_the_likelihood_of_chosen_features_is_that_of_a_gaussian() -> None:
    x = (RNG.normal(size=(300, 5)) @ RNG.normal(size=(5, 5))).astype(np.float32)
    own = learned(ClassPCA(ClassPCAOptions(components=1, inputs=3, score="likelihood")), x, np.repeat([0, 1], 150))
    new = RNG.normal(size=(20, 5))
    for unit in (0, 1):
        read, of_it = kept_of(own, unit)["inputs"], x[150 * unit : 150 * (unit + 1)].astype(np.float64)
        mean, direction = np.full(5, kept_of(own, unit)["others"][0]), np.zeros(5)
        mean[read] = of_it[:, read].mean(axis=0)
        direction[read] = kept_of(own, unit)["components"][0]
        centred = of_it - mean
        along = np.square(centred @ direction).mean()
        rest = (np.square(centred).sum(axis=1).mean() - along) / 4
        covariance = rest * np.eye(5) + (along - rest) * np.outer(direction, direction)
        distance = ((new - mean) @ np.linalg.inv(covariance) * (new - mean)).sum(axis=1)
        expected = -0.5 * (distance + np.linalg.slogdet(covariance)[1])
        np.testing.assert_allclose(own.scores(new)[:, unit], expected, rtol=1e-6)


def test_the_largest_entries_of_components_are_kept() -> None:
    x = (RNG.normal(size=(200, 7)) @ RNG.normal(size=(7, 7))).astype(np.float32)
    own = learned(ClassPCA(ClassPCAOptions(components=3, connections=12)), x, np.repeat([0, 1], 100))
    new = RNG.normal(size=(30, 7))
    for unit, place in enumerate((slice(0, 100), slice(100, 200))):
        pca = PCA(n_components=3, svd_solver="full").fit(x[place].astype(np.float64))
        loadings = pca.components_ * pca.singular_values_[:, np.newaxis]
        loadings[np.abs(loadings) < np.sort(np.abs(loadings).ravel())[-12]] = 0.0
        assert np.count_nonzero(loadings) == 12
        centred = new - pca.mean_
        # What least squares leaves of samples that the sparse components are to make.
        outside = np.square(centred.T - loadings.T @ np.linalg.lstsq(loadings.T, centred.T, rcond=None)[0]).sum(axis=0)
        np.testing.assert_allclose(own.scores(new)[:, unit], -outside, rtol=1e-6)
    assert own.numbers_kept() == 2 * (7 + 2 * 12)


def test_fewer_samples_than_components_are_a_plane_of_their_own() -> None:
    x = RNG.normal(size=(6, 9)).astype(np.float32)
    own = learned(ClassPCA(ClassPCAOptions(components=5, connections=44)), x, np.repeat([0, 1], 3))
    assert own.scores(x.astype(np.float64)).argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 1]


def test_lda_is_that_of_scikit_learn() -> None:
    y = np.repeat([0, 1, 2], 50)
    x = (RNG.normal(size=(150, 4)) + np.eye(4)[y]).astype(np.float32)
    new = RNG.normal(size=(40, 4))
    own = learned(StreamingLDA(StreamingLDAOptions(shrinkage=1e-12)), x, y)
    reference = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(x.astype(np.float64), y)
    expected = reference.decision_function(new)
    scores = own.scores(new)
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], atol=1e-6)
    assert own.numbers_kept() == 4 * 5 // 2 + 3 * 4 + 3


def test_ridge_is_that_of_scikit_learn() -> None:
    y = RNG.integers(3, size=80)
    x = RNG.normal(size=(80, 4)).astype(np.float32)
    new = RNG.normal(size=(40, 4))
    own = learned(Ridge(RidgeOptions(penalty=2.0)), x, y)
    with_one = np.hstack([x.astype(np.float64), np.ones((80, 1))])
    reference = SklearnRidge(alpha=2.0, fit_intercept=False).fit(with_one, np.eye(3)[y])
    np.testing.assert_allclose(own.scores(new), reference.predict(np.hstack([new, np.ones((40, 1))])), atol=1e-8)
    assert own.numbers_kept() == 5 * 6 // 2 + 5 * 3


def test_random_features_are_relus_of_few_inputs_and_ridge_on_them() -> None:
    y = RNG.integers(2, size=60)
    x = RNG.normal(size=(60, 10)).astype(np.float32)
    own = learned(RandomFeatures(RandomFeaturesOptions(units=7, inputs=3, penalty=0.5)), x, y)
    weights = np.zeros((7, 10))
    np.put_along_axis(weights, own.arrays["inputs"], own.arrays["weights"], axis=1)
    assert (np.count_nonzero(weights, axis=1) == 3).all()
    hidden = np.maximum(x.astype(np.float64) @ weights.T, 0.0)
    reference = SklearnRidge(alpha=0.5, fit_intercept=False, solver="cholesky").fit(hidden, np.eye(2)[y])
    np.testing.assert_allclose(own.scores(x.astype(np.float64)), reference.predict(hidden), atol=1e-8)
    assert own.numbers_kept() == 2 * 7 * 3 + 7 * 8 // 2 + 7 * 2


def test_a_code_has_its_winners_alone() -> None:
    options = FlyCodeOptions(units=40, inputs=2, winners=0.1)
    y = np.repeat([0, 1], 5)
    x = RNG.normal(size=(10, 60)).astype(np.float32)
    own = learned(FlyCode(options), x, y)
    centred = x.astype(np.float64) - x.mean(axis=1, keepdims=True, dtype=np.float64)
    sums = centred[:, own.arrays["inputs"]].sum(axis=2)
    codes = np.zeros((10, 40))
    np.put_along_axis(codes, np.argsort(-sums, axis=1)[:, :4], 0.5, axis=1)  # of length 1
    np.testing.assert_allclose(own.arrays["sums"], [codes[:5].sum(axis=0), codes[5:].sum(axis=0)], atol=1e-12)
    assert own.numbers_kept() == 40 * 2 + 2 * 40 + 2


def test_an_expansion_is_a_sparse_product() -> None:
    inputs = np.array([[0, 2], [1, 3], [0, 3]])
    x = RNG.normal(size=(5, 4))
    np.testing.assert_allclose(Expansion(inputs, 4)(x), x[:, inputs].sum(axis=2), atol=1e-12)
    weights = RNG.normal(size=inputs.shape)
    np.testing.assert_allclose(Expansion(inputs, 4, weights)(x), (x[:, inputs] * weights).sum(axis=2), atol=1e-12)


def test_a_triangle_says_the_whole_matrix() -> None:
    matrix = Symmetric(3)
    matrix.matrix += np.arange(9).reshape(3, 3) + np.arange(9).reshape(3, 3).T
    again = Symmetric.of(matrix.triangle(), 3)
    assert matrix.triangle().size == 6
    np.testing.assert_array_equal(again.matrix, matrix.matrix)


# What cannot be.


@pytest.mark.parametrize("name", ["class_pca", "class_autoencoder"])
def test_a_class_in_two_tasks_has_no_plane(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} needs all samples of a class in one task.*streaming_lda"):
        learner_of(name, "domain")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (MethodOptions(class_pca=ClassPCAOptions(components=N_FEATURES)), "--class-pca.components 8 must be below"),
        (MethodOptions(class_pca=ClassPCAOptions(inputs=N_FEATURES)), "--class-pca.inputs 8 must be below"),
        (
            MethodOptions(class_pca=ClassPCAOptions(inputs=3, components=3)),
            "--class-pca.components 3 must be below the 3",
        ),
        (
            MethodOptions(class_pca=ClassPCAOptions(2, connections=16)),
            r"--class-pca.connections 16 must be in \[2, 16\)",
        ),
        (
            MethodOptions(class_autoencoder=ClassAutoencoderOptions(components=N_FEATURES)),
            "--class-autoencoder.components 8 must be below the 8",
        ),
        (
            MethodOptions(class_autoencoder=ClassAutoencoderOptions(components=2, connections=17)),
            r"--class-autoencoder.connections 17 must be in \[2, 16\]",
        ),
        (MethodOptions(random_features=RandomFeaturesOptions(inputs=9)), "--random-features.inputs 9 .* at most 8"),
        (MethodOptions(fly_code=FlyCodeOptions(inputs=9)), "--fly-code.inputs 9 .* at most 8"),
    ],
)
def test_no_more_is_read_than_there_is(options: MethodOptions, said: str) -> None:
    group = said.removeprefix("--").partition(".")[0].replace("-", "_")
    strategy: Any = make_strategy(group, "classifier", options)
    with pytest.raises(ConfigError, match=said):
        ClosedFormLearner(blobs(), strategy, seed=0)


def test_sparse_components_have_no_variances() -> None:
    with pytest.raises(ConfigError, match=r"--class-pca.connections 5 leaves no variances .*score reconstruction"):
        ClassPCAOptions(connections=5, score="likelihood")


def test_what_is_drawn_comes_from_the_seed() -> None:
    first, again, other = (learner_of("random_features", seed=seed).strategy.arrays for seed in (0, 0, 1))
    assert_equal_trees({"w": torch.from_numpy(first["weights"])}, {"w": torch.from_numpy(again["weights"])})
    assert not np.array_equal(first["inputs"], other["inputs"])
