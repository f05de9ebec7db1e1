"""Packages that only some features need: how to get them where the user stands.

The names and versions come from the metadata of this installation, so that the advice works from a checkout, too, and
whether or not a release is to be had.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex


def how_to_install(extra: str) -> str:
    """The command that brings what an extra of this distribution needs, e.g. `pip install 'onnx>=1.17'`.

    Args:
        extra: One of `[project.optional-dependencies]` in pyproject.toml.
    """
    try:
        stated = importlib.metadata.requires("sparserl") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, without being installed
        stated = []
    of_extra = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    requirements = [text.partition(";")[0].strip() for text in stated if of_extra.search(text)]
    if not requirements:
        return f"pip install -e {shlex.quote(f'.[{extra}]')} in a checkout"
    return "pip install " + " ".join(map(shlex.quote, requirements))
