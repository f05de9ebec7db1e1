"""Pictures of continual runs: what is drawn is what the CSV files say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.figures import lines_of

from sparserl.errors import ConfigError
from sparserl.plots.matrix import plot_sequence_run, plot_sequence_runs
from sparserl.plots.style import COLOURS, Run
from sparserl.recording.evaluations import accuracy_curve, accuracy_matrix

EVAL = "global_step,after_task,task,accuracy,samples\n"
CONNECTIONS = "after_task,layer,owner,connections,frozen,free,size,neurons,reserved\n"
MATRIX = [[0.9, None, None], [0.5, 0.8, None], [0.4, 0.6, 0.8]]


def run_folder(path: Path, matrix: list[list[float | None]] = MATRIX, owners: bool = True) -> Path:
    """A run of three tasks of 10 steps, of which `len(matrix)` are learned; two layers."""
    path.mkdir()
    accuracies = [[0.1, 0.1, 0.1], *matrix]
    lines = [
        f"{10 * (after + 1)},{after},{task},{'' if value is None else value},20"
        for after, row in enumerate(accuracies, start=-1)
        for task, value in enumerate(row)
    ]
    (path / "eval.csv").write_text(EVAL + "\n".join(lines) + "\n")
    lines = []
    for after in range(len(matrix)):
        for layer, each, size in (("network.0", 5, 100), ("network.1", 2, 8)):
            shares = {str(task): each for task in range(after + 1)} if owners else {"shared": size}
            used = sum(shares.values())
            lines += [f"{after},{layer},{owner},{count},0,{size - used},{size},4,0" for owner, count in shares.items()]
    (path / "connections.csv").write_text(CONNECTIONS + "\n".join(lines) + "\n" * bool(lines))
    return path


def test_matrix_and_curve_are_those_of_the_file(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a")
    expected = np.array(MATRIX, dtype=float)
    assert np.array_equal(accuracy_matrix(run), expected, equal_nan=True)
    learned, seen = accuracy_curve(run)
    assert learned.tolist() == [1, 2, 3]
    assert seen == pytest.approx([0.9, 0.65, 0.6])


def test_a_run_that_is_not_finished_is_drawn_as_far_as_it_is(tmp_path: Path, drawn: list[Figure]) -> None:
    run = run_folder(tmp_path / "a", MATRIX[:2])
    assert np.isnan(accuracy_matrix(run)[2]).all()
    assert accuracy_curve(run)[0].tolist() == [1, 2]
    plot_sequence_run(run, tmp_path / "out.png")
    assert len(drawn) == 1


def test_numbers_stand_in_measured_cells_alone(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_sequence_run(run_folder(tmp_path / "a"), tmp_path / "out.png", "a title")
    matrix_axis = drawn[0].axes[0]
    assert matrix_axis.get_ylim() == (2.5, -0.5)  # the first task on top
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in matrix_axis.texts}
    assert shown == {(0, 0): "90.0", (0, 1): "50.0", (1, 1): "80.0", (0, 2): "40.0", (1, 2): "60.0", (2, 2): "80.0"}
    hatched = {tuple(np.array(patch.get_xy()) + 0.5) for patch in matrix_axis.patches}  # type: ignore[attr-defined]
    assert hatched == {(1.0, 0.0), (2.0, 0.0), (2.0, 1.0)}
    assert drawn[0].get_suptitle() == "a title"


def test_accuracy_over_time_has_a_line_for_each_task_and_the_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_sequence_run(run_folder(tmp_path / "a"), tmp_path / "out.png")
    lines = lines_of(drawn[0].axes[1])
    assert lines["task 1"][-2:] == [[20, 0.8], [30, 0.6]]
    assert np.isnan(lines["task 1"][1][1])
    assert lines["mean of those learned"] == [[10, 0.9], [20, pytest.approx(0.65)], [30, pytest.approx(0.6)]]
    borders = [line[0][0] for label, line in lines.items() if label.startswith("_")]
    assert borders == [10, 20]


def test_connections_are_stacked_by_owner_up_to_the_dense_layer(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_sequence_run(run_folder(tmp_path / "a"), tmp_path / "out.png")
    first, second = drawn[0].axes[2:]
    after_last = [bar for bar in first.patches if bar.get_x() > 1.5]  # type: ignore[attr-defined]
    assert [(bar.get_y(), bar.get_height()) for bar in after_last] == [(0, 5), (5, 5), (10, 5), (15, 85)]  # type: ignore[attr-defined]
    assert max(bar.get_y() + bar.get_height() for bar in second.patches) == 8  # type: ignore[attr-defined]
    assert (first.get_title(), second.get_title()) == ("network.0 (100)", "network.1 (8)")
    legend = drawn[0].subfigs[1].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["of task 0", "of task 1", "of task 2", "free"]


def test_shared_connections_are_said_to_be_shared(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_sequence_run(run_folder(tmp_path / "a", owners=False), tmp_path / "out.png")
    legend = drawn[0].subfigs[1].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["shared by all tasks", "free"]


def test_what_tasks_share_stands_above_what_they_own(tmp_path: Path, drawn: list[Figure]) -> None:
    run = run_folder(tmp_path / "a", MATRIX[:2])
    header, *_ = (run / "connections.csv").read_text().splitlines()
    rows = [("0", 0, 5), ("shared", 0, 30), ("0", 1, 5), ("1", 1, 10), ("shared", 1, 25)]
    lines = [f"{after},network.0,{owner},{count},0,{65 - 5 * after},100,4,0" for owner, after, count in rows]
    (run / "connections.csv").write_text("\n".join([header, *lines]) + "\n")
    plot_sequence_run(run, tmp_path / "out.png")
    bars = [bar for bar in drawn[0].axes[2].patches if bar.get_x() > 0.5]  # type: ignore[attr-defined]
    assert [(bar.get_y(), bar.get_height()) for bar in bars] == [(0, 5), (5, 10), (15, 25), (40, 60)]  # type: ignore[attr-defined]
    legend = drawn[0].subfigs[1].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["of task 0", "of task 1", "shared by all tasks", "free"]


def test_seeds_are_averaged_where_all_have_come(tmp_path: Path, drawn: list[Figure]) -> None:
    a = run_folder(tmp_path / "a")
    b = run_folder(tmp_path / "b", [[0.7, None, None], [0.5, 0.4, None]])
    alone = run_folder(tmp_path / "c")
    runs = [Run(a, "spacenet", task="title"), Run(b, "spacenet", task="title"), Run(alone, "naive", task="title")]
    plot_sequence_runs(runs, tmp_path / "out.png")
    lines = lines_of(drawn[0].axes[0])
    assert lines["spacenet (n = 2)"] == [[1, pytest.approx(0.8)], [2, pytest.approx(0.55)]]
    assert [x for x, _ in lines["naive (n = 1)"]] == [1, 2, 3]
    assert drawn[0].axes[0].get_title() == "title"


def test_each_scenario_has_an_axis_of_its_own(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [run_folder(tmp_path / name) for name in "abc"]
    labels = (("ewc", "x, class"), ("naive", "x, class"), ("ewc", "x, task"))
    given = [Run(run, label, task=task) for run, (label, task) in zip(runs, labels, strict=True)]
    plot_sequence_runs(given, tmp_path / "out.png")
    assert [(axis.get_title(), set(lines_of(axis))) for axis in drawn[0].axes] == [
        ("x, class", {"ewc (n = 1)", "naive (n = 1)"}),
        ("x, task", {"ewc (n = 1)"}),
    ]
    colours = [axis.get_lines()[0].get_color() for axis in drawn[0].axes]
    assert colours[0] == colours[1]
    assert len(drawn[0].legends[0].get_texts()) == 2


def test_more_methods_than_colours_differ_in_their_lines(tmp_path: Path, drawn: list[Figure]) -> None:
    run = run_folder(tmp_path / "a")
    plot_sequence_runs([Run(run, f"method {number}") for number in range(13)], tmp_path / "out.png")
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].get_lines()}
    assert len(looks) == 13 > len(COLOURS)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    new = run_folder(tmp_path / "a", [])
    with pytest.raises(ConfigError, match="a has not learned its first task yet"):
        plot_sequence_run(new, tmp_path / "out.png")
    with pytest.raises(ConfigError, match="a has not learned its first task yet"):
        plot_sequence_runs([Run(new, "a")], tmp_path / "out.png")
    with pytest.raises(ConfigError, match="cannot write"):
        plot_sequence_run(run_folder(tmp_path / "b"), tmp_path / "nowhere" / "out.png")
    (new / "eval.csv").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        plot_sequence_runs([Run(new, "a")], tmp_path / "out.png")
