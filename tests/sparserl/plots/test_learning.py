"""The picture of learning: what is drawn is what `learning.csv` and `eval.csv` say."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.train_runs import write_train_run

from sparserl.cli.main import main

HEAD = "global_step,network,stable_rank,condition,dormant,gradient_norm,weight_norm\n"
MEASURED = HEAD + "0,actor,,5,,,2\n0,critic,,150,,,3\n10,actor,4,100,0.5,,5\n10,critic,6,200,0.25,,7\n"


def measured(path: Path, text: str = MEASURED, **settings: object) -> Path:
    run = write_train_run(path, [0, 100], **settings)  # type: ignore[arg-type]  # of its config
    (run / "progress.csv").write_text("global_step,topology/density,time/elapsed_s\n10,0.5,1\n")
    (run / "learning.csv").write_text(text)
    return run


def test_each_network_has_a_column_and_each_measure_a_row(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [measured(tmp_path / f"r{seed}", seed=seed) for seed in (0, 1)]
    assert main(["plot", *map(str, runs), "--learning", "--out", str(tmp_path / "l.png")]) == 0
    first, *panels = drawn[0].axes
    assert first.get_title() == "Hopper-v5"
    assert first.lines[0].get_xydata().tolist() == [[0, 0], [10, 100]]
    # Gradients were never measured, so there is no row of them.
    assert [axis.get_ylabel() for axis in panels[::2]] == [
        "stable rank\nof features",
        "condition\nof features",
        "dormant share",
        "weight norm",
    ]
    assert [axis.get_title() for axis in panels[:2]] == ["actor", "critic"]
    points = [axis.lines[0].get_xydata().tolist() for axis in panels]
    assert points[:2] + points[4:6] == [[[10, value]] for value in (4, 6, 0.5, 0.25)]
    assert points[2:4] == [[[0, 5], [10, 100]], [[0, 150], [10, 200]]]
    assert points[6:] == [[[0, 2], [10, 5]], [[0, 3], [10, 7]]]
    assert [axis.get_yscale() for axis in panels[2:5]] == ["log", "linear", "linear"]
    assert all(axis.get_xlim() == first.get_xlim() for axis in panels)


def test_runs_with_other_networks_stand_side_by_side(tmp_path: Path, drawn: list[Figure]) -> None:
    a = measured(tmp_path / "a")
    b = measured(tmp_path / "b", HEAD + "10,q_net,1,2,0,3,4\n", algo="ds_dqn")
    assert main(["plot", str(a), str(b), "--learning", "--out", str(tmp_path / "l.svg")]) == 0
    assert [axis.get_title() for axis in drawn[0].axes[1:4]] == ["actor", "critic", "q_net"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning", "--y", "return"], "--learning draws all measures over env steps: leave --x and --y out"),
        (["--learning", "--x", "seconds"], "--learning draws all measures over env steps: leave --x and --y out"),
        (["--learning", "--topology"], "--learning and --topology ask for 2 pictures"),
    ],
)
def test_bad_wishes_are_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(measured(tmp_path / "a")), *flags]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "learning.csv").unlink(), "was not measured (--measure-learning never"),
        (lambda run: (run / "learning.csv").write_text(HEAD), "learning.csv has no rows yet"),
    ],
)
def test_a_run_that_was_not_measured_is_one_line(
    damage: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured(tmp_path / "a")
    damage(run)  # type: ignore[operator]
    assert main(["plot", str(run), "--learning", "--out", str(tmp_path / "l.png")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "l.png").exists()


def test_runs_on_several_envs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [measured(tmp_path / "a"), measured(tmp_path / "b", env="Ant-v5")]
    assert main(["plot", *map(str, runs), "--learning", "--out", str(tmp_path / "l.png")]) == 2
    assert "--learning draws runs of one env, got Hopper-v5, Ant-v5" in capsys.readouterr().err
