"""`sparserl export`: a file of each format from a run, and what it says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparserl.cli import main
from sparserl.cli.export import FORMATS

pytestmark = pytest.mark.usefixtures("tiny_env")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_every_format_is_written(
    format: str, checkpoint: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / FORMATS[format][0]
    words = ["export", "--run", str(finished), "--format", format, "--checkpoint", checkpoint, "--out", str(out)]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert out.stat().st_size > 500
    assert "3 - 12 - 12 - 2" in printed
    difference = re.search(r"(\d\.\de[+-]\d\d) at most", printed)
    assert difference is not None
    assert float(difference[1]) < 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "h5"), "unknown --format 'h5'"),
        (("--format", "c", "--name", "1st"), "--name must be a C identifier, got '1st'"),
        (("--out", "nowhere/policy.h"), "there is no folder nowhere"),
        (("--checkpoint", "worst"), "unknown --checkpoint 'worst'"),
    ],
)
def test_a_bad_word_is_named(
    words: tuple[str, ...], message: str, finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = () if "--out" in words else ("--out", str(tmp_path / "policy.x"))
    assert main(["export", "--run", str(finished), *words, *out]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run", str(tmp_path / "none")]) == 2
    assert "no run folder" in capsys.readouterr().err
