"""Every command of the README is run, in order, in a folder where nothing has run before."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sparserl.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
INSTALL, SHORT = README.split("## Install")[1].split("## Five minutes")
COMMANDS = re.findall(r"^sparserl (.*)$", README, re.MULTILINE)


@pytest.mark.slow
def test_commands_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    films = set()
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        if words[0] != "enjoy":
            assert main(words) == 0, command
        elif drawn(words):
            films.add("pendulum.gif")
    assert {path.name for path in tmp_path.iterdir()} == {"configs", "runs", "curves.png", *films}


def drawn(words: list[str]) -> bool:
    """Films in a process of its own, where nothing has loaded MuJoCo yet; not all machines have a graphics library."""
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "sparserl", *words], env=place, capture_output=True, text=True)
    assert done.returncode == 0 or "MUJOCO_GL" in done.stderr, done.stderr
    return done.returncode == 0


def test_what_make_installs_is_there() -> None:
    said = subprocess.run(["make", "-n", "train"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "sparserl train" in said


@pytest.mark.slow
def test_pip_installs_what_the_readme_says() -> None:
    """Without the network: what is built and asked for, but not what it depends on."""
    (line,) = re.findall(r"^pip (install \S+ .*constraints.txt)", INSTALL, re.MULTILINE)
    without_network = ["--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *shlex.split(line), *without_network], cwd=ROOT, capture_output=True, text=True
    )
    assert "Would install sparserl-" in done.stdout, done.stderr


def test_every_extra_is_named() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = [line for line in INSTALL.splitlines() if line.startswith("| ")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras)


def test_it_is_read_in_two_screens() -> None:
    assert len(README.splitlines()) <= 150
