"""Numbers that a continual method keeps, counted alike for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.classifiers import COUNTS, learn, learner_of

from sparserl.continual.shared.numbers import count_numbers
from sparserl.continual.strategies.anew import Joint
from sparserl.continual.strategies.der import DER, DEROptions
from sparserl.continual.strategies.icarl import ICaRL, ICaRLOptions
from sparserl.continual.strategies.memory import Replay, ReplayOptions
from sparserl.continual.supervised.learner import SupervisedLearner


def weights(learner: SupervisedLearner) -> int:
    return sum(one.numel() for one in learner.network.parameters())


def test_every_entry_counts_and_text_does_not() -> None:
    assert count_numbers({"a": torch.zeros(2, 3), "b": [1, 2.0, "text", None, (True,)], "c": np.zeros(4, bool)}) == 13


@pytest.mark.parametrize("reset", [True, False])
def test_a_dense_network_keeps_its_weights_and_an_optimizer_that_does_not_begin_anew(reset: bool) -> None:
    learner = learner_of(reset_optimizer=reset)
    learn(learner, 2)
    of_optimizer = count_numbers(learner.state_dict()["optimizer"])
    assert of_optimizer > 2 * weights(learner)  # two moments
    assert learner.numbers_kept() == weights(learner) + (0 if reset else of_optimizer)


def test_connections_that_do_not_all_exist_are_kept_with_their_places() -> None:
    learner = learner_of(reset_optimizer=True, density=0.5)
    learn(learner, 1)
    (layer,) = learner.sparse_layers.values()
    assert layer.nnz == 28
    assert learner.numbers_kept() == weights(learner) + 28 + 8  # columns, and where each of seven rows begins and ends


def test_stored_samples_count_with_all_their_features() -> None:
    learner = learner_of(lambda: Replay(ReplayOptions(samples=20)), reset_optimizer=True)
    learn(learner, 2)
    assert learner.numbers_kept() == weights(learner) + 20 * (learner.sequence.n_features + 1)


def test_stored_outputs_count_beside_their_samples() -> None:
    learner = learner_of(lambda: DER(DEROptions(samples=20)), reset_optimizer=True)
    learn(learner, 2)
    of_sample = learner.sequence.n_features + 1 + learner.sequence.n_outputs
    assert learner.numbers_kept() == weights(learner) + 20 * of_sample + 1  # how many were seen


def test_exemplars_count_and_the_network_that_teaches() -> None:
    learner = learner_of(lambda: ICaRL(ICaRLOptions(samples=22)), reset_optimizer=True)
    learn(learner, 2)
    assert learner.numbers_kept() == 2 * weights(learner) + 20 * (learner.sequence.n_features + 1)  # five of each class


def test_who_trains_on_all_tasks_again_keeps_all_samples() -> None:
    learner = learner_of(Joint, reset_optimizer=True)
    learn(learner, 2)
    assert (
        learner.numbers_kept() == weights(learner) + sum(COUNTS[:2]) * (learner.sequence.n_features + 1) + 1
    )  # tasks so far
