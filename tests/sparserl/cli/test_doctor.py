"""`sparserl doctor`: what is here, on one screen, whatever is broken."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparserl.cli import doctor, main


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rendered, which takes seconds."""
    monkeypatch.setattr(doctor, "RENDER", "import sys; sys.exit('no driver' if True else 0)")


@pytest.mark.usefixtures("unrendered")
def test_it_fits_a_screen_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(doctor, "extras", lambda: {"video": True, "export": False, "tune": False, "dev": False})
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(doctor.SECTIONS)
    said = " ".join(" ".join(lines).split())
    assert "egl: no driver" in said
    assert "there: video missing: export, tune;" in said
    assert "pip install 'onnx>=1.17' 'optuna>=4.2'" in said


@pytest.mark.usefixtures("unrendered")
def test_json_is_one_line_of_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    facts = json.loads(line)
    assert set(facts) == set(doctor.SECTIONS)
    assert facts["sparserl"]["torch"] == importlib.metadata.version("torch")
    assert facts["rendering"]["backends"] == dict.fromkeys(doctor.GL_BACKENDS, "no driver")
    assert facts["room"]["memory_free_bytes"] > 0


@pytest.mark.usefixtures("unrendered")
def test_what_is_broken_is_said_in_its_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("a\nbroken library")

    sections = {name: (broken, say) for name, (_, say) in doctor.SECTIONS.items()}
    monkeypatch.setattr(doctor, "SECTIONS", sections)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.count("could not be found out (RuntimeError: a broken library)") == len(sections)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["CPU"] == {"failed": "RuntimeError: a broken library"}


@pytest.mark.parametrize(
    ("chosen", "answers", "said"),
    [
        (None, {"egl": "works", "osmesa": "no library"}, ["egl works"]),
        ("osmesa", {"egl": "works", "osmesa": "no library"}, ["egl works", "osmesa: no library"]),
        ("egl", {"egl": "works", "osmesa": "no library"}, ["egl works"]),
        ("egl", {"egl": "a", "osmesa": "b"}, ["none work", "egl: a", "osmesa: b"]),
    ],
)
def test_why_a_backend_fails_is_said_where_it_matters(
    chosen: str | None, answers: dict[str, str], said: list[str]
) -> None:
    lines = doctor._say_rendering({"backends": answers, "MUJOCO_GL": chosen, "DISPLAY": None})
    assert [line.partition(" (")[0] for line in lines] == said


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("pass", "works"),
        ("raise RuntimeError('no such driver')", "RuntimeError: no such driver"),
        ("import os; os.abort()", "ends with status -6"),
        ("import time; time.sleep(60)", "no answer in 1 s"),
        (
            "class A:\n def __del__(self): raise ValueError('later')\na = A()\nraise OSError('first')",
            "OSError: first",
        ),
    ],
)
def test_a_backend_answers_in_a_process_of_its_own(program: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RENDER_SECONDS", 1 if "sleep" in program else 30)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert doctor._answer(process) == answer


def test_kernels_count_where_their_code_is_of_the_present_files(tmp_path: Path) -> None:
    from sparserl.kernels import compile_kernels, compiled

    compile_kernels(print)
    folder = Path(compiled.__file__).parent
    assert compiled.stored_kernels(folder) > 20
    (tmp_path / "a.py").write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.f-1.py311.nbi").write_bytes(b"no index")
    assert compiled.stored_kernels(tmp_path) == 0
    said = doctor._say_kernels({"stored": 0, "folder": str(tmp_path)})
    assert said[0].startswith("not compiled yet")
    assert "set NUMBA_CACHE_DIR" in doctor._say_kernels({"stored": 0, "folder": None})[0]
