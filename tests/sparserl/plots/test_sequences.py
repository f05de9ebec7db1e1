"""Pictures of continual RL runs: what is drawn is what the files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support.figures import lines_of

from sparserl.errors import ConfigError
from sparserl.plots.sequences import plot_rl_run, plot_rl_runs
from sparserl.plots.style import Run
from sparserl.recording.evaluations import evaluations

EVAL = "global_step,training_task,task,stochastic,episode,return,length,success,success_last\n"
CONNECTIONS = "after_task,layer,owner,connections,frozen,free,size,neurons,reserved\n"
STEPS = (10, 20, 10)
NAMES = ("moon", "rainfall", "carry_stuff")
CURVES: Mapping[int, Sequence[float]] = {
    0: (0, 8, -4),
    5: (50, 2, 0),
    10: (100, 4, -10),
    20: (60, 200, 2),
    30: (40, 300, 6),
    35: (30, 150, 40),
    40: (20, 100, 90),
}
"""Env step -> performance on each task; two stochastic episodes have it as their mean, a deterministic one 5 more."""
RATES = {step: (step / 40, 0.5, 1.0) for step in CURVES}


def run_folder(
    path: Path,
    curves: Mapping[int, Sequence[float]] = CURVES,
    *,
    success: Sequence[int] = (),
    steps: Sequence[int] = STEPS,
    names: Sequence[str] = NAMES,
    owners: bool = True,
) -> Path:
    """A run that went as far as its evaluations; two layers.

    Args:
        path: The folder.
        curves: As `CURVES`.
        success: Tasks that signal success, of which `curves` is then the rate, in quarters.
        steps: Of the tasks.
        names: Of the tasks.
        owners: Whether connections belong to tasks.
    """
    path.mkdir()
    tasks = [
        {"index": i, "name": name, "env": "Ant-v5", "steps": own}
        for i, (name, own) in enumerate(zip(names, steps, strict=True))
    ]
    (path / "sequence.yaml").write_text(yaml.safe_dump({"name": "made_up", "tasks": tasks}))
    lines = []
    for step, values in curves.items():
        for task, value in enumerate(values):
            at = f"{step},0,{task}"
            if task in success:
                lines += [f"{at},1,{episode},7,1,{int(episode < 4 * value)},0" for episode in range(4)]
                lines += [f"{at},0,0,7,1,1,0"]
            else:
                lines += [f"{at},1,0,{value - 3},1,,", f"{at},1,1,{value + 3},1,,", f"{at},0,0,{value + 5},1,,"]
    (path / "eval.csv").write_text(EVAL + "".join(f"{line}\n" for line in lines))
    lines = []
    for after in range(sum(border in curves for border in np.cumsum(steps))):
        for layer, each, size in (("actor.pi.trunk.0", 5, 100), ("actor.pi.heads", 2, 8)):
            shares = {str(task): each for task in range(after + 1)} if owners else {"shared": size}
            free = size - sum(shares.values())
            lines += [f"{after},{layer},{owner},{count},0,{free},{size},4,0" for owner, count in shares.items()]
    (path / "connections.csv").write_text(CONNECTIONS + "".join(f"{line}\n" for line in lines))
    return path


def until(last_step: int, curves: Mapping[int, Sequence[float]] = CURVES) -> dict[int, Sequence[float]]:
    return {step: values for step, values in curves.items() if step <= last_step}


def borders_of(axis: Axes) -> list[float]:
    return [float(np.asarray(line.get_xdata())[0]) for line in axis.get_lines() if line.get_linestyle() == ":"]


def spans_of(axis: Axes) -> list[tuple[float, float]]:
    return [(span.get_x(), span.get_x() + span.get_width()) for span in axis.patches]  # type: ignore[attr-defined]


def cells_of(axis: Axes) -> dict[tuple[int, int], str]:
    """(after, task) -> number."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axis.texts}


def legend_of(figure: Figure) -> list[str]:
    """Texts of the legends of a figure and its parts."""
    parts = [part for above in figure.subfigs for part in (above, *above.subfigs)]
    return [text.get_text() for part in (figure, *parts) for legend in part.legends for text in legend.get_texts()]


