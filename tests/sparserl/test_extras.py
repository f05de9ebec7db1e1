"""What to install: from the metadata of this installation, not from a release that may not exist."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import pytest

from sparserl.extras import how_to_install

ROOT = Path(__file__).resolve().parents[2]


def test_the_requirements_are_those_of_the_extra() -> None:
    assert how_to_install("export") == "pip install 'onnx>=1.17'"
    assert how_to_install("video") == "pip install 'imageio[ffmpeg]>=2.34'"


def test_where_nothing_is_installed_a_checkout_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", unknown)
    assert how_to_install("export") == "pip install -e '.[export]' in a checkout"


def test_no_message_names_a_release() -> None:
    found = subprocess.run(
        ["grep", "-rnE", r"install '?sparserl\[", *("README.md", "docs", "sparserl", "agents", "envs", "continual")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""
