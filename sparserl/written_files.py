"""Files that users ask for: refused before any work where they cannot be written; there as a whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparserl.errors import ConfigError


def check_writable(path: Path | None) -> None:
    """Finds out whether a file can be written, by writing one beside it for a moment; None is no file.

    Raises:
        ConfigError: If it is a folder or a device, its folder is not there, or nothing can be written there.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        raise ConfigError(f"cannot write {path}: it is no plain file")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    _try(path, path.parent)


def check_folder(path: Path) -> None:
    """Finds out whether files can be written into a folder, once it is made with those above it; makes none.

    Raises:
        ConfigError: If it cannot be made, or nothing can be written into it.
    """
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ConfigError(f"cannot create {path}: {there} is no folder")
    _try(path, there)


def _try(path: Path, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside a file, with its ending, to write to; what is there in the end takes its place.

    Raises:
        ConfigError: If it cannot be written; the file is as it was.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 in place of what was there.

    Raises:
        ConfigError: If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
