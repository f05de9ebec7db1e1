"""`sparserl plot`: which runs are one curve, and what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from support.train_runs import write_train_run

from sparserl.cli.main import main

PROGRESS = "global_step,topology/density,train/critic_loss,time/elapsed_s\n10,0.5,3,1\n20,0.5,2,2\n"


def write_run(path: Path, returns: list[float], **settings: Any) -> Path:
    run = write_train_run(path, returns, **settings)
    (run / "progress.csv").write_text(PROGRESS)
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of DS-TD3 at density 0.1, the second one unfinished; one at 0.3; one of TD3."""
    folder = tmp_path / "runs"
    write_run(folder / "a0", [0, 100, 200], topology={"density": 0.1})
    write_run(folder / "a1", [0, 300], topology={"density": 0.1}, seed=1, threads=2, done=False)
    write_run(folder / "b0", [0, 50, 60], topology={"density": 0.3})
    write_run(folder / "td3", [0, 70, 80], algo="td3")
    return folder


def legend(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_seeds_of_one_method_are_one_curve(runs: Path, drawn: list[Figure]) -> None:
    assert main(["plot", str(runs)]) == 0
    assert legend(drawn[0]) == {"ds_td3 d0.1 (n = 2, 1 unfinished)", "ds_td3 d0.3 (n = 1)", "td3 (n = 1)"}
    assert drawn[0].axes[0].get_title() == "Hopper-v5"


def test_settings_that_the_name_leaves_out_part_curves(runs: Path, drawn: list[Figure]) -> None:
    write_run(runs / "td3-fast", [0, 90], algo="td3", agent={"gamma": 0.9}, seed=1)
    assert main(["plot", str(runs / "td3"), str(runs / "td3-fast")]) == 0
    assert len(legend(drawn[0])) == 2
    assert any(", gamma 0.9" in label for label in legend(drawn[0]))
    assert "gamma: agent.gamma" in drawn[0].legends[0].get_title().get_text().split(", ")


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        (["algo"], {"algo ds_td3 (n = 3, 1 unfinished)", "algo td3 (n = 1)"}),
        (
            ["algo", "topology.density"],
            {
                "algo ds_td3, density 0.1 (n = 2, 1 unfinished)",
                "algo ds_td3, density 0.3 (n = 1)",
                "algo td3, density None (n = 1)",
            },
        ),
    ],
)
def test_groups_of_ones_own(keys: list[str], labels: set[str], runs: Path, drawn: list[Figure]) -> None:
    assert main(["plot", str(runs), "--group", *keys]) == 0
    assert legend(drawn[0]) == labels


def test_two_envs_are_never_one_curve(runs: Path, drawn: list[Figure]) -> None:
    write_run(runs / "cheetah", [0, 9], env="HalfCheetah-v5", algo="td3", seed=1)
    for words in ([], ["--group", "algo"]):
        assert main(["plot", str(runs / "td3"), str(runs / "cheetah"), *words]) == 0
        titles = [axis.get_title() for axis in drawn[-1].axes]
        assert [title for title in titles if title] == ["Hopper-v5", "HalfCheetah-v5"]
        assert len(legend(drawn[-1])) == 1  # one method, once in the legend


def test_one_column(runs: Path, drawn: list[Figure]) -> None:
    assert main(["plot", str(runs), "--y", "train/critic_loss", "--x", "seconds"]) == 0
    (axis,) = drawn[0].axes
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("train/critic_loss", "wall time (s)")


def test_size_and_smooth(runs: Path, drawn: list[Figure]) -> None:
    assert main(["plot", str(runs), "--size", "8,4.5", "--smooth", "2"]) == 0
    assert (drawn[0].get_figwidth(), drawn[0].get_figheight()) == (8, 4.5)
    assert "latest 2 values" in drawn[0].legends[0].get_title().get_text()


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_ending_decides_the_format(ending: str, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    assert main(["plot", str(runs), "--y", "return", "--out", str(out)]) == 0
    assert out.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{runs} --out a.pgn", "cannot write a.pgn: unknown ending '.pgn'; did you mean '.png'?"),
        ("{runs} --out a.gif", "cannot write a.gif: unknown ending '.gif'"),  # of --layer alone
        ("{runs} --group algoo", "unknown key for --group 'algoo'; did you mean 'algo'?"),
        ("{runs} --group seed", "unknown key for --group 'seed'"),
        ("{runs} --y returns", "unknown column of progress.csv 'returns'; did you mean 'return'?"),
        ("{runs} --x stpes", "unknown x axis 'stpes'; did you mean 'steps'?"),
        ("{runs} --size 7", "--size is width,height in inches, such as 7,5; got '7'"),
        ("{runs} --size 7,inf", "--size: each must be in [1, 50] inches, got inf"),
        ("{runs} --size 1,1", "1,1 inches have no room for what is to be drawn; ask for more"),
        ("{runs} --smooth 0", "smooth must be at least 1"),
        ("{runs}/a0 --topology --smooth 3", "--smooth is for learning curves of `sparserl train` and `sparserl fit`"),
        ("{runs}/a0 --topology --group algo", "--x, --y and --group are of curves of several runs, and --topology"),
        ("{runs}/a0 --layer actor.mu.0 --x flops", "--x, --y and --group are of curves of several runs, and --layer"),
        ("{runs}/a0 {runs}/a0", "are both seed 0 of ds_td3 d0.1; leave one out"),
        ("{runs}/a0 {runs}/a0 --group algo", "a0 is named 2 times; leave 1 out"),
        ("{runs}/nothing", "no run folder at"),
    ],
)
def test_bad_input_is_one_line(
    words: str, message: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    assert main(["plot", *words.format(runs=runs).split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(runs.parent.glob("*.*")) == []
