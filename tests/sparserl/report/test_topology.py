"""Topology charts: means over seeds from `progress.csv`, layers of one seed from `topology.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.train_runs import write_train_run

from sparserl.report import topology
from sparserl.report.document import Chart, LineChart
from sparserl.report.topology import topology_sections
from sparserl.report.trained import Comparison, comparisons, read_trained_run

Curve = Sequence[tuple[float, float]]


def compared(*runs: Path) -> list[Comparison]:
    found = [
        read_trained_run(run, run.name.rstrip("0123"), {"env": "Hopper-v5", "seed": int(run.name[-1])}) for run in runs
    ]
    return comparisons(found, None, False)


def run_folder(path: Path, density: Curve, layers: Mapping[str, Curve] | None = None) -> Path:
    """A run of which density, explored fraction is one more; `progress.csv` has an empty cell at the start."""
    write_train_run(path, [0, 1], seed=int(path.name[-1]))
    rows = ["global_step,topology/density,topology/explored_fraction", "1,,"]
    rows += [f"{step},{value},{value + 1}" for step, value in density]
    (path / "progress.csv").write_text("\n".join(rows) + "\n")
    if layers is not None:
        rows = ["global_step,layer,density,explored_fraction"]
        rows += [f"{step},{layer},{value},{value + 1}" for layer, curve in layers.items() for step, value in curve]
        (path / "topology.csv").write_text("\n".join(rows) + "\n")
    return path


def lines(chart: Chart) -> dict[str, list[tuple[float, float]]]:
    assert isinstance(chart.drawing, LineChart)
    return {line.label: list(zip(line.x, line.y, strict=True)) for line in chart.drawing.lines}


def test_means_where_all_seeds_have_a_value(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "a0", [(10, 0.5), (20, 0.3), (30, 0.1)])
    two = run_folder(tmp_path / "a1", [(10, 0.7), (30, 0.3)])
    other = run_folder(tmp_path / "b0", [(10, 0.1)])
    (section,) = topology_sections(compared(one, two, other))
    density, explored = section.charts
    assert section.title == "Hopper-v5: topology"
    assert lines(density) == {"a": [(10, pytest.approx(0.6)), (30, pytest.approx(0.2))], "b": [(10, 0.1)]}
    assert lines(explored)["b"] == [(10, 1.1)]
    assert (density.title, explored.title) == ("Density of the sparse layers", "Explored fraction of the sparse layers")


def test_layers_of_the_first_seed_that_has_a_log(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / "a0", [(10, 0.5)]),
        run_folder(tmp_path / "a1", [(10, 0.5)], {"actor.0": [(0, 0.2), (10, 0.1)], "critic.0": [(0, 0.3)]}),
        run_folder(tmp_path / "a2", [(10, 0.5)], {"actor.0": [(0, 0.9)]}),
    ]
    (section,) = topology_sections(compared(*runs))
    *_, density, explored = section.charts
    assert lines(density) == {"actor.0": [(0, 0.2), (10, 0.1)], "critic.0": [(0, 0.3)]}
    assert lines(explored)["actor.0"] == [(0, 1.2), (10, 1.1)]
    assert (density.title, density.caption) == ("a: density of each layer", "Seed 1.")


def test_of_many_events_the_first_and_the_last_are_drawn(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a0", [(10, 0.5)], {"actor.0": [(step, 0.2) for step in range(997)]})
    (section,) = topology_sections(compared(run))
    drawn = lines(section.charts[-1])["actor.0"]
    assert len(drawn) == topology.MOST_POINTS
    assert (drawn[0][0], drawn[-1][0]) == (0, 996)


def test_dense_runs_have_no_section(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a0", [])
    (run / "topology.csv").write_text("global_step,layer,density\n")
    bare = write_train_run(tmp_path / "b1", [0, 1], seed=1)  # without progress.csv
    assert topology_sections(compared(run, bare)) == []


def test_nothing_is_drawn_over_environments(tmp_path: Path) -> None:
    (comparison,) = compared(run_folder(tmp_path / "a0", [(10, 0.5)]))
    assert topology_sections([replace(comparison, envs=("Hopper-v5", "Ant-v5"))]) == []
