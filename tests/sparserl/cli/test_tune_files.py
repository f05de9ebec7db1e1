"""What a file of `sparserl tune` searches, and what of it is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.runs import ROOT
from support.tune_files import DENSITY, tune_file

from sparserl.cli import main
from sparserl.sweep.tune_file import Range, load_tune_file

EXAMPLE = ROOT / "configs" / "tune" / "example.yaml"


def _ends(values: Any) -> tuple[float, float]:
    return values.low, values.high


# What a file searches.


def test_values_are_as_the_config_has_them(tmp_path: Path) -> None:
    space = {
        "topology.density": {"low": 0.2, "high": 1},
        "topology.drop_fraction": {"low": 0, "high": 0},
        "agent.learning_rate": {"low": "1e-4", "high": "1e-3", "log": True},
        "agent.batch_size": {"low": 16, "high": 64.0},
        "agent.net_arch": [[8, 8], [16]],
        "topology.method": ["set"],
    }
    file = load_tune_file(tune_file(tmp_path, space=space))
    assert file.space == {
        "topology.density": Range(0.2, 1.0, log=False),
        "topology.drop_fraction": Range(0.0, 0.0, log=False),
        "agent.learning_rate": Range(1e-4, 1e-3, log=True),
        "agent.batch_size": Range(16, 64, log=False),
        "agent.net_arch": ([8, 8], [16]),
        "topology.method": ("set",),
    }
    assert [type(end) for key in ("topology.drop_fraction", "agent.batch_size") for end in _ends(file.space[key])] == [
        *(float, float),
        *(int, int),
    ]
    assert (file.base.command, file.objective, file.direction, file.base.seeds) == (
        "train",
        "return_last10",
        "maximize",
        [0, 2],
    )
    jobs = file.jobs({"topology.density": 0.3, "agent.net_arch": [16]})
    assert [(job.seed, job.config["topology"]["density"], job.config["agent"]["net_arch"]) for job in jobs] == [
        (0, 0.3, [16]),
        (2, 0.3, [16]),
    ]


def test_presets_lie_beneath_the_example() -> None:
    file = load_tune_file(EXAMPLE)
    assert len(file.space) == 4
    assert file.jobs({"topology.density": 0.1})[0].config["agent"]["batch_size"] == 100


def test_continual_runs_too(tmp_path: Path) -> None:
    space = {"spacenet.drop_fraction": {"low": 0.1, "high": 0.4}}
    base = {"sequence": "split_digits", "scenario": "task"}
    path = tune_file(tmp_path, command="continual", base=base, space=space, objective="acc", seeds=1)
    assert load_tune_file(path).space == {"spacenet.drop_fraction": Range(0.1, 0.4, log=False)}


def test_ends_under_a_short_name(tmp_path: Path) -> None:
    space = {"density": {"low": "5e-2", "high": 1}}
    path = tune_file(tmp_path, command="fit", base={"data": "iris"}, space=space, objective="accuracy_test", seeds=1)
    assert load_tune_file(path).space == {"density": Range(0.05, 1.0, log=False)}


BAD = {
    "key": ({"spaces": {}}, "unknown key of a search 'spaces'; did you mean 'space'"),
    "command": ({"command": "trian"}, "unknown command 'trian'; did you mean 'train'"),
    "list as command": ({"command": ["train"]}, "unknown command \"['train']\""),
    "direction": ({"direction": "maximise"}, "unknown direction 'maximise'; did you mean 'maximize'"),
    "objective": ({"objective": 3}, "objective must be a key of result.json, got 3"),
    "empty space": ({"space": {}}, "searches nothing: its space is empty"),
    "no space": ({"space": ["env"]}, "space must hold keys and values, got ['env']"),
    "no base": ({"base": 3}, "base must hold keys and values, got 3"),
    "seeds": ({"seeds": "many"}, "seeds must be a number or a list of integers, got 'many'"),
    "no seeds": ({"seeds": 0}, "seeds must be there and differ, got 0"),
    "a seed twice": ({"seeds": [1, 1]}, "seeds must be there and differ, got [1, 1]"),
    "seed": ({"space": {"seed": [1, 2]}}, "seeds are listed under seeds"),
    "one value": (
        {"space": {DENSITY: 0.5}},
        "density must be a list of choices, or hold low and high, got 0.5",
    ),
    "no choice": ({"space": {DENSITY: []}}, "must be a list of choices, or hold low and high, got []"),
    "key of a range": (
        {"space": {DENSITY: {"low": 0.1, "hihg": 1}}},
        "unknown key of a range 'hihg'; did you mean 'high'",
    ),
    "no end": ({"space": {DENSITY: {"low": 0.1}}}, "space.topology.density has no high"),
    "low > high": ({"space": {DENSITY: {"low": 1, "high": 0.5}}}, "must have low <= high, got 1.0 and 0.5"),
    "no numbers": (
        {"space": {"env": {"low": "Ant-v5", "high": "Hopper-v5"}}},
        "is not between numbers but from 'Ant",
    ),
    "log of 0": (
        {"space": {"agent.learning_starts": {"low": 0, "high": 9, "log": True}}},
        "space.agent.learning_starts has log, so low must be above 0, got 0",
    ),
    "log": ({"space": {DENSITY: {"low": 0.1, "high": 1, "log": 10}}}, "log must be true or false, got 10"),
    "an old name": (
        {
            "command": "continual",
            "base": {"sequence": "split_digits", "method": "naive"},
            "space": {"learner.density": {"low": 0.1, "high": 0.5}},
        },
        "space.learner.density has another name in a config; say that, or list its choices",
    ),
    "unknown": ({"space": {"topology.densty": [0.1]}}, "did you mean 'topology.density'"),
    "value": ({"space": {DENSITY: {"low": 0.1, "high": 1.5}}}, "topology.density 1.5, seed 0: "),
    "choice": ({"space": {"topology.method": ["set", "rgil"]}}, "unknown topology method 'rgil'; did you mean 'rigl'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed, message = BAD[case]
    path = tune_file(tmp_path, **changed)
    assert main(["tune", str(path), "--out", str(tmp_path / "runs")]) == 2
    refused = capsys.readouterr().err
    assert message in refused
    assert refused.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tune_file(tmp_path)
    for words, message in (
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must not be negative, got -1"),
        (["--out", str(path)], f"cannot create {path}"),
    ):
        assert main(["tune", str(path), *words]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", str(path)]) == 2
    assert "pip install 'optuna>=4.2'" in capsys.readouterr().err
