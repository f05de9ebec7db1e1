"""Sparse autoencoders of classes: what least squares finds, where connections go, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.tasks import blobs

from sparserl.continual.shared.plane import Plane
from sparserl.continual.shared.sparse_autoencoder import SparseAutoencoder
from sparserl.continual.strategies.class_autoencoder import ClassAutoencoder, ClassAutoencoderOptions
from sparserl.continual.supervised.closed_form_learner import ClosedFormLearner
from sparserl.continual.supervised.runner import run_sequence
from sparserl.errors import ConfigError
from sparserl.topology.block_scores import gradient_score
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import SparseTopology

STAYS = RewireRule(drop_fraction=0.0)


def samples(n: int = 400, seed: int = 0) -> np.ndarray:
    """Eight features: two directions of variance in the first four, noise in the others but the last, which is 0."""
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.normal(size=(n, 8))
    x[:, :4] += rng.normal(size=(n, 2)) @ np.array([[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    x[:, 7] = 0.0
    return x - x.mean(axis=0)


def covariance_of(x: np.ndarray) -> np.ndarray:
    return x.T @ x / len(x)


def error(autoencoder: SparseAutoencoder, x: np.ndarray) -> float:
    """Mean squared error, by least squares on each sample."""
    codes = np.linalg.lstsq(autoencoder.matrix.T, x.T, rcond=None)[0]
    return float(np.square(x.T - autoencoder.matrix.T @ codes).sum(axis=0).mean())


def begun(x: np.ndarray, components: int, connections: int, seed: int = 0) -> SparseAutoencoder:
    rng = np.random.default_rng(seed)
    topology = random_topology(components, x.shape[1], connections, rng)
    return SparseAutoencoder.at_random(covariance_of(x), topology, rng)


def test_with_all_connections_it_spans_the_principal_components() -> None:
    x = np.random.default_rng(1).normal(size=(300, 6)) * [4.0, 3.0, 1.0, 0.3, 0.2, 0.1]
    learned = begun(x, 2, 12).fitted(covariance_of(x), STAYS, 200, np.random.default_rng(0))
    vectors = np.linalg.eigh(covariance_of(x))[1][:, -2:]
    basis = Plane.of_kept({"mean": np.zeros(6), "values": learned.values, "places": learned.topology.flat}, 2).basis
    np.testing.assert_allclose(basis.T @ basis, vectors @ vectors.T, atol=1e-6)


def test_one_pass_by_hand() -> None:
    """One component that reads features 0 and 1 of three: codes (x0 + x1) / 2, then weights E[x z] / E[z z]."""
    covariance = np.array([[3.0, 1.0, 5.0], [1.0, 1.0, 0.0], [5.0, 0.0, 9.0]])
    first = SparseAutoencoder(SparseTopology(1, 3, np.array([0, 1])), np.array([1.0, 1.0]))
    after = first.fitted(covariance, STAYS, 1, np.random.default_rng(0))
    with_code, variance = np.array([2.0, 1.0]), 1.5
    np.testing.assert_allclose(after.values, with_code / variance * np.sqrt(variance), rtol=1e-5)


def test_passes_never_make_it_worse_and_end_where_no_weight_can_make_it_better() -> None:
    x = samples()
    one, errors = begun(x, 3, 12), []
    for _ in range(40):
        errors.append(error(one, x))
        one = one.fitted(covariance_of(x), STAYS, 1, np.random.default_rng(0))
    assert (np.diff(errors) < 1e-6).all()
    assert errors[-1] < 0.95 * errors[0]
    one = one.fitted(covariance_of(x), STAYS, 2000, np.random.default_rng(0))
    for slot in range(one.values.size):
        for change in (-1e-3, 1e-3):
            values = one.values.copy()
            values[slot] += change
            assert error(SparseAutoencoder(one.topology, values), x) > error(one, x) - 1e-7


def test_growth_sees_the_gradient_of_half_the_squared_error() -> None:
    x = samples()
    after, view = begun(x, 3, 9)._pass(covariance_of(x))
    # The codes that the pass went by, scaled as the weights are: of variance 1.
    weights = begun(x, 3, 9).matrix
    codes = np.linalg.lstsq(weights.T, x.T, rcond=None)[0]
    codes /= np.sqrt(np.square(codes).mean(axis=1, keepdims=True))

    def half(matrix: np.ndarray) -> float:
        return float(0.5 * np.square(x.T - matrix.T @ codes).sum(axis=0).mean())

    found = gradient_score(view)(np.arange(3), np.arange(8))
    for row in range(3):
        for feature in range(8):
            step = np.zeros((3, 8))
            step[row, feature] = 1e-4
            slope = (half(after.matrix + step) - half(after.matrix - step)) / 2e-4
            assert found[row, feature] == pytest.approx(abs(slope), rel=1e-3, abs=1e-4)


def test_connections_go_where_samples_vary() -> None:
    x = samples()
    rule = RewireRule("weight_magnitude", "gradient", drop_fraction=0.3, update_interval=2, last_update=80)
    errors = []
    for seed in range(6):  # they end in a minimum that depends on where they begin
        first = begun(x, 2, 6, seed)
        moved = first.fitted(covariance_of(x), rule, 100, np.random.default_rng(seed))
        stayed = first.fitted(covariance_of(x), STAYS, 100, np.random.default_rng(seed))
        assert moved.topology.nnz == 6
        assert 7 not in moved.topology.inputs
        errors.append((error(moved, x), error(stayed, x)))
        assert errors[-1][0] < errors[-1][1]
    of_moved, of_stayed = np.transpose(errors)
    assert np.median(of_moved) < 0.1  # the noise of four features
    assert np.median(of_stayed) > 2.0  # a whole direction


def test_a_class_without_variance_is_its_mean() -> None:
    for initial in ("components", "random"):
        options = ClassAutoencoderOptions(2, 10, passes=10, initial_topology=initial)  # type: ignore[arg-type]
        strategy = ClassAutoencoder(options)
        strategy.start(blobs(), 0)
        strategy.learn(np.ones((5, 8)), np.zeros(5, np.int64))
        strategy.end()
        assert strategy.scores(np.full((1, 8), 3.0))[0, 0] == pytest.approx(-8 * 4.0)


@pytest.mark.parametrize("initial", ["components", "random"])
def test_what_is_drawn_comes_from_the_seed(initial: Any) -> None:
    def kept(seed: int) -> dict[str, Any]:
        options = ClassAutoencoderOptions(3, 12, passes=10, grow="random", initial_topology=initial)
        learner = ClosedFormLearner(blobs(), ClassAutoencoder(options), seed=seed)
        for _ in run_sequence(learner):
            pass
        assert learner.numbers_kept() == 6 * (8 + 2 * 12)
        state: dict[str, Any] = learner.strategy.state_dict()["learned"]["4"]
        return state

    assert (kept(0)["places"] == kept(0)["places"]).all()
    assert (kept(0)["values"] == kept(0)["values"]).all()
    assert (kept(0)["places"] != kept(1)["places"]).any()


def test_connections_that_would_never_move_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"passes 4 are too few for an event every 4 .*use at least 5, or .*0$"):
        ClassAutoencoderOptions(passes=4, update_interval=4)
    ClassAutoencoderOptions(passes=5, update_interval=4)
    ClassAutoencoderOptions(passes=1, drop_fraction=0.0)