# What the files say.


def test_performance_is_the_mean_of_the_episodes_of_each_policy(tmp_path: Path) -> None:
    run = evaluations(run_folder(tmp_path / "a"))
    assert run.names == list(NAMES)
    assert run.borders.tolist() == [0, 10, 30, 40]
    assert run.measure == "return"
    assert run.steps.tolist() == list(CURVES)
    assert run.stochastic.tolist() == [list(values) for values in CURVES.values()]
    assert (run.deterministic - run.stochastic == 5).all()


def test_the_matrix_has_the_evaluations_at_the_borders(tmp_path: Path) -> None:
    matrix = evaluations(run_folder(tmp_path / "a", until(35))).matrix
    assert matrix[:2].tolist() == [[100, 4, -10], [40, 300, 6]]
    assert np.isnan(matrix[2]).all()


def test_the_mean_so_far_counts_the_task_in_training_and_none_that_follows(tmp_path: Path) -> None:
    so_far = evaluations(run_folder(tmp_path / "a")).of_tasks_so_far()
    assert so_far == pytest.approx([0, 50, 100, (60 + 200) / 2, (40 + 300) / 2, (30 + 150 + 40) / 3, 210 / 3])


def test_success_is_performance_where_every_task_signals_it(tmp_path: Path) -> None:
    run = evaluations(run_folder(tmp_path / "a", RATES, success=(0, 1, 2)))
    assert run.measure == "success rate"
    assert run.stochastic[2].tolist() == [0.25, 0.5, 1.0]
    assert run.deterministic[2].tolist() == [1, 1, 1]
    mixed = evaluations(run_folder(tmp_path / "b", RATES, success=(0, 2)))
    assert mixed.measure == "return"
    assert mixed.stochastic[2].tolist() == [7, 0.5, 7]


