"""Scripts of `results/`: what they make of what is there already is what is there."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results"
KEPT = ("lenet300", "frontier", "headline", "state-of-sparse", "split_mnist", "split_fashion_mnist")
"""Folders whose runs.csv grows."""


@pytest.mark.parametrize("name", KEPT)
def test_without_new_runs_the_file_stays_and_the_readme_has_the_numbers(name: str, tmp_path: Path) -> None:
    shutil.copy(RESULTS / "tables.py", tmp_path)
    folder = tmp_path / name
    shutil.copytree(RESULTS / name, folder)
    none = tmp_path / "none"
    none.mkdir()
    words = [sys.executable, str(folder / "make_table.py"), str(none)]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert (folder / "runs.csv").read_bytes() == (RESULTS / name / "runs.csv").read_bytes()
    readme = (folder / "README.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert len(rows) > 4
    numbers = {cell for row in rows for cell in row if "+-" in cell or " [" in cell}
    assert {number for number in numbers if number not in readme} == set()


def test_a_run_that_is_there_anew_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RESULTS))
    from tables import half_interval, mean_and_deviation, merged  # type: ignore[import-not-found]

    file = tmp_path / "runs.csv"
    head = ("method", "seed", "acc")
    merged(file, head[:2], [{"method": "set", "seed": seed, "acc": seed / 4} for seed in (10, 2)], head)
    rows = merged(file, head[:2], [{"method": "set", "seed": 2, "acc": 1}, {"method": "a", "seed": 0, "acc": 0}], head)
    assert [tuple(row.values()) for row in rows] == [("a", "0", "0"), ("set", "2", "1"), ("set", "10", "2.5")]
    assert list(csv.DictReader(file.read_text().splitlines())) == rows
    assert (mean_and_deviation([1.0, 3.0]), mean_and_deviation([2.0], 1)) == ("2.00 +- 1.41", "2.0")
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.303 / 3**0.5)
