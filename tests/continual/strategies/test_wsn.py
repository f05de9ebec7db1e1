"""WSN: a step against a masked dense twin, which connections a task uses, and what later tasks leave alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import matrix_of
from support.tasks import N_FEATURES, blobs
from torch.nn import functional

from sparserl.continual.strategies.wsn import WSN, WSNOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.layers import SparseLinear

N_TASKS, HIDDEN, STORED = 3, (12, 10), (round(0.4 * 12 * N_FEATURES), 48)
CONFIG = LearnerConfig(HIDDEN, optimizer="sgd", learning_rate=0.3, epochs=2, batch_size=16)


def make(pool: float = 0.4, capacity: float = 0.5, **changes: Any) -> SupervisedLearner:
    strategy = WSN(WSNOptions(pool, capacity))
    config = dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(blobs("task", n_tasks=N_TASKS, n_train=40), strategy, config, seed=0)


def layers(learner: SupervisedLearner) -> list[SparseLinear]:
    return list(learner.network)  # type: ignore[arg-type]  # are sparse


def scores(learner: SupervisedLearner) -> list[np.ndarray]:
    return [one.numpy().copy() for one in learner.strategy.state_dict()["scores"].values()]


def masks(learner: SupervisedLearner) -> list[list[np.ndarray]]:
    """Of each hidden layer, which connections each finished task uses."""
    state = learner.strategy.state_dict()["masks"].values()
    return [
        [np.unpackbits(mask, count=count).astype(bool) for mask in of_layer]
        for of_layer, count in zip(state, STORED, strict=True)
    ]


def finish(learner: SupervisedLearner) -> None:
    list(learner.train())
    learner.finish_task()


@pytest.mark.parametrize(
    ("stored", "capacity", "chosen"),
    [(11, 0.3, 4), (11, 0.5, 6), (11, 0.01, 1), (11, 1.0, 11), (10, 0.5, 6), (1, 0.2, 1)],
)
def test_as_many_are_used_as_the_percentile_of_the_code_stands_for(stored: int, capacity: float, chosen: int) -> None:
    # The k-th smallest score and above, k = 1 + round((1 - c)(n - 1)).
    assert WSNOptions(capacity=capacity).chosen(stored) == chosen
    ranked = np.sort(np.random.default_rng(0).random(stored))
    assert np.count_nonzero(ranked >= ranked[round((1 - capacity) * (stored - 1))]) == chosen


def test_a_step_is_that_of_the_masked_dense_twin() -> None:
    learner = make()
    finish(learner)
    steps = learner.train()
    next(steps)  # connections are frozen, and scores have moved
    weights = [matrix_of(one.topology, one.values.detach().numpy()).copy() for one in layers(learner)]
    biases = [one.bias.detach().clone() for one in layers(learner)]
    old_scores = scores(learner)
    owned = [of_layer[0] for of_layer in masks(learner)]
    batch = learner._batch(learner._order()[16:32])
    next(steps)

    chosen = []
    for score in old_scores:
        order = np.argsort(-np.abs(score), kind="stable")[: WSNOptions(0.4, 0.5).chosen(score.size)]
        chosen.append(np.isin(np.arange(score.size), order))
    *hidden, _ = layers(learner)
    effective = [
        torch.tensor(weight * (1.0 if index == 2 else matrix_of(hidden[index].topology, chosen[index])))
        .float()
        .requires_grad_()
        for index, weight in enumerate(weights)
    ]
    h = batch.x
    for index, matrix in enumerate(effective):
        h = functional.linear(h, matrix, biases[index])
        h = torch.relu(h) if index < 2 else h
    logits = h + learner.closed(batch)
    functional.cross_entropy(logits, batch.y).backward()  # type: ignore[no-untyped-call]
    for index, layer in enumerate(hidden):
        flat = layer.topology.flat
        gradient = effective[index].grad.numpy().ravel()[flat]  # type: ignore[union-attr]
        weight = weights[index].ravel()[flat]
        moved = weight - 0.3 * gradient * chosen[index] * ~owned[index]
        np.testing.assert_allclose(layer.values.detach().numpy(), moved, rtol=1e-5, atol=1e-7)
        expected = old_scores[index] - 0.3 * gradient * weight * np.sign(old_scores[index])
        np.testing.assert_allclose(scores(learner)[index], expected, rtol=1e-5, atol=1e-7)
        assert not layer.bias.any()
    assert np.array_equal(layers(learner)[2].bias.detach()[:2], biases[2][:2])  # outputs of the first task


def test_what_a_task_answers_stays_bit_for_bit_and_connections_are_used_again() -> None:
    learner = make()
    x = torch.linspace(-2.0, 2.0, 9 * N_FEATURES).sin().view(9, N_FEATURES)
    answers = []
    for task in range(N_TASKS):
        finish(learner)
        with torch.no_grad():
            now = [learner.strategy.network_for_task(learner, one)(x) for one in range(task + 1)]
        answers.append(now[-1][:, 2 * task : 2 * task + 2])
        for earlier, answer in enumerate(answers):
            assert torch.equal(now[earlier][:, 2 * earlier : 2 * earlier + 2], answer)
    for of_layer, count in zip(masks(learner), STORED, strict=True):
        assert [int(mask.sum()) for mask in of_layer] == [WSNOptions(0.4, 0.5).chosen(count)] * N_TASKS
        assert (of_layer[0] & of_layer[1]).any()
        assert (of_layer[1] & ~of_layer[0]).any()
    used = [np.logical_or.reduce(of_layer) for of_layer in masks(learner)]
    first, second, output = learner.usage()
    assert [sum(one.owned) for one in (first, second)] == [int(one.sum()) for one in used]
    assert second.owned[0] == int(masks(learner)[1][0].sum())
    assert output.owned == (20, 20, 20)


def test_numbers_kept_are_weights_scores_and_a_bit_for_each_task() -> None:
    learner = make()
    for _ in range(2):
        finish(learner)
    bits = sum(2 * -(-count // 8) for count in STORED)
    assert learner.strategy.numbers_kept() == sum(STORED) + bits
    assert learner.strategy.memory() == {"scores": 4 * sum(STORED), "choices": bits}
    kept = make(optimizer="adam", learning_rate=0.01, reset_optimizer=False)
    finish(kept)
    assert kept.strategy.numbers_kept() > 3 * sum(STORED)  # two moments each


def test_nothing_is_as_large_as_a_dense_hidden_layer() -> None:
    learner = make(pool=0.01, hidden=(300, 200), optimizer="adam", learning_rate=0.01)
    next(learner.train())
    largest = max(600, 200 * learner.sequence.n_outputs, 300 * N_FEATURES // 10)
    for layer, score in zip(layers(learner), scores(learner), strict=False):
        assert layer.values.numel() == score.size <= largest
    optimizer = learner.strategy._optimizer  # type: ignore[attr-defined]
    assert all(one.numel() <= 600 for state in optimizer.state.values() for one in state.values())
