"""icarl: which exemplars are kept, what the network learns, and how exemplars answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.tasks import N_FEATURES, blobs, static

from sparserl.continual.shared.herding import herd
from sparserl.continual.strategies.icarl import ICaRL, ICaRLOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.tasks import Batch, Scenario
from sparserl.errors import ConfigError
from sparserl.layers.activity import features

CONFIG = LearnerConfig(hidden=(12, 10), epochs=2, optimizer="sgd", learning_rate=0.1, batch_size=16)


def learner_of(
    scenario: Scenario = "class", samples: int = 20, unseen: str = "open"
) -> tuple[SupervisedLearner, ICaRL]:
    strategy = ICaRL(ICaRLOptions(samples=samples))
    config = LearnerConfig(**{**vars(CONFIG), "unseen_outputs": unseen})
    return SupervisedLearner(blobs(scenario), strategy, config, static(0.5), seed=0), strategy


def learn(learner: SupervisedLearner, tasks: int) -> None:
    for _ in range(tasks):
        list(learner.train())
        learner.finish_task()


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0.0, 1.0, lengths)


# --- exemplars ----------------------------------------------------------------------------------------


def test_exemplars_are_those_of_herding_and_classes_share_the_memory_equally() -> None:
    learner, strategy = learner_of(samples=21)
    before: list[np.ndarray] = []
    for task, count in enumerate((10, 5, 3)):
        list(learner.train())
        train = learner.sequence.tasks[task].train
        vectors = unit(features(learner.network, train.take(slice(None))[0]).double().numpy())
        learner.finish_task()
        for unit_of_class in learner.sequence.tasks[task].outputs:
            rows = np.flatnonzero(train.labels == unit_of_class)
            before.append(rows[herd(vectors[rows], count)])
        assert strategy.kept.tasks == [own for own in range(task + 1) for _ in range(2)]
        for kept, first in zip(strategy.kept.indices, before, strict=True):
            assert kept.tolist() == first[:count].tolist()
        size = 2 * (task + 1) * count * (4 * N_FEATURES + 16)
        old = sum(value.nbytes for value in learner.network.state_dict().values())
        assert strategy.memory() == {"samples": size, "old network": old}


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_a_memory_without_room_for_each_class_is_refused(scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match=r"^icarl.samples must be at least 6, one for each class, got 5$"):
        learner_of(scenario, samples=5)
    learner_of(scenario, samples=6)


def test_classes_that_tasks_share_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^icarl keeps exemplars of each class, and domains share theirs: use "):
        learner_of("domain")


# --- learning -----------------------------------------------------------------------------------------

TRAINED: dict[tuple[Scenario, str], tuple[list[int], list[int]]] = {
    # While task 1 is learned, with old outputs 0 and 1: those trained for a new sample, and for an exemplar.
    ("class", "open"): ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    ("class", "closed"): ([0, 1, 2, 3], [0, 1, 2, 3]),
    ("task", "open"): ([0, 1, 2, 3], [0, 1]),
}


@pytest.mark.parametrize(("scenario", "unseen"), TRAINED)
def test_the_loss_is_the_formula(scenario: Scenario, unseen: str) -> None:
    learner, strategy = learner_of(scenario, unseen=unseen)
    learn(learner, 1)
    batch = Batch.of(1, learner.sequence.tasks[1].train, np.arange(6))
    drawn = strategy.kept.batch(6, learner.steps)

    def shares(one: Batch) -> np.ndarray:
        """Each output by itself."""
        with torch.no_grad():
            return 1.0 / (1.0 + np.exp(-learner.network(one.x).double().numpy()))

    old = [shares(one) for one in (batch, drawn)]
    with torch.no_grad():
        learner.network[2].weight.add_(0.3 * torch.arange(10.0))
    expected = 0.0
    for one, taught, trained in zip((batch, drawn), old, TRAINED[scenario, unseen], strict=True):
        for row, given in enumerate(shares(one)):
            for output in trained:
                target = taught[row, output] if output < 2 else float(int(one.y[row]) == output)
                expected -= target * np.log(given[output]) + (1.0 - target) * np.log(1.0 - given[output])
    assert strategy.loss(learner, batch).item() == pytest.approx(expected / 12, rel=1e-5)


def test_the_first_task_has_no_teacher() -> None:
    learner, strategy = learner_of()
    strategy._old.network[2].bias.data.fill_(torch.nan)
    batch = Batch.of(0, learner.sequence.tasks[0].train, np.arange(6))
    assert torch.isfinite(strategy.loss(learner, batch))


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_the_class_of_the_nearest_mean_of_exemplars_answers(scenario: Scenario) -> None:
    learner, strategy = learner_of(scenario)
    learn(learner, 2)
    network = learner.network
    means = []
    for output in range(4):
        indices = strategy.kept.indices[output]
        x, y = learner.sequence.tasks[output // 2].train.take(indices)
        assert set(y.tolist()) == {output}
        means.append(unit(unit(features(network, x).double().numpy()).mean(axis=0)))
    generator = torch.get_rng_state()
    for task in range(2):
        competing = list(learner.sequence.competing(task, 1))
        x, y = learner.sequence.tasks[task].test.take(slice(None))
        vectors = unit(features(network, x).double().numpy())
        distances = np.linalg.norm(vectors[:, None] - np.array(means)[competing], axis=2)
        nearest = np.array(competing)[distances.argmin(axis=1)]
        assert learner.accuracy(task) == pytest.approx(np.mean(nearest == y.numpy()))
        outputs = learner.answering(task)(x).detach().numpy()[:, competing]
        np.testing.assert_array_equal(np.array(competing)[outputs.argmax(axis=1)], nearest)
    assert torch.equal(torch.get_rng_state(), generator)
    assert learner.network is network
    assert list(network) == [network[0], network[1], network[2]]


def test_a_task_without_exemplars_is_answered_by_the_outputs() -> None:
    learner, _ = learner_of("task")
    assert learner.answering(0) is learner.network
    learn(learner, 1)
    assert learner.answering(0) is not learner.network
    assert learner.answering(1) is learner.network
    assert learner.answering(None) is learner.network


def test_means_are_those_of_the_network_as_it_is() -> None:
    learner, _ = learner_of()
    learn(learner, 1)
    before = learner.answering(0)[2].weight.clone()
    assert before[:2].norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert not before[2:].any()
    with torch.no_grad():
        learner.network[1].bias.add_(torch.arange(10.0))
    assert not torch.equal(learner.answering(0)[2].weight, before)
