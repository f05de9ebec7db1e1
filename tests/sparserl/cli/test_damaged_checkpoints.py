"""Damaged and edited checkpoints are refused in one line, and nothing in the folder changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_checkpoints import fuzz, tiny_env
from support.cut_runs import KINDS, cut_off

CASES = 200


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    with tiny_env():
        return {kind: cut_off(kind, folder / kind / "run") for kind in KINDS}


def test_no_damage_ends_in_a_traceback_or_changes_the_folder(runs: dict[str, Path], tmp_path: Path) -> None:
    with tiny_env():
        counts, wrong = fuzz(tmp_path, runs, CASES, seed=0)
    assert not wrong, "\n".join(wrong[:20])
    assert sum(count for line, count in counts.items() if line.endswith("refused")) > CASES / 2
    assert counts["edited_state: taken"] > 0  # a wall time, say: the cases do get that far
