"""What a report reads of a run of an agent on a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparserl.report.rl_run import _tasks

TASK: dict[str, Any] = {"name": "a", "env": "Hopper-v5", "modification": {}, "steps": 10}


@pytest.mark.parametrize("more", [{"kwargs": {"frame_skip": 2}}, {"episode_steps": 50}, {"steps": 20}])
def test_tasks_that_differ_in_one_thing_are_not_the_same(more: dict[str, Any]) -> None:
    (task,), (other,), (same,) = (
        _tasks({"tasks": [data]}, Path("sequence.yaml"))
        for data in (TASK, {**TASK, **more}, {**TASK, "name": "b", "kwargs": {}, "episode_steps": None})
    )
    assert task != other
    assert task == same
