"""Whatever is wrong on the command line of `sparserl bench` is one line, before anything is measured; its help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sparserl.cli import main
from sparserl.cli.bench import BENCHMARKS


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that is printed."""
    assert main(["bench", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("sparserl: ")
    return printed.err


# --- bad input --------------------------------------------------------------------------------------


WRONG = {
    "kernel": ("unknown benchmark 'kernel'", "'kernels'"),
    "update --threads 99": ("--threads", "99", "CPUs"),
    "update --threads 0": ("--threads", "0"),
    "update --threads 1 1": ("--threads has 1 twice",),
    "scale --threads 1 1": ("--threads has 1 twice",),
    "update --what event --densities 1": ("--what event is of sparse layers, and --densities names none below 1",),
    "update --what event --only ds_sac": ("--what event is of ds_td3, and --only names ds_sac",),
    "update --rounds 0": ("--rounds must be at least 1, got 0",),
    "update --batches 100 0": ("--batches must be at least 1, got (100, 0)",),
    "update --widths -1": ("--widths must be at least 1, got (-1,)",),
    "update --chunk-s 0": ("--chunk-s", "0"),
    "update --densities 0.5 1.5": ("--densities must be in (0, 1], got (0.5, 1.5)",),
    "update --densities nan": ("--densities", "nan"),
    "update --only ds_td4": ("unknown contender 'ds_td4'", "'ds_td3'"),
    "update --what step": ("unknown measurement 'step'", "'steps'"),
    "update --what": ("at least one measurement", "steps"),
    "update --what event --plot found.png": ("--plot",),
    "update --what act --plot found.png": ("--plot",),
    "update --round 3": ("'--round'", "'--rounds'"),
    "update --seed -1": ("--seed", "-1"),
    "update --json nowhere/found.json": ("nowhere/found.json", "no folder nowhere"),
    "update --plot nowhere/found.png": ("nowhere/found.png", "no folder nowhere"),
    "update --json .": ("cannot write .", "folder"),
    "update --plot found.pgn": ("unknown kind of picture 'pgn'", "'png'"),
    "update --plot found.jpg": ("unknown kind of picture 'jpg'", "'png'"),
    "update --quick --plot found.pgn": ("unknown kind of picture 'pgn'", "'png'"),
    "update --quick --widths 0": ("--widths must be at least 1, got (0,)",),
    "update --pairs 3": ("--pairs must be 1, 2 or 4, got 3; the closest is 2",),
    "update --pairs": ("--pairs needs a number",),
    "update --pairs 2 4 --widths 64 250": ("--widths 250 has no groups of --pairs 4; the closest is 252",),
    "kernels --pairs 0": ("--pairs must be at least 1, got (0,)",),
    "kernels --pairs 2 --widths 15": ("--widths 15", "the closest is 16"),
    "kernels --densities 0": ("--densities must be in (0, 1], got (0.0,)",),
    "kernels --densities": ("--densities needs",),
    "kernels --batches": ("--batches",),
    "kernels --rounds 1.5": ("--rounds", "1.5"),
    "scale --nnz 599": ("--nnz", "600", "599"),
    "return --returns 3000 5000 3000": ("--returns has 3000 twice",),
    "return --returns nan": ("--returns", "nan"),
    "return --returns": ("--returns needs a number",),
    "return --seeds 0 0": ("--seeds has 0 twice",),
    "return --densities 0.1 0.1": ("--densities has 0.1 twice",),
    "return --densities 1.5": ("--densities must be in (0, 1], got (1.5,)",),
    "return --pairs 3": ("--pairs must be 1, 2 or 4, got 3; the closest is 2",),
    "return --pairs 2 2": ("--pairs has 2 twice",),
    "return --only crossq": ("unknown contender 'crossq'", "'ds_crossq'"),
    "return --only sbx_crosq": ("unknown contender 'sbx_crosq'", "'sbx_crossq'"),
    "return --threads 99": ("--threads", "99", "CPUs"),
    "return --limit-s 0": ("--limit-s must be positive, got 0",),
    "return --max-steps 9000": ("--max-steps 9000", "3 evaluations", "--eval-every 5000"),
    "return --episodes 0": ("--episodes", "0"),
    "return --folder pyproject.toml/x": ("cannot create pyproject.toml/x",),
    "return --rounds 3": ("'--rounds'",),
    "scale --batch 0": ("--batch must be at least 1, got 0",),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name, benchmark in BENCHMARKS.items():  # what is not refused fails at once instead of measuring for minutes
        monkeypatch.setitem(BENCHMARKS, name, replace(benchmark, measure=lambda options: 1 / 0))
    refusal = refused(capsys, *words.split())
    assert "Error parsing U" not in refusal
    for part in WRONG[words]:
        assert part in refusal
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_an_unknown_env_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "update", "--env", "HalfCheeta-v5"]) == 2
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert printed.out.startswith("measuring "), "environments are not known before much is imported"
    refusal = printed.err
    assert refusal.count("\n") == 1
    assert "'HalfCheeta-v5'" in refusal
    assert "'HalfCheetah-v5'" in refusal


@pytest.mark.parametrize("words", [["bench"], ["bench", "--help"]])
def test_help_names_every_kind(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in ("update", "kernels", "scale", "return"))


def test_help_of_a_kind_explains_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", "update", "--help"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "sparserl bench update" in printed
    assert all(flag in printed for flag in ("--only", "--densities", "--json", "--plot", "--no-progress"))
