"""The programs of `examples/` run, briefly, and say what they promise."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BRIEF = {"train_agent": "300", "own_env": "300"}
"""Env steps; epochs, of which one will do, of the others."""
SAYS = {
    "train_agent": "return of ten episodes",
    "sparsify_model": "test accuracy",
    "continual_method": "FrozenFeatures",
    "own_env": "return",
    "select_features": "attribution",
    "notebook_pixels": "density 0.05",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name, BRIEF.get(path.stem, "1")])
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.stem] in capsys.readouterr().out
    assert (tmp_path / "pixels.png").exists() == (path.stem == "notebook_pixels")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_read_on_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
