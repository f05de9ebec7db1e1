"""A broken run among others: it is named with its reason, and the numbers and curves of the others stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from support.rl_runs import write_rl_run
from support.train_runs import write_train_run

from sparserl.cli import main
from sparserl.plots import curves as plots

PROGRESS = "global_step,topology/density,time/elapsed_s\n10,0.5,1\n20,0.5,2\n"
CURVES = [[0, 0], [80, 0], [150, 0], [50, 50], [10, 80]]


def nan_return(run: Path) -> None:
    file = run / "eval.csv"
    file.write_text(file.read_text().replace("20,1,", "20,1,nan,1\n20,2,"))


def replaced(name: str, text: str | bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a return that is no number": (nan_return, "eval.csv has a return that is no finite number at step 20"),
    "no eval.csv": (without("eval.csv"), "eval.csv is missing"),
    "an empty eval.csv": (replaced("eval.csv", ""), "eval.csv has no rows yet"),
    "an eval.csv of other columns": (replaced("eval.csv", "a,b\n1,2\n"), "KeyError: 'return'"),
    "an eval.csv that is no text": (replaced("eval.csv", b"\xff\x00\xfe"), ""),
    "a config that is no YAML": (replaced("config.yaml", "a: [1"), ""),
    "a config of another program": (replaced("config.yaml", "learning: deep\n"), "unknown config key"),
    "a result that is cut off": (replaced("result.json", '{"density": 0.'), "cannot read"),
    "a result that is a list": (replaced("result.json", "[1]"), "must hold keys and values"),
    "a result with a word for a number": (replaced("result.json", '{"density": "much"}'), "density must be a number"),
}
OF_THE_RESULT = [name for name in DAMAGES if name.startswith("a result")]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds, and a third one that is to be damaged."""
    folder = tmp_path / "runs"
    for seed, returns in enumerate(([0, 100, 200], [0, 110, 220], [0, 900, 999])):
        run = write_train_run(folder / f"s{seed}", returns, seed=seed, topology={"density": 0.1})
        (run / "progress.csv").write_text(PROGRESS)
    return folder


