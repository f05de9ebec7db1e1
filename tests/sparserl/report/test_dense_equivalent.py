"""What sparse runs are worth in parameters of dense ones: which dense groups count, and why there may be none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.train_runs import write_train_run

from sparserl.cli import report
from sparserl.report.dense_equivalent import HEAD, Measured, cell, dense_equivalents, is_shown, notes
from sparserl.report.fits import FitRun, fit_records, fit_section

SWEEP = [
    Measured(f"dense {size}", "td3", size, True, quality)
    for size, quality in ((10_000, 0.90), (30_000, 0.95), (100_000, 0.97), (30_000, 0.2))
]


def sparse(quality: float, **more: Any) -> Measured:
    return Measured(**{"label": "s", "family": "td3", "size": 10_000, "is_dense": False, "quality": quality, **more})


def test_worked_by_hand() -> None:
    *dense, found = dense_equivalents([*SWEEP, sparse(0.96)])
    assert (round(found["parameters"]), round(found["efficiency"], 2), found["reason"]) == (54_772, 5.48, None)
    assert cell(found) == "54,772\n(5.48 x)"
    assert {one["reason"] for one in dense} == {"it is dense itself"}


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (sparse(0.98), "no dense network reaches as much"),
        (sparse(0.90), "the smallest dense network, of 10,000 parameters, reaches as much"),
        (sparse(0.96, family="sac"), "it needs dense runs of its kind in two sizes at least, here are none"),
        (sparse(0.96, size=None), "its number of parameters is not known"),
        (sparse(0.96, is_dense=None), "its number of parameters is not known"),
    ],
)
def test_reasons(group: Measured, reason: str) -> None:
    [*_, found] = dense_equivalents([*SWEEP, group])
    assert (found["parameters"], found["reason"], cell(found)) == (None, reason, "-")
    assert notes(["s"], [found])[1:] == [f"no dense equivalent (s): {reason}"]


def test_the_column_is_for_sparse_beside_a_sweep_of_their_kind() -> None:
    assert is_shown([*SWEEP, sparse(0.5)])
    assert not is_shown(SWEEP)
    assert not is_shown([sparse(0.5)])
    assert not is_shown([*SWEEP, sparse(0.5, family="sac")])
    assert not is_shown([*SWEEP[1::2], sparse(0.5)])  # one size


def write(path: Path, algo: str, size: int, final: float, **more: Any) -> None:
    result = {"params_nonzero": size, "density": 1.0 if algo in ("td3", "sac") else 0.1}
    topology = {"method": "dense"} if algo in ("td3", "sac") else {}
    write_train_run(path, [0.0, final], algo=algo, result=result, topology=topology, **more)


def test_of_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for width, (size, final) in {8: (10_000, 90.0), 16: (30_000, 95.0), 32: (100_000, 97.0)}.items():
        write(tmp_path / f"dense{width}", "td3", size, final, agent={"net_arch": [width, width]})
    write(tmp_path / "sac", "sac", 10_000, 96.0)
    write(tmp_path / "sparse", "ds_td3", 10_000, 96.0)
    write(tmp_path / "better", "ds_sac", 10_000, 99.0)
    assert report.run([str(tmp_path), "--json", str(tmp_path / "x.json")]) == 0
    said = capsys.readouterr().out
    assert "54,772" in said
    assert "(5.48 x)" in said
    reason = "it needs dense runs of its kind in two sizes at least, here are 1"
    assert f"): {reason}\n" in said
    [one] = json.loads((tmp_path / "x.json").read_text())["trained"]["comparisons"]
    found = {Path(group["runs"][0][0]).name: group["dense_equivalent"] for group in one["groups"]}
    assert found["sparse"]["efficiency"] == pytest.approx(5.4772, abs=1e-4)
    assert found["better"]["reason"] == reason


def test_dense_runs_alone_have_no_such_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one", "td3", 10, 90.0)
    write(tmp_path / "two", "td3", 20, 95.0, agent={"net_arch": [9]})
    assert report.run([str(tmp_path)]) == 0
    assert "equivalent" not in capsys.readouterr().out


def fit_run(width: int, size: int, accuracy: float | None, density: float = 1.0) -> FitRun:
    result = {"params_nonzero": size, "density": density, "accuracy_test": accuracy, "connections": size, "epochs": 1}
    result |= dict.fromkeys(("accuracy_test_best", "accuracy_validation_best", "loss_test", "flops_train", "wall_s"))
    config = {"seed": 0, "learner": {"hidden": [width]}}
    return FitRun(Path(str(width)), "digits", "dense" if density == 1.0 else "set", config, result, [0.1, 0.5])


def test_of_runs_of_fit() -> None:
    dense = [fit_run(8, 10_000, 0.90), fit_run(16, 30_000, 0.95), fit_run(32, 100_000, 0.97)]
    [record] = fit_records([*dense, fit_run(9, 10_000, 0.96, density=0.1), fit_run(10, 10_000, None, density=0.1)])
    [*_, sparse_one, unknown] = [group["dense_equivalent"] for group in record["groups"]]
    assert sparse_one["efficiency"] == pytest.approx(5.4772, abs=1e-4)
    assert unknown["reason"] == "what it reached is not known"
    [table] = fit_section(record).tables
    assert (table.columns[-1], table.rows[-2][-1], table.rows[-1][-1]) == (HEAD, "54,772\n(5.48 x)", "-")
    [record] = fit_records(dense[:1])
    assert HEAD not in fit_section(record).tables[0].columns
