"""What networks are trained for, and autoencoders that are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.fits import CONFIG, SPARSE, table

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.objectives import CLASSIFY, RECONSTRUCT, Objective, Score
from sparserl.continual.supervised.tables import table_sequence
from sparserl.continual.supervised.tasks import Batch
from sparserl.topology.config import TopologyConfig

DRAWS = np.random.default_rng(0)


def batch(rows: int = 5, features: int = 6, classes: int = 3) -> Batch:
    x = torch.from_numpy(DRAWS.standard_normal((rows, features)))
    y = torch.from_numpy(DRAWS.integers(0, classes, rows))
    return Batch(x, y, torch.zeros_like(y), torch.arange(len(y)))


def learner(objective: Objective = RECONSTRUCT, topology: TopologyConfig = SPARSE, **changes: Any) -> FitLearner:
    sequence = table_sequence(table(), validation_share=0.2, seed=0)
    return FitLearner(sequence, dataclasses.replace(CONFIG, **changes), topology, objective, seed=0)


@pytest.mark.parametrize(("objective", "outputs"), [(CLASSIFY, 3), (RECONSTRUCT, 6)])
@pytest.mark.parametrize("weighted", [False, True])
def test_by_hand_as_by_autograd(objective: Objective, outputs: int, weighted: bool) -> None:
    one = batch()
    given = torch.from_numpy(DRAWS.standard_normal((5, outputs))).requires_grad_()
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64) if weighted else None
    loss = objective.loss(given, one, weights)
    loss.backward()
    by_hand, gradient = objective.by_hand(
        given.detach().numpy().copy(), one, None if weights is None else weights.numpy()
    )
    assert by_hand == pytest.approx(loss.item())
    np.testing.assert_allclose(gradient, given.grad)  # type: ignore[arg-type]


def test_an_error_worked_by_hand() -> None:
    given = Batch(torch.tensor([[1.0, 0.0], [2.0, 2.0]]), *(torch.tensor([0, 0]) for _ in range(3)))
    outputs = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert RECONSTRUCT.loss(outputs, given, None).item() == 1.25
    assert RECONSTRUCT.score(0, RECONSTRUCT.summed(outputs, given), 2) == Score(None, 1.25)


def test_the_better_score_has_more_merit() -> None:
    assert Score(0.9, 5.0).merit > Score(0.8, 0.1).merit
    assert Score(None, 0.1).merit > Score(None, 0.2).merit


def test_an_autoencoder_has_an_output_for_each_feature_and_learns_them() -> None:
    fit = learner(epochs=20)
    assert fit.network[-1].n_out == 6
    task = fit.only_task
    before = fit.evaluate(task.test)
    x, _ = task.test.take(slice(None))
    with torch.no_grad():
        assert before.loss == pytest.approx(float((fit.network(x) - x).square().mean()), rel=1e-5)
    for _ in fit.train():
        pass
    assert fit.evaluate(task.test).loss < 0.7 * before.loss
    assert fit.best is not None
    assert fit.score is not None
    assert (fit.score.accuracy, fit.best.score.loss <= fit.score.loss) == (None, True)


def test_a_step_goes_down_the_error_of_the_sample_without_noise() -> None:
    fit = learner(noise=0.5)
    given = fit._batch(np.arange(16))
    loss = fit._form_gradients(given)
    noisy = fit._noisy(given.x)
    assert 0.3 < float((noisy - given.x).std()) < 0.7
    expected = torch.nn.functional.mse_loss(fit.network(noisy), given.x)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    parameters = list(fit.network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_each_step_has_noise_of_its_own_and_none_is_in_use() -> None:
    fit = learner(CLASSIFY, noise=1.0)
    x = torch.zeros(4, 6)
    first = fit._noisy(x)
    assert torch.equal(first, fit._noisy(x))
    fit.batch += 1
    assert not torch.isclose(first, fit._noisy(x)).any()
    task = fit.only_task
    assert fit.evaluate(task.test) == learner(CLASSIFY).evaluate(task.test)


@pytest.mark.parametrize("changes", [{}, {"noise": 0.3}])
def test_it_goes_on_as_if_it_had_not_been_stored(changes: dict[str, Any]) -> None:
    whole, cut = learner(**changes), learner(**changes)
    losses = [step.loss for step in whole.train()]
    steps = cut.train()
    first = [next(steps).loss for _ in range(6)]
    other = learner(**changes)
    other.load_state_dict(cut.state_dict())
    assert first + [step.loss for step in other.train()] == losses
    assert other.score == whole.score
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], tensor)
