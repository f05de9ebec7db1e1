"""Runs killed at random moments end like runs that nothing stopped; `kills.py` does this at length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.slow
def test_killed_runs_end_like_others(tmp_path: Path) -> None:
    kinds = ("ds_td3", "spacenet", "ds_sac", "tasks finetune")  # at two threads, at one, and so on
    kills = str(len(kinds))
    words = ["--kills", kills, "--kills-a-run", "1", "--threads", "2", "1", "--kinds", *kinds]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{kills} kills of "), done.stdout
