"""The loop over a sequence: which events, in which order, and from where it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tasks import blobs
from support.trees import assert_equal_trees

from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.recording import checkpoint

Event = SequenceStarted | Step | TaskEnded
EPOCHS, BATCHES = 2, 3
CONFIG = LearnerConfig(hidden=(5,), epochs=EPOCHS, batch_size=16)  # 40 samples a task: 16, 16, 8
STEPS = EPOCHS * BATCHES


def make() -> SupervisedLearner:
    sequence = blobs("class", n_tasks=3, n_train=40)
    return SupervisedLearner(sequence, Strategy(), CONFIG, seed=0)


def kinds(events: list[Event]) -> str:
    """S for the start, `.` for a step, T for the end of a task."""
    return "".join({SequenceStarted: "S", Step: ".", TaskEnded: "T"}[type(event)] for event in events)


def test_events_come_in_order() -> None:
    learner = make()
    events = list(run_sequence(learner))
    assert kinds(events) == "S" + ("." * STEPS + "T") * 3
    assert [event.task for event in events if isinstance(event, TaskEnded)] == [0, 1, 2]
    steps = [event for event in events if isinstance(event, Step)]
    assert [(step.task, step.epoch, step.batch) for step in steps] == [
        (task, epoch, batch) for task in range(3) for epoch in range(EPOCHS) for batch in range(BATCHES)
    ]
    assert {(step.epochs, step.batches) for step in steps} == {(EPOCHS, BATCHES)}
    assert (learner.task, learner.epoch, learner.batch, learner.steps) == (3, 0, 0, 3 * STEPS)


@pytest.mark.parametrize("stop", [0, 1, STEPS - 1, STEPS, STEPS + 1, STEPS + 2, 2 * STEPS + 2, 3 * STEPS + 3])
def test_it_goes_on_after_any_event(stop: int, tmp_path: Path) -> None:
    """0 is the start of the sequence, STEPS the last step of a task, STEPS + 1 its end."""
    whole, learner = make(), make()
    expected = list(run_sequence(whole))
    events: list[Event] = []
    for event in run_sequence(learner):
        events.append(event)
        if len(events) == stop + 1:
            break
    checkpoint.save(tmp_path / "state", learner.state_dict())
    resumed = make()
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    rest = list(run_sequence(resumed))
    # Before the first step there is nothing to go on from.
    assert kinds(rest) == (kinds(expected) if stop == 0 else kinds(expected)[stop + 1 :])
    assert_equal_trees([vars(event) for event in rest], [vars(event) for event in expected[-len(rest) :] if rest])
    assert_equal_trees(resumed.state_dict(), whole.state_dict())


def test_it_goes_on_with_the_same_learner() -> None:
    whole, learner = make(), make()
    expected, begun = list(run_sequence(whole)), run_sequence(learner)
    events = [next(begun), next(begun)]
    while learner.task < 3:
        events.append(next(run_sequence(learner)))
    assert_equal_trees([vars(event) for event in events], [vars(event) for event in expected])
    assert_equal_trees(learner.state_dict(), whole.state_dict())
    assert list(run_sequence(learner)) == []
