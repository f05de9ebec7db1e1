"""Runs killed at random moments end like runs that nothing stopped; `kills.py` does this at length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_killed_runs_end_like_others(threads: str, tmp_path: Path) -> None:
    kinds = ("ds_td3", "spacenet", "tasks finetune")
    words = ["--kills", "4", "--threads", threads, "--kinds", *kinds, "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = int(done.stdout.splitlines()[-1].split()[0])
    assert kills >= 4, done.stdout
