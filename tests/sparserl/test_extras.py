"""What to install, and how: from the metadata of this installation, not from a release that may not exist."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparserl import extras
from sparserl.extras import how_to_install, installer

ROOT = Path(__file__).resolve().parents[2]


def test_the_requirements_are_those_of_the_extras() -> None:
    assert how_to_install("export") == f"{installer()} 'onnx>=1.17'"
    assert how_to_install("video", "export", "video") == f"{installer()} 'imageio[ffmpeg]>=2.34' 'onnx>=1.17'"


def test_it_is_installed_for_the_python_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my env"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    pips = {"pip": str(folder / "pip"), "uv": "/usr/bin/uv"}
    monkeypatch.setattr(shutil, "which", pips.get)
    assert installer() == "pip install"
    pips["pip"] = "/usr/bin/pip"  # of another Python
    monkeypatch.chdir(tmp_path)
    assert installer() == "'my env/python' -m pip install"
    monkeypatch.chdir("/")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert installer().startswith("uv pip install --python '")
    del pips["uv"]
    assert installer().endswith("python' -m pip install")


def test_an_extra_is_there_with_all_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {
        "sparserl": ["one>=1; extra == 'a'", "two[more]>=1; extra == 'b'", "three; extra == 'c'", "always"],
        "two": ["four; extra == 'more'", "five; extra == 'other'", "six; extra == 'more' and python_version < '3'"],
    }
    versions = {"one": "0.9", "two": "2.0", "three": "1"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", needed.get)
    monkeypatch.setattr(importlib.metadata, "version", version)
    metadata = importlib.metadata.metadata("pytest")
    del metadata["Provides-Extra"]
    for name in "abc":
        metadata["Provides-Extra"] = name
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    assert extras.extras() == {"a": False, "b": False, "c": True}
    versions |= {"one": "1.5", "four": "1"}
    assert extras.extras() == {"a": True, "b": True, "c": True}


def test_where_nothing_is_installed_a_checkout_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", unknown)
    monkeypatch.setattr(importlib.metadata, "metadata", unknown)
    assert how_to_install("export", "ray") == f"{installer()} -e '.[export,ray]' in a checkout"
    assert extras.extras() == {}


def test_no_message_names_a_release() -> None:
    found = subprocess.run(
        ["grep", "-rnE", r"install '?sparserl\[", *("README.md", "docs", "sparserl", "agents", "envs", "continual")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""
