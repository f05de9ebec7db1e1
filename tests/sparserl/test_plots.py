"""Pictures of runs: what is drawn is what the CSV files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparserl import plots
from sparserl.errors import ConfigError
from sparserl.plots import Run, evaluation_curve, plot_runs

PROGRESS = "global_step,topology/density,topology/explored_fraction\n"


def run_folder(path: Path, returns: dict[int, list[float]], progress: str = "") -> Path:
    path.mkdir()
    rows = [f"{step},{i},{value},10" for step, values in returns.items() for i, value in enumerate(values)]
    (path / "eval.csv").write_text("global_step,episode,return,length\n" + "\n".join(rows) + "\n")
    (path / "progress.csv").write_text(PROGRESS + (progress or "100,0.5,0.5\n200,0.5,0.75\n"))
    return path


def test_evaluation_curve_is_the_mean_over_episodes(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0, 3.0], 100: [10.0, 30.0]})
    steps, means = evaluation_curve(run)
    assert steps.tolist() == [0, 100]
    assert means.tolist() == [2.0, 20.0]


def test_seeds_are_averaged_where_all_have_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "write_figure", lambda figure, out: drawn.append(figure))
    a = run_folder(tmp_path / "a", {0: [0.0], 100: [10.0], 200: [50.0]})
    b = run_folder(tmp_path / "b", {0: [2.0], 100: [20.0]})
    dense = run_folder(tmp_path / "c", {0: [7.0]}, progress="100,,\n")
    plot_runs([Run(a, "sparse"), Run(b, "sparse"), Run(dense, "dense")], tmp_path / "out.png")
    returns, density, explored = drawn[0].axes
    lines = {line.get_label(): line for line in returns.get_lines()}
    assert lines["sparse (mean of 2 seeds)"].get_xydata().tolist() == [[0, 1], [100, 15]]
    assert lines["dense (1 seed)"].get_xydata().tolist() == [[0, 7]]
    assert all(line.get_ydata().tolist() == [0.5, 0.5] for line in density.get_lines())
    assert explored.get_lines()[0].get_ydata().tolist() == [0.5, 0.75]


def test_dense_runs_get_one_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "write_figure", lambda figure, out: drawn.append(figure))
    plot_runs([Run(run_folder(tmp_path / "c", {0: [7.0]}, progress="100,,\n"), "dense")], tmp_path / "out.png")
    assert len(drawn[0].axes) == 1


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", {0: [1.0]})
    with pytest.raises(ConfigError, match="cannot write"):
        plot_runs([Run(run, "a")], tmp_path / "nowhere" / "out.png")
    with pytest.raises(ConfigError, match="cannot write"):
        plot_runs([Run(run, "a")], tmp_path / "out.xyz")
    (run / "eval.csv").write_text("global_step,episode,return,length\n")
    with pytest.raises(ConfigError, match="no rows yet"):
        plot_runs([Run(run, "a")], tmp_path / "out.png")
    (run / "eval.csv").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        plot_runs([Run(run, "a")], tmp_path / "out.png")
