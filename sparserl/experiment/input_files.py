"""The files that a run reads, such as frozen statistics or the tasks of a sequence: copied into its folder, so that it
depends on nothing outside but data sets.

The config in the folder refers to the copies, relative to itself. A copy carries the beginning of its SHA-256 in its
name, which is part of the config and so of every checkpoint: one that was edited is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from sparserl.config import merge, nested
from sparserl.envs.wrapping import FILES
from sparserl.errors import ConfigError
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.sequence_kinds import is_sequence_file
from sparserl.text_files import MOST_JSON_BYTES, read_bytes

C = TypeVar("C", bound=RunConfig)

INPUTS = "inputs"
"""In the folder of a run: the copies."""
_DIGITS = 16
_MARK = re.compile(rf"^[0-9a-f]{{{_DIGITS}}}-")


def stored(config: C) -> tuple[C, dict[Path, bytes]]:
    """A config as the folder of its run says it.

    Args:
        config: With files anywhere.

    Returns:
        The same with the names of the copies, relative to the folder; and the content of each.

    Raises:
        ConfigError: If a file cannot be read.
    """
    names, contents = {}, {}
    for option in config.files:
        name, content = config.kept_file(option)
        names[option] = copy_name(name, content)
        contents[names[option]] = content
    return config.with_files(names), contents


def copy_name(name: str, content: bytes) -> Path:
    """Where the copy of a file lies in the folder of a run."""
    return Path(INPUTS) / f"{_digest(content)}-{_MARK.sub('', name)}"


def located(config: C, folder: Path) -> C:
    """The config of a run with the paths of the files in its folder, which are checked.

    Raises:
        ConfigError: If one is missing or was edited.
    """
    files = {option: folder / path for option, path in config.files.items()}
    for path in files.values():
        _check(path)
    return config.with_files(files)


def beside(data: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What a config file says, in which files that lie where it is are found: the config of a run is one of these.

    Args:
        data: Content of the config file.
        file: Its path.

    Raises:
        ConfigError: If one is the copy of a run and was edited.
    """
    wrappers, sequence = data.get("wrappers"), data.get("sequence")
    named = {f"wrappers.{name}": wrappers.get(name) for name in FILES} if isinstance(wrappers, Mapping) else {}
    if isinstance(sequence, str) and is_sequence_file(sequence):
        named["sequence"] = sequence
    copied = {
        option: file.parent / path
        for option, path in named.items()
        if isinstance(path, str) and (file.parent / path).exists()
    }
    for path in copied.values():
        _check(path)
    return merge(data, nested({option: str(path) for option, path in copied.items()}))


def _check(path: Path) -> None:
    """Raises ConfigError if a path has the name of a copy and another content."""
    if path.parent.name != INPUTS or not _MARK.match(path.name):
        return
    if _digest(read_bytes(path, MOST_JSON_BYTES)) != path.name[:_DIGITS]:
        raise ConfigError(f"{path} was edited: it is not what the run began with")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