def test_an_evaluation_that_is_still_going_on_is_left_out(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", until(5))
    with (run / "eval.csv").open("a") as file:
        file.write("10,0,0,1,0,1000,1,,\n10,0,1,1,0,10")  # the rest of this row, and task 2, are to come
    assert evaluations(run).steps.tolist() == [0, 5]


# One run.


def test_a_panel_for_each_task_has_both_policies_and_its_own_interval(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a"), tmp_path / "out.png", "a title")
    panels = drawn[0].axes[:3]
    assert [axis.get_title("left") for axis in panels] == ["0 moon", "1 rainfall", "2 carry_stuff"]
    assert lines_of(panels[1])["stochastic"] == [[step, values[1]] for step, values in CURVES.items()]
    assert lines_of(panels[1])["deterministic"] == [[step, values[1] + 5] for step, values in CURVES.items()]
    styles = {line.get_label(): (line.get_linestyle(), line.get_linewidth()) for line in panels[1].get_lines()}
    assert styles["stochastic"][0] == "-"
    assert styles["deterministic"][0] == "--"
    assert styles["deterministic"][1] < styles["stochastic"][1]
    assert [spans_of(axis) for axis in panels] == [[(0, 10)], [(10, 30)], [(30, 40)]]
    assert all(borders_of(axis) == [10, 30] for axis in panels)
    assert all(axis.get_xlim() == (0, 40) for axis in panels)
    assert drawn[0].get_suptitle() == "a title"


def test_numbers_stand_in_measured_cells_alone(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a", until(35)), tmp_path / "out.png")
    axis = drawn[0].axes[3]
    first = {(0, 0): "100", (0, 1): "4", (0, 2): "-10"}
    assert cells_of(axis) == first | {(1, 0): "40", (1, 1): "300", (1, 2): "6"}
    hatched = {tuple(np.array(patch.get_xy()) + 0.5) for patch in axis.patches}  # type: ignore[attr-defined]
    assert hatched == {(0.0, 2.0), (1.0, 2.0), (2.0, 2.0)}
    assert axis.collections[0].get_clim() == (-10, 300)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0 moon", "1 rainfall", "2 carry_stuff"]
    assert axis.get_title().startswith("return at the borders")


@pytest.mark.parametrize(("factor", "shown"), [(1.0, "300"), (0.1, "30.0"), (0.01, "3.00"), (0.0, "0.00")])
def test_small_returns_have_decimals(tmp_path: Path, drawn: list[Figure], factor: float, shown: str) -> None:
    curves = {step: [factor * value for value in values] for step, values in CURVES.items()}
    plot_rl_run(run_folder(tmp_path / "a", curves), tmp_path / "out.png")
    assert cells_of(drawn[0].axes[3])[1, 1] == shown


def test_success_is_drawn_as_a_share(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a", RATES, success=(0, 1, 2)), tmp_path / "out.png")
    panel, matrix_axis = drawn[0].axes[1], drawn[0].axes[3]
    assert panel.get_ylim() == (-0.05, 1.05)
    assert cells_of(matrix_axis)[0, 0] == "25"
    assert cells_of(matrix_axis)[2, 2] == "100"
    assert matrix_axis.collections[0].get_clim() == (0, 100)
    assert matrix_axis.get_title().startswith("success rate (%)")


def test_connections_are_drawn_as_in_the_supervised_picture(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a"), tmp_path / "out.png")
    first, second = drawn[0].axes[4:]
    assert (first.get_title(), second.get_title()) == ("actor.pi.trunk.0 (100)", "actor.pi.heads (8)")
    after_last = [bar for bar in first.patches if bar.get_x() > 1.5]  # type: ignore[attr-defined]
    assert [(bar.get_y(), bar.get_height()) for bar in after_last] == [(0, 5), (5, 5), (10, 5), (15, 85)]  # type: ignore[attr-defined]
    assert legend_of(drawn[0])[-4:] == ["of task 0", "of task 1", "of task 2", "free"]
    own = {line.get_label(): line.get_color() for line in drawn[0].axes[1].get_lines()}["stochastic"]
    assert first.patches[3].get_facecolor() == own  # the second owner's first bar, after three of the first


def test_shared_connections_are_said_to_be_shared(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a", owners=False), tmp_path / "out.png")
    assert legend_of(drawn[0])[-2:] == ["shared by all tasks", "free"]


def test_before_the_first_border_there_are_curves_alone(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_rl_run(run_folder(tmp_path / "a", until(5)), tmp_path / "out.png")
    assert len(drawn[0].axes) == 3
    assert lines_of(drawn[0].axes[0])["stochastic"] == [[0, 0], [5, 50]]
    assert drawn[0].axes[0].get_xlim() == (0, 40)


def test_a_run_that_stopped_at_its_first_border_has_no_connections(tmp_path: Path, drawn: list[Figure]) -> None:
    run = run_folder(tmp_path / "a", until(10))
    (run / "connections.csv").write_text(CONNECTIONS)
    plot_rl_run(run, tmp_path / "out.png")
    assert len(drawn[0].axes) == 4


def test_many_tasks_stand_in_two_columns_and_their_numbers_in_the_cells(tmp_path: Path, drawn: list[Figure]) -> None:
    steps = [10] * 19
    curves = {step: [-1234.0] * 19 for step in (0, *np.cumsum(steps).tolist())}
    plot_rl_run(run_folder(tmp_path / "a", curves, steps=steps, names=["a long name"] * 19), tmp_path / "out.png")
    figure = drawn[0]
    figure.draw_without_rendering()
    by_task = {int(panel.get_title("left").split()[0]): panel for panel in figure.axes[:19]}
    lefts = [round(by_task[task].get_position().x0, 6) for task in range(19)]
    assert lefts == [lefts[0]] * 10 + [lefts[-1]] * 9
    assert lefts[0] < lefts[-1]
    assert {task for task, panel in by_task.items() if panel.get_xlabel()} == {9, 18}
    axis = figure.axes[19]
    cell = axis.get_window_extent().width / 19
    assert len(axis.texts) == 19 * 19
    assert max(text.get_window_extent().width for text in axis.texts) < cell


# Several runs.


def test_seeds_are_averaged_and_methods_stand_beside_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    a = run_folder(tmp_path / "a")
    doubled = {step: [2 * value for value in values] for step, values in until(30).items()}
    b = run_folder(tmp_path / "b", doubled)
    alone = run_folder(tmp_path / "c")
    labels = {a: "packnet", b: "packnet", alone: "finetune"}
    plot_rl_runs([Run(run, label, task="title") for run, label in labels.items()], tmp_path / "out.png")
    mean_axis, *panels = drawn[0].axes
    both = "packnet (n = 2)"
    assert lines_of(mean_axis)[both] == [[0, 0], [5, 75], [10, 150], [20, 195], [30, 255]]
    assert [x for x, _ in lines_of(mean_axis)["finetune (n = 1)"]] == list(CURVES)
    assert lines_of(panels[1])[both] == [[0, 12], [5, 3], [10, 6], [20, 300], [30, 450]]
    assert lines_of(panels[2])["finetune (n = 1)"] == [[step, values[2]] for step, values in CURVES.items()]
    assert [axis.get_title("left") for axis in panels] == ["0 moon", "1 rainfall", "2 carry_stuff"]
    assert [spans_of(axis) for axis in panels] == [[(0, 10)], [(10, 30)], [(30, 40)]]
    assert all(borders_of(axis) == [10, 30] for axis in drawn[0].axes)
    assert mean_axis.get_ylabel() == "mean return"
    assert legend_of(drawn[0]) == [both, "finetune (n = 1)"]
    assert [part.get_suptitle() for part in drawn[0].subfigs] == ["title"]


def test_each_sequence_has_panels_of_its_own(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = (("ewc", "one"), ("l2", "two"), ("ewc", "two"))
    folders = [run_folder(tmp_path / name) for name in "abc"]
    given = [Run(folder, label, task=task) for folder, (label, task) in zip(folders, labels, strict=True)]
    plot_rl_runs(given, tmp_path / "out.png")
    assert [part.get_suptitle() for part in drawn[0].subfigs] == ["one", "two"]
    first, second = drawn[0].axes[0], drawn[0].axes[4]  # each followed by its three tasks
    assert set(lines_of(first)) - {"_child0", "_child1"} >= {"ewc (n = 1)"}
    assert "l2 (n = 1)" in lines_of(second)
    assert "l2 (n = 1)" not in lines_of(first)
    assert legend_of(drawn[0]) == ["ewc (n = 1)", "l2 (n = 1)"]


def test_tasks_in_another_order_have_no_name(tmp_path: Path, drawn: list[Figure]) -> None:
    a = run_folder(tmp_path / "a")
    b = run_folder(tmp_path / "b", names=("moon", "carry_stuff", "rainfall"))
    plot_rl_runs([Run(a, "l2"), Run(b, "l2")], tmp_path / "out.png")
    assert [axis.get_title("left") for axis in drawn[0].axes[1:]] == ["0 moon", "task 1", "task 2"]


# Bad input.


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    new = run_folder(tmp_path / "new", {})
    with pytest.raises(ConfigError, match=r"eval\.csv has no rows yet"):
        plot_rl_run(new, out)
    started = run_folder(tmp_path / "started", {0: CURVES[0][:2]})
    with pytest.raises(ConfigError, match=r"eval\.csv has no evaluation of all tasks yet"):
        plot_rl_runs([Run(started, "l2")], out)
    with pytest.raises(ConfigError, match="cannot write"):
        plot_rl_run(run_folder(tmp_path / "good", until(5)), tmp_path / "nowhere" / "out.png")
    (started / "sequence.yaml").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*sequence\.yaml"):
        plot_rl_run(started, out)


def test_runs_that_differ_in_borders_or_measure_do_not_go_into_one_picture(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a")
    longer = run_folder(tmp_path / "longer", steps=(10, 20, 20))
    fewer = run_folder(tmp_path / "fewer", {0: (1, 2)}, steps=STEPS[:2], names=NAMES[:2])
    success = run_folder(tmp_path / "success", RATES, success=(0, 1, 2))
    for other in (longer, fewer):
        with pytest.raises(ConfigError, match=f"a and .*{other.name} do not go .*: their tasks differ in steps"):
            plot_rl_runs([Run(a, "l2"), Run(other, "l2")], tmp_path / "out.png")
    with pytest.raises(ConfigError, match="one has returns, the other success rates"):
        plot_rl_runs([Run(a, "l2"), Run(success, "l2")], tmp_path / "out.png")
