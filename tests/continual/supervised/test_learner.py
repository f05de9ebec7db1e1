"""The learner: order of batches and of the seams of a method, which outputs compete, and going on after any step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.classifiers import CONFIG, COUNTS, learn, learner_of, tasks
from torch import nn
from torch.nn import functional

from sparserl.continual.learner import Group
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised import task_learner as supervised
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.tasks import Batch, Scenario, TaskSequence
from sparserl.layers.linear import linear
from sparserl.seeding import stream


class Tape(Strategy):
    """Fine-tuning that writes down when it is called, and keeps the batches."""

    def __init__(self, *, joint: bool = False):
        super().__init__()
        self.joint = joint
        self.tape: list[str] = []
        self.batches: list[Batch] = []

    def trained_tasks(self, task: int) -> Sequence[int]:
        return range(task + 1) if self.joint else [task]

    def attach(self, learner: Any) -> None:
        self.tape.append(f"network {'-'.join(str(linear(layer).shape[0]) for layer in learner.network)}")

    def begin_task(self, learner: Any) -> None:
        self.tape.append(f"begin {learner.task}")

    def end_epoch(self, learner: Any) -> None:
        self.tape.append(f"epoch {learner.epoch}")

    def begin_consolidation(self, learner: Any) -> None:
        self.tape.append(f"trained {learner.epoch}")

    def end_task(self, learner: Any) -> None:
        self.tape.append(f"end {learner.task}")

    def loss(self, learner: Any, batch: Batch) -> torch.Tensor:
        self.tape.append("loss")
        self.batches.append(batch)
        return super().loss(learner, batch)

    def before_step(self, learner: Any, group: Group) -> None:
        self.tape.append(f"before {group.name}")

    def after_step(self, learner: Any, group: Group) -> None:
        self.tape.append(f"after {group.name}")


def tape_of(learner: SupervisedLearner) -> Tape:
    assert isinstance(learner.strategy, Tape)
    return learner.strategy


# --- order of calls -----------------------------------------------------------------------------------

STEP = ["loss", "before network", "after network"]
TASK_OF_TWO_BATCHES = [
    *STEP,
    "yield 0.0",
    *STEP,
    "epoch 0",
    "yield 0.1",
    *STEP,
    "yield 1.0",
    *STEP,
    "trained 1",
    "yield 1.1",
]


def test_the_seams_of_a_method_are_called_in_order() -> None:
    learner = learner_of(Tape, batch_size=20)
    tape = tape_of(learner).tape
    assert tape == ["network 7-6"]
    tape.clear()
    for _ in range(2):
        for step in learner.train():
            tape.append(f"yield {step.epoch}.{step.batch}")
        learner.finish_task()
    assert tape == ["begin 0", *TASK_OF_TWO_BATCHES, "end 0", "begin 1", *TASK_OF_TWO_BATCHES, "end 1"]


def test_a_step_is_told_and_the_next_one_is_where_the_learner_stands() -> None:
    learner = learner_of()
    expected = [(0, epoch, batch, 3) for epoch in range(2) for batch in range(3)]
    expected += [(1, epoch, batch, 2) for epoch in range(2) for batch in range(2)]
    following = [(task, epoch, batch) for task, epoch, batch, _ in expected]
    following[following.index((1, 0, 0))] = (0, 2, 0)  # the task is not finished yet
    following.append((1, 2, 0))
    told = []
    for task in range(2):
        for step in learner.train():
            told.append((step.task, step.epoch, step.batch, step.batches))
            assert step.epochs == 2
            assert learner.steps == len(told)
            assert (learner.task, learner.epoch, learner.batch) == following[len(told)]
        learner.finish_task()
        assert (learner.task, learner.epoch, learner.batch) == (task + 1, 0, 0)
    assert told == expected


def test_a_task_goes_on_where_it_was_left_and_begins_once() -> None:
    learner = learner_of(Tape)
    for _ in range(4):
        next(learner.train())
    assert tape_of(learner).tape.count("begin 0") == 1
    assert (learner.epoch, learner.batch, learner.steps) == (1, 1, 4)
    assert len(list(learner.train())) == 2
    assert list(learner.train()) == []


def test_a_method_decides_how_many_epochs_follow_a_task() -> None:
    class Longer(Strategy):
        def consolidation(self, task: int, n_tasks: int) -> int:
            return 3 - task

    steps = learn(learner_of(Longer), 2)
    assert [(task, len({step.epoch for step in steps if step.task == task})) for task in range(2)] == [(0, 5), (1, 4)]
    assert {step.epochs for step in steps if step.task == 0} == {5}


@pytest.mark.parametrize("reset", [True, False])
def test_a_task_starts_with_a_new_optimizer_or_with_the_old_one(reset: bool) -> None:
    seen: list[torch.optim.Optimizer] = []

    class Watch(Strategy):
        def begin_task(self, learner: Any) -> None:
            seen.append(learner.optimizer)  # the old one: what has moved its weights needs it

        def loss(self, learner: Any, batch: Batch) -> torch.Tensor:
            if learner.epoch == learner.batch == 0:
                seen.append(learner.optimizer)
                assert learner.task == 0 or bool(learner.optimizer.state) is not reset
            return super().loss(learner, batch)

    learn(learner_of(Watch, reset_optimizer=reset), 2)
    at_first, in_first, before_second, in_second = seen
    assert at_first is not in_first  # its weights may have changed their number since it was made
    assert before_second is in_first
    assert (in_second is in_first) is not reset


# --- batches ------------------------------------------------------------------------------------------


def contents(batches: Sequence[Batch]) -> list[tuple[list[float], int, int]]:
    """Each sample of some batches: its features, label and task."""
    return [
        (x, y, task)
        for batch in batches
        for x, y, task in zip(batch.x.tolist(), batch.y.tolist(), batch.task.tolist(), strict=True)
    ]


def all_of(sequence: TaskSequence, *trained: int) -> list[tuple[list[float], int, int]]:
    return contents([Batch.of(task, sequence.tasks[task].train, slice(None)) for task in trained])


@pytest.mark.parametrize("joint", [False, True])
def test_every_sample_is_trained_once_an_epoch(joint: bool) -> None:
    learner = learner_of(lambda: Tape(joint=joint))
    batches = tape_of(learner).batches
    for task in range(3):
        steps = list(learner.train())
        trained = list(range(task + 1)) if joint else [task]
        for epoch in range(2):
            own = [batch for batch, step in zip(batches, steps, strict=True) if step.epoch == epoch]
            assert sorted(contents(own)) == sorted(all_of(learner.sequence, *trained))
            count = sum(COUNTS[one] for one in trained)
            sizes = [16] * (count // 16) + [count % 16]
            assert [len(batch) for batch in own] == sizes
        assert contents(batches[: len(own)]) != contents(own)  # another epoch, another order
        learner.finish_task()
        batches.clear()


@pytest.mark.parametrize("joint", [False, True])
def test_the_order_of_samples_is_a_permutation_from_the_seed_the_task_and_the_epoch(joint: bool) -> None:
    learner = learner_of(lambda: Tape(joint=joint), seed=3)
    steps = learn(learner, 2)
    for batch, step in zip(tape_of(learner).batches, steps, strict=True):
        samples = all_of(learner.sequence, *(range(step.task + 1) if joint else [step.task]))
        order = stream(3, "batches", str(step.task), str(step.epoch)).permutation(len(samples))
        chosen = order[step.batch * 16 : (step.batch + 1) * 16]
        assert sorted(contents([batch])) == sorted(samples[k] for k in chosen)


def test_batches_depend_on_nothing_else() -> None:
    learners = [
        learner_of(Tape),
        learner_of(Tape, hidden=(3, 3), density=0.5, optimizer="sgd", learning_rate=0.5),
        learner_of(Tape, scenario="task", reset_optimizer=False),
        learner_of(Tape, seed=1),
    ]
    for learner in learners:
        learn(learner, 2)
    first, other_network, other_scenario, other_seed = (contents(tape_of(learner).batches) for learner in learners)
    assert first == other_network == other_scenario
    assert first != other_seed


# --- which outputs compete ----------------------------------------------------------------------------

OWN = {"class": [0, 1, 2, 3, 4, 5], "task": [2, 3], "domain": [0, 1]}
"""Outputs that compete while the second task is trained. In the class scenario it is all, also future ones."""


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_outputs_that_do_not_compete_have_no_chance_and_no_gradient(scenario: Scenario) -> None:
    learner = learner_of(scenario=scenario)
    learn(learner, 1)
    batch = Batch.of(1, learner.sequence.tasks[1].train, slice(0, 16))
    logits = learner.logits(learner.network, batch)
    n_outputs = learner.sequence.n_outputs
    others = [unit for unit in range(n_outputs) if unit not in OWN[scenario]]
    raw = learner.network(batch.x)
    assert torch.equal(logits[:, OWN[scenario]], raw[:, OWN[scenario]])
    assert (logits[:, others] == -math.inf).all()
    learner.network.zero_grad()
    learner.cross_entropy(batch).backward()  # type: ignore[no-untyped-call]
    head = learner.network[-1]
    assert isinstance(head, nn.Linear)
    assert head.weight.grad is not None
    assert head.bias.grad is not None
    for gradient in (head.weight.grad.abs().sum(dim=1), head.bias.grad.abs()):
        assert (gradient[others] == 0).all()
        assert (gradient[OWN[scenario]] > 0).all()


def test_each_sample_competes_within_its_own_task() -> None:
    learner = learner_of(scenario="task")
    batch = Batch.joined([Batch.of(task, learner.sequence.tasks[task].train, slice(0, 1)) for task in (2, 0, 1)])
    assert [torch.nonzero(row == 0).view(-1).tolist() for row in learner.closed(batch)] == [[4, 5], [0, 1], [2, 3]]


def test_outputs_of_unseen_classes_compete_only_if_asked() -> None:
    sequence = tasks("class")
    batch = Batch.of(0, sequence.tasks[0].train, slice(0, 3))
    made = {
        unseen: SupervisedLearner(sequence, Strategy(), dataclasses.replace(CONFIG, unseen_outputs=unseen), seed=0)
        for unseen in ("open", "closed")
    }
    for task in range(len(sequence)):
        for learner in made.values():
            learner.task = task
        assert (made["open"].closed(batch) == 0.0).all()
        competing = torch.isfinite(made["closed"].closed(batch)).all(dim=0).nonzero().flatten()
        assert tuple(competing.tolist()) == sequence.competing(0, task)


def test_the_loss_of_a_step_is_that_before_it() -> None:
    learner, twin = learner_of(Tape, "task"), learner_of(Tape, "task")
    step = next(learner.train())
    (batch,) = tape_of(learner).batches
    logits = twin.network(batch.x)[:, :2]  # outputs of the first task
    assert step.loss == pytest.approx(functional.cross_entropy(logits, batch.y).item(), rel=1e-6)


# --- accuracy -----------------------------------------------------------------------------------------


def coin(x: torch.Tensor) -> torch.Tensor:
    """(B,) 0 or 1, as good as drawn."""
    return (x[:, 0] * 1000).long() % 2


class Fixed(nn.Module):
    """Gives all samples of a side of the coin the same logits."""

    def __init__(self, heads: list[float], tails: list[float]):
        super().__init__()
        self.logits = torch.tensor([heads, tails])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[coin(x)]

    outputs_in_use = nn.Module.__call__


class Answering(Strategy):
    network: nn.Module

    def network_for_task(self, learner: Any, task: int) -> Any:
        return self.network


def fixed(scenario: Scenario, learned: int) -> SupervisedLearner:
    """Says unit 0, 2 or 4 for heads and 1, 3 or 5 for tails; prefers later tasks where they compete."""
    learner = learner_of(Answering, scenario)
    width = learner.sequence.n_outputs
    assert isinstance(learner.strategy, Answering)
    learner.strategy.network = Fixed([1.0, 0.0, 3.0, 2.0, 5.0, 4.0][:width], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0][:width])
    learner.task = learned
    return learner


def share(learner: SupervisedLearner, task: int) -> float:
    """Share of the task's test samples whose label is the coin's."""
    x, y = learner.sequence.tasks[task].test.take(slice(None))
    return int((coin(x) == y - learner.sequence.tasks[task].outputs[0]).sum()) / 30


@pytest.mark.parametrize(("scenario", "learned"), [("task", 0), ("task", 2), ("domain", 0), ("domain", 2)])
def test_a_known_task_is_measured_even_before_it_was_learned(scenario: Scenario, learned: int) -> None:
    learner = fixed(scenario, learned)
    expected = [share(learner, task) for task in range(3)]
    assert len(set(expected)) > 1
    assert learner.accuracies() == pytest.approx(expected)


@pytest.mark.parametrize("learned", [0, 1, 2, 3])
def test_classes_learned_so_far_compete_and_others_are_not_measured(learned: int) -> None:
    learner = fixed("class", learned)
    found = learner.accuracies()
    assert [math.isnan(value) for value in found] == [task >= learned for task in range(3)]
    if learned:  # the network prefers the last of them, whatever the sample is of
        last = learned - 1
        assert found[:learned] == [*[0.0] * last, pytest.approx(share(learner, last))]
        assert found[last] > 0


@pytest.mark.parametrize("at_a_time", [1, 7, 30, 31])
def test_all_test_samples_count_however_many_are_taken_at_a_time(
    monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    learner = fixed("task", 3)
    expected = [share(learner, task) for task in range(3)]
    monkeypatch.setattr(supervised, "SAMPLES_AT_A_TIME", at_a_time)
    assert learner.accuracies() == pytest.approx(expected)


def test_nothing_is_differentiated_in_evaluation() -> None:
    class NeedsNoGradient(Fixed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return super().forward(x)

    learner = fixed("task", 3)
    assert isinstance(learner.strategy, Answering)
    learner.strategy.network = NeedsNoGradient([0.0] * 6, [0.0] * 6)
    learner.accuracies()
