"""The files that a run reads, such as frozen statistics: copied into its folder, so that it depends on nothing outside.

The config in the folder refers to the copies, relative to itself. A copy carries the beginning of its SHA-256 in its
name, which is part of the config and so of every checkpoint: one that was edited is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparserl.envs import WrapperConfig
from sparserl.envs.wrapping import FILES
from sparserl.errors import ConfigError
from sparserl.text_files import MOST_JSON_BYTES, read_bytes

INPUTS = "inputs"
"""In the folder of a run: the copies."""
_DIGITS = 16


def stored(wrappers: WrapperConfig) -> tuple[WrapperConfig, dict[Path, bytes]]:
    """Wrappers as the config in the folder of their run says them.

    Args:
        wrappers: With files anywhere.

    Returns:
        The same with the names of the copies, relative to the folder; and the content of each.

    Raises:
        ConfigError: If a file cannot be read.
    """
    names, contents = {}, {}
    for option, path in wrappers.files.items():
        content = _read(path)
        original = re.sub(rf"^[0-9a-f]{{{_DIGITS}}}-", "", path.name)
        names[option] = Path(INPUTS) / f"{_digest(content)}-{original}"
        contents[names[option]] = content
    return wrappers.with_files(names), contents


def located(wrappers: WrapperConfig, folder: Path) -> WrapperConfig:
    """Wrappers as the config of a run says them, with the paths of the files in its folder, which are checked.

    Raises:
        ConfigError: If one is missing or was edited.
    """
    files = {option: folder / path for option, path in wrappers.files.items()}
    for path in files.values():
        _check(path)
    return wrappers.with_files(files)


def beside(data: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What a config file says, in which files that lie where it is are found: the config of a run is one of these.

    Args:
        data: Content of the config file.
        file: Its path.

    Raises:
        ConfigError: If one is the copy of a run and was edited.
    """
    wrappers = data.get("wrappers")
    if not isinstance(wrappers, Mapping):
        return dict(data)
    copied = {
        option: file.parent / str(wrappers[option])
        for option in FILES
        if isinstance(wrappers.get(option), str) and (file.parent / str(wrappers[option])).exists()
    }
    for path in copied.values():
        _check(path)
    return {**data, "wrappers": {**wrappers, **{option: str(path) for option, path in copied.items()}}}


def _check(path: Path) -> None:
    """Raises ConfigError if a path has the name of a copy and another content."""
    if path.parent.name != INPUTS or not re.match(rf"[0-9a-f]{{{_DIGITS}}}-", path.name):
        return
    if _digest(_read(path)) != path.name[:_DIGITS]:
        raise ConfigError(f"{path} was edited: it is not what the run began with")


def _read(path: Path) -> bytes:
    return read_bytes(path, MOST_JSON_BYTES)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
