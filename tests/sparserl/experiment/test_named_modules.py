"""A run folder from somebody else: modules that its environments import are named first, and never lie in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from support.cut_runs import KINDS, command, cut_off

from sparserl.cli import main

MODULE = """
import sys
import gymnasium
from support.envs import FunctionEnv
print("its code runs", file=sys.stderr)
gymnasium.register("Foreign-v0", entry_point=lambda: FunctionEnv(horizon=17))
"""
ENV = "foreign_module:Foreign-v0"
OF_AGENTS = ("agent", "agent on tasks")


def forget() -> None:
    """As if nothing had been imported."""
    sys.modules.pop("foreign_module", None)
    gym.registry.pop("Foreign-v0", None)


@pytest.fixture(autouse=True)
def path_of_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    forget()


def words_on_it(kind: str, path: Path) -> list[str]:
    words = [ENV if word == "Tiny-v0" else word for word in command(kind, path)]
    if kind == "agent on tasks":
        file = path.with_name("tiny.yaml")
        file.write_text(file.read_text().replace("Tiny-v0", ENV))
    return words


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An unfinished run of both kinds of agents; not to be changed. Their module is not there any more."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "foreign_module.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    found = {}
    for kind in OF_AGENTS:
        path = folder / kind / "run"
        found[kind] = cut_off(kind, path, words_on_it(kind, path))
    sys.path.remove(str(folder))
    forget()
    return found


@pytest.fixture
def run(request: pytest.FixtureRequest, runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one."""
    return Path(shutil.copytree(runs[request.node.callspec.params["kind"]], tmp_path / "run"))


def commands(kind: str, run: Path) -> dict[str, list[str]]:
    own = ["--task", "0"] if kind == "agent on tasks" else []
    last = ["--checkpoint", "last", "--run", str(run), *own]
    name = KINDS[kind][0]
    sequence = ["--sequence", str(run / "sequence.yaml")] if kind == "agent on tasks" else []
    return {
        "eval": ["eval", *last, "--episodes", "1"],
        "inspect": ["inspect", *last, "--episodes", "1"],
        "export": ["export", *last, "--out", str(run.with_name("policy"))],
        "enjoy": ["enjoy", *last, "--video", str(run.with_name("x.gif")), "--max-steps", "1"],
        "config": [name, "--config", str(run / "config.yaml"), *sequence, "--dry-run"],
        "resume": [name, "--resume", str(run), "--no-progress"],
    }


@pytest.mark.parametrize("kind", OF_AGENTS)
def test_every_command_names_the_module_before_it_imports_it(
    kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "foreign_module.py").write_text(MODULE)
    sys.path.insert(0, str(elsewhere))
    named = f"sparserl: environment '{ENV}' imports the module foreign_module ({elsewhere / 'foreign_module.py'})"
    capsys.readouterr()
    for name, words in commands(kind, run).items():
        forget()
        main(words)  # the env cannot be shown, which is said after that
        lines = capsys.readouterr().err.splitlines()
        assert lines[:2] == [named, "its code runs"], name


@pytest.mark.parametrize("kind", OF_AGENTS)
@pytest.mark.parametrize("way", ["path", "working folder", "package"])
def test_no_module_is_taken_from_the_run_folder(
    way: str, kind: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if way == "package":
        (run / "foreign_module").mkdir()  # without __init__.py
        (run / "foreign_module" / "part.py").write_text(MODULE)
        for name in ("config.yaml", "sequence.yaml"):
            if (run / name).exists():
                (run / name).write_text((run / name).read_text().replace("foreign_module:", "foreign_module.part:"))
    else:
        (run / "foreign_module.py").write_text(MODULE)
    if way == "working folder":
        monkeypatch.chdir(run)
        sys.path.insert(0, "")
    else:
        sys.path.insert(0, str(run))
    capsys.readouterr()
    for name, words in commands(kind, run).items():
        assert main(words) == 2, name
        error = capsys.readouterr().err
        assert "which lies in the run folder" in error
        assert error.count("\n") == 1
        assert "foreign_module" not in sys.modules


def test_what_the_module_imports_is_not_taken_from_the_run_folder_either(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs["agent"], tmp_path / "run"))
    (run / "optional_helper.py").write_text("raise SystemExit('it ran')")
    code = "try:\n    import optional_helper\nexcept ImportError:\n    pass\n" + MODULE
    (tmp_path / "foreign_module.py").write_text(code)
    monkeypatch.chdir(run)
    sys.path[:0] = ["", str(tmp_path)]
    assert main(commands("agent", run)["eval"]) == 0


@pytest.mark.parametrize("code", ["import no_such_module", "1 / 0", "this is no Python", "raise SystemExit(7)"])
def test_a_module_that_cannot_be_imported_is_an_error_in_one_line(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "foreign_module.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    for env_id in (ENV, ".foreign:X-v0", "a b:X-v0"):
        assert main(["train", "--env", env_id, "--dry-run"]) == 2
        assert "cannot import module" in capsys.readouterr().err
