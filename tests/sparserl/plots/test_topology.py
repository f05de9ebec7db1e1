"""Pictures of what a topology did: what is drawn is what the log and the snapshots say, old ones too."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure
from PIL import Image

from sparserl.errors import CheckpointError, ConfigError
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.plots import topology as topology_plots
from sparserl.plots.topology import (
    ABSENT,
    GROWN,
    INITIAL,
    PANELS,
    animate_connectivity,
    layer_moments,
    plot_connectivity,
    plot_topology,
)
from sparserl.recording.snapshots import snapshot_files
from sparserl.topology.structure import SparseTopology

OLD_COLUMNS = TOPOLOGY_COLUMNS[:12]
"""Those of runs before fan-in and what follows it were recorded."""
LAYERS = ("actor.mu.0", "critic.qf0.0")


def snapshot(path: Path, step: int, flat: list[int], shape: tuple[int, int] = (2, 3)) -> None:
    (path / "topology").mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name in LAYERS:
        arrays |= {name: torch.tensor(flat), f"{name}.shape": torch.tensor(shape)}
    safetensors.torch.save_file(arrays, path / "topology" / f"step-{step:09d}.safetensors")


def log(path: Path, columns: tuple[str, ...], **known: list[float]) -> Path:
    """A run of three events a layer; columns that are not `known` are 0.5."""
    path.mkdir(exist_ok=True)
    with (path / "topology.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for event in range(3):
            for layer in LAYERS:
                row: dict[str, Any] = dict.fromkeys(columns, 0.5)
                row |= {name: values[event] for name, values in known.items() if name in columns}
                writer.writerow({**row, "global_step": 100 * event, "layer": layer, "kind": "rewire"})
    return path


def titles(figure: Figure) -> dict[str, Any]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def test_every_panel_draws_its_column(tmp_path: Path, drawn: list[Figure]) -> None:
    nan = float("nan")
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS, initial_overlap=[1.0, 0.75, 0.5], dormant=[nan, 0.1, 0.2])
    for step in (0, 100, 200, 250):
        snapshot(run, step, [0, 2, 4])
    plot_topology(run, tmp_path / "out.png", "a title")
    panels = titles(drawn[0])
    assert {axis.get_xlim() for axis in panels.values()} == {(0, 250)}  # to the end of the run, not to the last event
    assert {panel.title for panel in PANELS} <= set(panels)
    overlap, _ = panels["overlap with the initial topology"].get_lines()
    assert overlap.get_xydata().tolist() == [[0, 1.0], [100, 0.75], [200, 0.5]]
    dormant = panels["dormant neurons"].get_lines()[0]
    assert dormant.get_xydata().tolist() == [[100, 0.1], [200, 0.2]]  # unknown before the first transition
    assert len(panels["density"].get_lines()) == 2  # one of each layer
    effective = panels["effective: on a path from input to output"].get_lines()[0]
    assert effective.get_ydata().tolist() == [1.0, 1.0, 1.0, 1.0]
    assert {f"{layer}: {what}" for layer in LAYERS for what in ("fan-in", "fan-out")} <= set(panels)
    assert drawn[0].get_suptitle() == "a title"


def test_relevant_and_irrelevant_inputs_have_lines_where_they_are_known(tmp_path: Path, drawn: list[Figure]) -> None:
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS, degree_relevant=[2.0, 3.0, 4.0], degree_irrelevant=[2.0, 1.5, 1.0])
    plot_topology(run, tmp_path / "out.png")
    lines = {
        line.get_label(): line.get_ydata().tolist() for line in titles(drawn[0])["actor.mu.0: fan-out"].get_lines()
    }
    assert lines["mean, relevant features"] == [2.0, 3.0, 4.0]
    assert lines["mean, irrelevant features"] == [2.0, 1.5, 1.0]


def test_an_old_run_is_drawn_as_far_as_it_goes(tmp_path: Path, drawn: list[Figure]) -> None:
    run = log(tmp_path / "run", OLD_COLUMNS)
    plot_topology(run, tmp_path / "out.png")
    assert set(titles(drawn[0])) == {"density", "explored: ever connected"}


def test_what_is_never_known_has_no_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS, dormant=[float("nan")] * 3)
    plot_topology(run, tmp_path / "out.png")
    left_out = {panel.title for panel in PANELS} - set(titles(drawn[0]))
    assert left_out == {"dormant neurons", "effective: on a path from input to output"}  # the latter needs snapshots


def test_a_picture_is_written(tmp_path: Path) -> None:
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS)
    snapshot(run, 0, [0, 1])
    plot_topology(run, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_moments_worked_by_hand(tmp_path: Path) -> None:
    snapshot(tmp_path, 700, [0, 1, 2, 3])
    (moment,) = layer_moments(snapshot_files(tmp_path))["actor.mu.0"]
    assert (moment.step, moment.n_in) == (700, 3)
    assert moment.degrees.tolist() == [2, 1, 1]
    assert moment.fan_in.tolist() == pytest.approx([1.2, 2.8])  # 10 and 90 % between fan-ins 3 and 1
    assert moment.effective == 1.0


def test_picture_tells_the_first_connections_from_grown_ones() -> None:
    picture = topology_plots._picture(SparseTopology(2, 3, np.array([0, 2, 5])), np.array([0, 1, 5]))
    assert picture.tolist() == [[INITIAL, ABSENT, GROWN], [ABSENT, ABSENT, INITIAL]]


def test_a_large_layer_is_binned() -> None:
    n_out, n_in = 200_000, 300_000
    layer = SparseTopology(n_out, n_in, np.array([0, n_out * n_in - 1]))
    picture = topology_plots._picture(layer, np.array([0]))
    assert picture.shape == (512, 512)
    assert picture[0, 0] == INITIAL
    assert picture[-1, -1] == GROWN
    assert np.count_nonzero(picture) == 2


def test_connectivity_picture_is_written(tmp_path: Path) -> None:
    for step in range(9):
        snapshot(tmp_path, step, [0, 1, 2 + step % 4])
    plot_connectivity(tmp_path, "actor.mu.0", tmp_path / "layer.png")
    assert (tmp_path / "layer.png").read_bytes().startswith(b"\x89PNG")


def test_an_animation_moves_and_rests_at_the_end(tmp_path: Path) -> None:
    for step in range(5):
        snapshot(tmp_path, 100 * step, [0, 1, 2 + step % 4])
    animate_connectivity(tmp_path, "actor.mu.0", tmp_path / "layer.gif")
    with Image.open(tmp_path / "layer.gif") as picture:
        assert picture.is_animated
        frames, milliseconds = [], []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(picture.convert("RGB"))
            milliseconds.append(picture.info["duration"])
    assert len(frames) == 5
    for before, after in pairwise(np.asarray(frame, int)[60:] for frame in frames):  # below the title
        assert abs(after - before).max() > 100  # a cell, not a rounded colour
    assert milliseconds == [1000, 1000, 1000, 1000, 2000]


def test_of_many_snapshots_the_first_and_the_last_are_among_the_shown() -> None:
    files = [Path(str(number)) for number in range(100)]
    shown = topology_plots._spread(files, 7)
    assert len(shown) == 7
    assert (shown[0], shown[-1]) == (files[0], files[-1])


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    for draw in (plot_connectivity, animate_connectivity):
        with pytest.raises(ConfigError, match="no topology snapshots"):
            draw(tmp_path / "nothing", "actor.mu.0", tmp_path / "layer.gif")
    snapshot(tmp_path, 0, [0])
    for draw in (plot_connectivity, animate_connectivity):
        with pytest.raises(ConfigError, match=r"unknown layer 'actor.mu.9'; did you mean 'actor.mu.0'\?"):
            draw(tmp_path, "actor.mu.9", tmp_path / "layer.gif")
        with pytest.raises(ConfigError, match="cannot write"):
            draw(tmp_path, "actor.mu.0", tmp_path / "nowhere" / "layer.gif")
    (tmp_path / "topology.csv").write_text(",".join(TOPOLOGY_COLUMNS) + "\n")
    with pytest.raises(ConfigError, match="no topology events"):
        plot_topology(tmp_path, tmp_path / "out.png")


def test_a_run_that_is_being_written_is_drawn_as_far_as_it_is(tmp_path: Path, drawn: list[Figure]) -> None:
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS)
    text = (run / "topology.csv").read_text()
    (run / "topology.csv").write_text(text[: text.rindex("0.5,0.5")])  # the last row ends amid its columns
    plot_topology(run, tmp_path / "out.png")
    first, last = titles(drawn[0])["dormant neurons"].get_lines()
    assert first.get_xdata().tolist() == [0, 100, 200]
    assert last.get_xdata().tolist() == [0, 100]


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    run = log(tmp_path / "run", TOPOLOGY_COLUMNS)
    snapshot(run, 0, [0, 1])
    snapshot(run, 100, [0, 2])
    last = snapshot_files(run)[-1]
    last.write_bytes(last.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"step-000000100\.safetensors is damaged"):
        plot_topology(run, tmp_path / "out.png")
    for draw in (plot_connectivity, animate_connectivity):
        with pytest.raises(CheckpointError, match=r"step-000000100\.safetensors is damaged"):
            draw(run, "actor.mu.0", tmp_path / "layer.gif")