def reported(tmp_path: Path, *paths: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers of the comparison, and what is said of each run."""
    out = tmp_path / "report.json"
    assert main(["report", *map(str, paths), "--json", str(out)]) == 0
    record = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(name))
    return record["trained"]["comparisons"], {Path(run["path"]).name: run for run in record["runs"]}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_report_names_it_and_is_of_the_others(name: str, runs: Path, tmp_path: Path, capsys: Any) -> None:
    alone, _ = reported(tmp_path, runs / "s0", runs / "s1")
    damage, why = DAMAGES[name]
    damage(runs / "s2")
    capsys.readouterr()
    among, said = reported(tmp_path, runs)
    assert among == alone
    assert [said[one]["status"] for one in ("s0", "s1", "s2")] == ["done", "done", "broken"]
    if why != "KeyError: 'return'":  # which column is missed first is not said here
        assert why in said["s2"]["problem"]
    printed = "\n".join(capsys.readouterr().out.splitlines())
    assert f"cannot be read, in no number: {runs / 's2'}: {said['s2']['problem']}" in printed


def test_the_page_names_it_too(runs: Path, tmp_path: Path) -> None:
    nan_return(runs / "s2")
    assert main(["report", str(runs), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "1 of 3 cannot be read" in page
    assert "eval.csv has a return that is no finite number at step 20" in page


def test_where_none_can_be_read_it_is_an_error(runs: Path, capsys: Any) -> None:
    nan_return(runs / "s2")
    assert main(["report", str(runs / "s2")]) == 2
    assert "eval.csv has a return that is no finite number at step 20" in capsys.readouterr().err
    for run in (runs / "s0", runs / "s1"):
        nan_return(run)
    assert main(["report", str(runs)]) == 2
    assert capsys.readouterr().err.startswith("sparserl: none of 3 runs can be read; the first: ")


def test_a_report_of_agents_on_sequences_leaves_it_out(tmp_path: Path, capsys: Any) -> None:
    runs = [write_rl_run(tmp_path / f"s{seed}", CURVES, seed=seed) for seed in range(3)]
    out = tmp_path / "report.json"

    def groups(*paths: Path) -> Any:
        assert main(["report", *map(str, paths), "--json", str(out)]) == 0
        return json.loads(out.read_text())["sections"]

    alone = groups(*runs[:2])
    file = runs[2] / "eval.csv"
    file.write_text(file.read_text().replace(",1,0,77.0,", ",1,0,nan,"))
    assert "nan" in file.read_text()
    capsys.readouterr()
    assert groups(*runs) == alone
    assert f"cannot be read, in no number: {runs[2]}: " in capsys.readouterr().out


def test_results_of_before_with_a_bare_nan_are_read(runs: Path, tmp_path: Path) -> None:
    (runs / "s2" / "result.json").write_text('{"density": 0.5, "flops_train": NaN, "wall_s": Infinity}')
    (comparison,), said = reported(tmp_path, runs)
    assert comparison["groups"][0]["cost"]["flops_train"][2] is None
    assert said["s2"]["status"] == "done"


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in OF_THE_RESULT])
def test_a_picture_is_of_the_others(name: str, runs: Path, monkeypatch: Any, capsys: Any) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "write_figure", lambda figure, out: drawn.append(figure))

    def curve(*paths: Path) -> Any:
        assert main(["plot", *map(str, paths)]) == 0
        return drawn[-1].axes[0].get_lines()[0].get_xydata().tolist()  # type: ignore[union-attr]

    alone = curve(runs / "s0", runs / "s1")
    damage, why = DAMAGES[name]
    damage(runs / "s2")
    assert curve(runs) == alone
    error = capsys.readouterr().err
    assert error.startswith(f"sparserl: left out: {runs / 's2'}: ")
    assert why in error
    assert error.count("\n") == 1


def test_a_picture_of_one_run_has_a_gap_where_its_return_is_no_number(runs: Path, tmp_path: Path) -> None:
    nan_return(runs / "s2")
    assert main(["plot", str(runs / "s2"), "--out", str(tmp_path / "plot.png")]) == 0


@pytest.fixture
def classifiers(tmp_path: Path, undrawn: None) -> Path:
    """Three seeds of a method on two tasks."""
    folder = tmp_path / "classifiers"
    own = tmp_path / "own.yaml"
    own.write_text("data: iris\ntasks: 3\n")
    for seed in range(3):
        words = ("--sequence", own, "--method", "naive", "--learner.hidden", 4, "--learner.epochs", 1, "--seed", seed)
        assert main(["continual", *map(str, words), "--run-dir", str(folder / f"s{seed}"), "--no-progress"]) == 0
    return folder


def test_a_classifier_that_has_learned_no_task_yet_is_left_out(classifiers: Path, tmp_path: Path, capsys: Any) -> None:
    evaluations = classifiers / "s2" / "eval.csv"
    evaluations.write_text("".join(evaluations.read_text().splitlines(keepends=True)[:1]))
    assert main(["plot", str(classifiers), "--out", str(tmp_path / "a.png")]) == 0
    assert f"left out: {classifiers / 's2'}" in capsys.readouterr().err
    assert main(["plot", str(classifiers / "s0"), "--group", "method", "--out", str(tmp_path / "b.png")]) == 2
    assert "--group tells curves of several runs apart, got one run" in capsys.readouterr().err


def test_a_finished_classifier_without_all_evaluations_is_named(classifiers: Path, tmp_path: Path) -> None:
    evaluations = classifiers / "s2" / "eval.csv"
    evaluations.write_text("".join(evaluations.read_text().splitlines(keepends=True)[:-2]))
    out = tmp_path / "report.json"
    assert main(["report", str(classifiers), "--json", str(out)]) == 0
    said = {Path(run["path"]).name: run for run in json.loads(out.read_text())["runs"]}
    assert [said[one]["status"] for one in ("s0", "s1", "s2")] == ["done", "done", "broken"]
    assert "lacks the accuracy on a task after it was learned" in said["s2"]["problem"]
