"""A finished run on a small env, and runs that are not really trained."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest
from support import stand_in as stand_in_program
from support.envs import FunctionEnv
from support.runs import FAST, REWIRE, leave_undrawn, train

from sparserl.sweep import pool as sweep_pool
from sparserl.sweep import process as job_process


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DS-TD3 on the tiny env; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    try:
        with pytest.MonkeyPatch.context() as patch:
            leave_undrawn(patch)
            assert train(path, *FAST, *REWIRE) == 0
    finally:
        gym.registry.pop("Tiny-v0")
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of runs that `support.stand_in` pretends to train."""
    monkeypatch.setattr(job_process, "COMMAND", stand_in_program.COMMAND)
    monkeypatch.setattr(sweep_pool, "POLL_S", 0.01)
    out = tmp_path / "runs"
    out.mkdir()
    return out
