"""PackNet: shares worked by hand, what each phase may move, and old answers that stay bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import dense_weight
from support.tasks import N_FEATURES, blobs, static
from support.trees import assert_equal_trees
from torch import nn

from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.shared.weight_owners import FREE
from sparserl.continual.strategies.packnet import PackNet, PackNetOptions
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.recording import checkpoint

N_TASKS, EPOCHS, RETRAIN, BATCHES = 4, 2, 2, 2
CONFIG = LearnerConfig(hidden=(12, 10), epochs=EPOCHS, batch_size=24, learning_rate=0.02)
X = torch.linspace(-2.0, 2.0, 9 * N_FEATURES).sin().view(9, N_FEATURES)


def make(retrain_epochs: int = RETRAIN, seed: int = 0, density: float = 1.0, **changes: Any) -> SupervisedLearner:
    sequence = blobs("task", n_tasks=N_TASKS, n_train=40)
    strategy = PackNet(PackNetOptions(retrain_epochs))
    config = dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(sequence, strategy, config, static(density), seed=seed)


def owners(learner: SupervisedLearner) -> list[np.ndarray]:
    """Owner of each weight of each hidden layer."""
    return [owner.copy() for owner in learner.strategy.state_dict()["owner"]]


def hidden_parameters(learner: SupervisedLearner) -> list[nn.Parameter]:
    """Weights of each hidden layer."""
    *hidden, _ = learner.network
    return [next(one for name, one in layer.named_parameters() if name != "bias") for layer in hidden]


def hidden_weights(learner: SupervisedLearner) -> list[np.ndarray]:
    """Weights of each hidden layer, in the order of owners."""
    return [weights.detach().numpy().ravel().copy() for weights in hidden_parameters(learner)]


def parameters(learner: SupervisedLearner) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in learner.network.named_parameters()}


def ends_training(step: Step) -> bool:
    """Whether this was the last step before retraining, if there is any."""
    return (step.epoch, step.batch) == (EPOCHS - 1, BATCHES - 1)


def is_pruned(step: Step) -> bool:
    """Whether weights were pruned after this step."""
    return ends_training(step) and step.task < N_TASKS - 1


def tasks_of(learner: SupervisedLearner) -> Iterator[int]:
    """Learns task after task, and gives each when it has ended."""
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            yield event.task


# --- shares -------------------------------------------------------------------------------------------


def test_four_tasks_share_120_weights() -> None:
    # 30 of 120, 30 of 90, 30 of 60, all 30 of 30.
    learner = make()
    for task in tasks_of(learner):
        owner = owners(learner)[1]
        assert owner.size == 120
        assert np.bincount(owner + 1, minlength=5).tolist() == [90 - 30 * task, *[30] * (task + 1), *[0] * (3 - task)]


def test_shares_that_do_not_divide() -> None:
    # 7 * 11 = 77 weights: 77 / 4 -> 19, 58 / 3 -> 19, 39 / 2 = 19.5 -> 20, the other 19.
    learner = make(hidden=(7, 11))
    for _ in tasks_of(learner):
        pass
    assert np.bincount(owners(learner)[1]).tolist() == [19, 19, 20, 19]


def test_who_uses_what() -> None:
    learner = make()
    assert [use.owned for use in learner.usage()] == [(), (), ()]
    for task in tasks_of(learner):
        count = task + 1
        assert learner.usage() == [
            ConnectionUsage("network.0", (3 * N_FEATURES,) * count, 3 * N_FEATURES * count, 12 * N_FEATURES, 12, 0),
            ConnectionUsage("network.1", (30,) * count, 30 * count, 120, 10, 0),
            ConnectionUsage("network.2", (20,) * count, 20 * count, 80, 8, 0),  # rows of two classes of ten inputs
        ]
    assert learner.strategy.memory() == {"owners": 2 * (12 * N_FEATURES + 120)}


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_each_weight_has_one_owner_for_good(density: float) -> None:
    learner = make(density=density)
    before = owners(learner)
    assert all((owner == FREE).all() for owner in before)
    for task in tasks_of(learner):
        now = owners(learner)
        for old, new in zip(before, now, strict=True):
            assert np.array_equal(old[old != FREE], new[old != FREE])
            assert set(new[old == FREE]) <= {FREE, task}
        before = now
    assert all((owner != FREE).all() for owner in before)
    assert [owner.size for owner in before] == [round(density * 12 * N_FEATURES), round(density * 120)]


# --- pruning ------------------------------------------------------------------------------------------


def test_the_largest_weights_of_plain_training_are_kept_and_the_others_are_zero() -> None:
    learner = make()
    plain = SupervisedLearner(learner.sequence, Strategy(), CONFIG, seed=0)
    list(plain.train())
    pruned = next(step for step in learner.train() if is_pruned(step))
    assert pruned.task == 0
    for trained, weights, owner in zip(hidden_weights(plain), hidden_weights(learner), owners(learner), strict=True):
        ranked = sorted(range(trained.size), key=lambda place: -abs(trained[place]))
        kept = sorted(ranked[: trained.size // 4])
        assert np.flatnonzero(owner == 0).tolist() == kept
        assert np.array_equal(weights[kept], trained[kept])
        assert np.count_nonzero(weights) == len(kept)


def test_among_equal_weights_the_first_are_kept() -> None:
    learner = make(learning_rate=1e-30)
    for layer in list(learner.network)[:-1]:
        assert isinstance(layer, nn.Linear)
        nn.init.constant_(layer.weight, -0.5)
    next(step for step in learner.train() if is_pruned(step))
    assert all(np.flatnonzero(owner == 0).tolist() == list(range(owner.size // 4)) for owner in owners(learner))


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("retrain_epochs", [0, 2])
def test_what_nobody_owns_is_zero_from_pruning_to_the_next_task(density: float, retrain_epochs: int) -> None:
    learner = make(retrain_epochs, density=density)
    after_pruning = False
    for event in run_sequence(learner):
        if isinstance(event, Step):
            after_pruning = is_pruned(event) or (after_pruning and event.epoch >= EPOCHS)
        for weights, owner in zip(hidden_weights(learner), owners(learner), strict=True):
            if after_pruning:
                assert (weights[owner == FREE] == 0).all()


def test_the_last_task_is_neither_pruned_nor_retrained() -> None:
    learner = make()
    steps: list[Step] = []
    weights = [np.zeros(0)] * 2
    for event in run_sequence(learner):
        if isinstance(event, Step):
            steps.append(event)
            before, weights = weights, hidden_weights(learner)
    per_task = [[step.epoch for step in steps if step.task == task] for task in range(N_TASKS)]
    with_retraining = [epoch for epoch in range(EPOCHS + RETRAIN) for _ in range(BATCHES)]
    assert per_task == [*[with_retraining] * 3, with_retraining[: EPOCHS * BATCHES]]
    assert {step.epochs for step in steps if step.task < 3} == {EPOCHS + RETRAIN}
    assert {step.epochs for step in steps if step.task == 3} == {EPOCHS}
    for old, new, end in zip(before, weights, hidden_weights(learner), strict=True):
        assert (new[old != 0] != 0).all()
        assert np.array_equal(new, end)


# --- what may move ------------------------------------------------------------------------------------


def rows_of(task: int) -> list[int]:
    return [2 * task, 2 * task + 1]


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop", "adagrad"])
def test_training_moves_what_is_free_and_retraining_what_was_kept(density: float, optimizer: Any) -> None:
    momentum = 0.9 if optimizer in ("sgd", "rmsprop") else 0.0
    learner = make(density=density, optimizer=optimizer, momentum=momentum, weight_decay=0.01, reset_optimizer=False)
    before, before_weights, before_owners = parameters(learner), hidden_weights(learner), owners(learner)
    moves = np.zeros((N_TASKS, 2, 2), int)
    for event in run_sequence(learner):
        if not isinstance(event, Step):
            continue
        now, weights = parameters(learner), hidden_weights(learner)
        retrains, task = event.epoch >= EPOCHS, event.task
        for layer, owner in enumerate(before_owners):
            moved = weights[layer] != before_weights[layer]
            open_weights = owner == task if retrains else owner == FREE
            assert not moved[~open_weights].any()
            moves[task, int(retrains), layer] += moved.sum()
        moved_rows = {name: (now[name] != before[name]).reshape(len(now[name]), -1).any(dim=1) for name in now}
        assert moved_rows["0.bias"].any() == moved_rows["1.bias"].any() == (task == 0)
        for name in ("2.weight", "2.bias"):
            assert torch.nonzero(moved_rows[name]).view(-1).tolist() == rows_of(task)
        before, before_weights, before_owners = now, weights, owners(learner)
    assert (moves[:2] > 0).all()  # later, few neurons of so small a network are alive


def test_frozen_weights_have_no_optimizer_state_and_retraining_begins_anew() -> None:
    learner = make()
    for event in run_sequence(learner):
        if not isinstance(event, Step):
            continue
        if ends_training(event):
            assert not learner.optimizer.state
            continue
        for weights, owner in zip(hidden_parameters(learner), owners(learner), strict=True):
            frozen = owner != event.task if event.epoch >= EPOCHS else owner != FREE
            for name in ("exp_avg", "exp_avg_sq"):
                state = learner.optimizer.state[weights][name].view(-1)
                assert (state[frozen] == 0).all()
                assert event.task > 0 or (state[~frozen] != 0).any()


# --- answers ------------------------------------------------------------------------------------------


@torch.no_grad()
def answer(learner: SupervisedLearner, task: int) -> torch.Tensor:
    answered: torch.Tensor = learner.strategy.network_for_task(learner, task)(X)
    return answered


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adam", 0.02), ("sgd", 0.3)])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_answers_for_an_old_task_stay_bit_for_bit(density: float, optimizer: Any, learning_rate: float) -> None:
    learner = make(density=density, optimizer=optimizer, learning_rate=learning_rate, weight_decay=0.01)
    answers: list[torch.Tensor] = []
    matrix: list[list[float]] = []
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            answers.append(answer(learner, event.task)[:, rows_of(event.task)])
            matrix.append(learner.accuracies())
        for task, old in enumerate(answers):  # after every single step of later tasks
            assert torch.equal(answer(learner, task)[:, rows_of(task)], old)
    for task in range(N_TASKS):
        assert [row[task] for row in matrix[task:]] == [matrix[task][task]] * (N_TASKS - task)  # forgetting is 0
    assert max(matrix[-1]) > 0.9


def by_hand(learner: SupervisedLearner, task: int, x: torch.Tensor) -> torch.Tensor:
    """The dense network in which weights that are free or of later tasks are 0."""
    for layer, owner in zip(list(learner.network)[:-1], owners(learner), strict=True):
        weight, mask = dense_weight(layer)
        weight[mask.bool()] *= torch.from_numpy((owner >= 0) & (owner <= task))
        x = torch.relu(nn.functional.linear(x, weight, layer.bias))  # type: ignore[arg-type]
    head = learner.network[-1]
    assert isinstance(head, nn.Linear)
    logits: torch.Tensor = head(x).detach()
    return logits


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_a_task_is_answered_by_what_existed_when_it_ended(density: float) -> None:
    learner = make(density=density)
    for learned in tasks_of(learner):
        if learned == 2:
            next(learner.train())  # amid a task: free weights are no longer 0
        for task in range(N_TASKS):
            # Before it is learned, a task has what is owned so far.
            torch.testing.assert_close(answer(learner, task), by_hand(learner, min(task, learned), X))
            view = learner.strategy.network_for_task(learner, task)
            assert isinstance(view, SparseMLP)
            connections = [layer.nnz for layer in view if isinstance(layer, SparseLinear)]
            assert connections == [np.count_nonzero((o >= 0) & (o <= task)) for o in owners(learner)]
        if learned > 0:
            assert not torch.equal(answer(learner, 0), answer(learner, 1))


def test_before_anything_is_learned_only_the_classifier_answers() -> None:
    learner = make()
    torch.testing.assert_close(answer(learner, 0), by_hand(learner, 0, torch.zeros_like(X)))
    (first, second) = (learner.accuracies() for _ in range(2))
    assert first == second


def test_an_answer_does_not_change_the_network() -> None:
    learner = make()
    next(tasks_of(learner))
    before = copy.deepcopy(learner.state_dict())
    view = learner.strategy.network_for_task(learner, 0)
    with torch.no_grad():
        next(iter(view.parameters())).zero_()
    assert_equal_trees(learner.state_dict(), before)


# --- going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize(
    "stop",
    [EPOCHS * BATCHES - 1, EPOCHS * BATCHES, EPOCHS * BATCHES + 1, (EPOCHS + RETRAIN) * BATCHES],
    ids=["before pruning", "just pruned", "amid retraining", "retrained"],
)
@pytest.mark.parametrize("task", [0, 1])
def test_it_goes_on_around_pruning(density: float, stop: int, task: int, tmp_path: Path) -> None:
    whole, learner = make(density=density), make(density=density)
    list(run_sequence(whole))
    wanted = task * (EPOCHS + RETRAIN) * BATCHES + stop
    for _ in run_sequence(learner):
        if learner.steps == wanted:
            break
    checkpoint.save(tmp_path / "state", learner.state_dict())
    resumed = make(density=density)
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert_equal_trees(resumed.state_dict(), learner.state_dict())
    list(run_sequence(resumed))
    assert_equal_trees(resumed.state_dict(), whole.state_dict())


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["class", "domain"])
def test_a_task_that_nobody_names_is_refused(scenario: Scenario) -> None:
    sequence = blobs(scenario)
    message = f"^this method must be told the task that it answers for: use --scenario task, not {scenario}$"
    with pytest.raises(ConfigError, match=message):
        SupervisedLearner(sequence, PackNet(PackNetOptions()), CONFIG, seed=0)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [({"hidden": (3, 1)}, "1 has 3"), ({"hidden": (9, 3, 9), "density": 0.1}, "1 has 3")],  # 27 - int(.9 * 27) are left
)
def test_a_layer_with_fewer_weights_than_tasks_is_refused(changes: dict[str, Any], weights: str) -> None:
    with pytest.raises(ConfigError, match=rf"^layer network.{weights} weights for 4 tasks$"):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"hidden": (4, 1)}, {"hidden": (8, 4, 8), "density": 0.1}],  # 32 - int(.9 * 32) are left
)
def test_as_many_weights_as_tasks_are_enough(changes: dict[str, Any]) -> None:
    learner = make(**changes)
    list(run_sequence(learner))
    assert sorted(owners(learner)[1]) == [0, 1, 2, 3]
