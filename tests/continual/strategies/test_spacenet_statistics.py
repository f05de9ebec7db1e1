"""SpaceNet that answers by statistics of each task's features instead of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.spacenet_runs import N_TASKS, make
from support.tasks import N_FEATURES
from support.trees import assert_equal_trees

from sparserl.continual.shared.numbers import count_numbers
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

X = torch.from_numpy(np.random.default_rng(0).normal(size=(50, N_FEATURES)).astype(np.float32))
STATISTICS: Any = {"answers": "statistics", "rank": 3, "config": {"epochs": 6}}


def test_what_a_task_thinks_of_samples_never_changes() -> None:
    learner, before = make(**STATISTICS), {}
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            scores = learner.strategy.answer_for_task(learner, 0)(X)
            for task in range(learner.task):
                own = scores[:, list(learner.sequence.tasks[task].outputs)]
                assert torch.equal(own, before.setdefault(task, own))
    assert len(before) == N_TASKS
    assert torch.isfinite(scores).all()
    # Neurons that no task has connected give nothing, so that a later one may have their biases.
    learner = make(**STATISTICS)
    next(learner.train())
    owners = learner.strategy._shared_out["network"][0].bias_owner  # type: ignore[attr-defined]  # is SpaceNet
    for layer, owner in zip(list(learner.network)[:-1], owners, strict=True):
        assert not layer.bias[torch.from_numpy(owner < 0)].any()  # type: ignore[index]  # has biases


def test_classes_of_other_tasks_are_told_apart_better_than_by_outputs() -> None:
    means = []
    for answers in ("statistics", "logits"):
        runs = [make(seed=seed, **{**STATISTICS, "answers": answers}) for seed in range(3)]
        for learner in runs:
            list(run_sequence(learner))
        means.append(np.mean([learner.accuracies() for learner in runs]))
    assert means[0] > means[1] + 0.1


@pytest.mark.parametrize("stop", [5, 19, 40])
def test_it_goes_on_exactly(stop: int, tmp_path: Path) -> None:
    whole = make(**STATISTICS)
    for step, _ in enumerate(run_sequence(whole), start=1):
        if step == stop:
            checkpoint.save(tmp_path / "state", whole.state_dict())
    resumed = make(**STATISTICS)
    resumed.load_state_dict(checkpoint.load(tmp_path / "state"))
    for _ in run_sequence(resumed):
        pass
    assert_equal_trees(resumed.state_dict(), whole.state_dict())
    assert resumed.accuracies() == whole.accuracies()


def test_numbers_of_statistics_count() -> None:
    learner = make(**STATISTICS)
    list(run_sequence(learner))
    state = learner.strategy.state_dict()
    statistics = state["statistics"]
    sizes = [one.size for of_task in statistics for one in of_task.values()]
    others = {name: state[name] for name in ("task", "owner", "bias_owner", "reserved_by", "archive")}
    assert learner.strategy.numbers_kept() == count_numbers(others) + sum(sizes)
    for of_task in statistics:
        features = len(of_task["read"])
        assert {name: one.size for name, one in of_task.items()} == {
            "units": 2,
            "read": features,
            "means": 2 * features,
            "components": 3 * features,
            "variances": 4,
        }


def test_domains_share_classes() -> None:
    with pytest.raises(ConfigError, match=r"spacenet.answers statistics compares classes .* --spacenet.answers logits"):
        make("domain", **STATISTICS)
