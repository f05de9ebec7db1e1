"""Packages that only some features need: which are there, and how to get the others where the user stands.

The names and versions come from the metadata of this installation, so that the advice works from a checkout, too, and
whether or not a release is to be had.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any


def how_to_install(*extras: str) -> str:
    """The command that brings what extras of this distribution need, e.g. `pip install 'onnx>=1.17'`.

    It installs for the Python that runs, also where `pip` on its own would be that of another one.

    Args:
        extras: Of `[project.optional-dependencies]` in pyproject.toml, at least one.
    """
    needed = [shlex.quote(text) for extra in extras for text in _stated(extra)]
    if not needed:
        return f"{installer()} -e '.[{','.join(extras)}]' in a checkout"
    return " ".join([installer(), *dict.fromkeys(needed)])


def installer() -> str:
    """The words of a command that come before what is to be installed."""
    found = shutil.which("pip")
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return "pip install"
    here = Path(sys.executable)
    python = shlex.quote(os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here))
    if importlib.util.find_spec("pip") is None and shutil.which("uv") is not None:
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"


def extras() -> dict[str, bool]:
    """Every extra of this distribution -> whether all that it needs is installed; none where nothing says which."""
    try:
        known = importlib.metadata.metadata("sparserl").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        known = []
    return {extra: all(map(_is_installed, _stated(extra))) for extra in known}


def _stated(extra: str, of: str = "sparserl") -> list[str]:
    """What a distribution needs here for an extra, as its metadata says it."""
    from packaging.requirements import Requirement  # which Gymnasium's MuJoCo environments need, too

    try:
        stated = importlib.metadata.requires(of) or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, without being installed
        stated = []
    markers = [(text.partition(";")[0].strip(), Requirement(text).marker) for text in stated]
    return [text for text, marker in markers if marker and _holds(marker, extra) and not _holds(marker, "")]


def _holds(marker: Any, extra: str) -> bool:
    return bool(marker.evaluate({"extra": extra}))


def _is_installed(text: str) -> bool:
    """Whether a requirement is met, with those of its own extras."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(version, prereleases=True):
        return False
    if requirement.name == "sparserl":
        return True  # what one extra has of others, these say themselves
    return all(_is_installed(one) for extra in requirement.extras for one in _stated(extra, requirement.name))
