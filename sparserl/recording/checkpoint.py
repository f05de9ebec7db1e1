"""Checkpoints that resume exactly and execute nothing: safetensors for arrays, JSON for the rest.

A checkpoint is a folder with `tensors.safetensors`, `state.json` and `manifest.json`, which names the format, its
version and the SHA-256 of every file. It is written under a temporary name and renamed, so it exists whole or not at
all. What the state means is its owner's business; here it is a tree of dicts, lists, numbers, strings and arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from sparserl.errors import CheckpointError
from sparserl.json_text import FLOAT, exactly, json_text, number_of

FORMAT = "sparserl-checkpoint"
VERSION = 1
_TENSOR = "__tensor__"
MOST_MANIFEST_BYTES = 2**16
MOST_STATE_BYTES = 2**28
"""Longer JSON files are no checkpoint's, and are not read."""
_MOST_LEVELS = 64
_FILES = ("tensors.safetensors", "state.json")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint; an older one of the same name is replaced in one step.

    Args:
        path: Folder to write.
        state: Tree of dicts with string keys, lists, tuples (which come back as lists), numbers, strings, booleans,
            None, tensors and arrays.

    Raises:
        TypeError: If the tree holds anything else.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _split(state, "", tensors, set())
    temporary = path.with_name(path.name + ".tmp")
    _discard(temporary)
    temporary.mkdir(parents=True)
    safetensors.torch.save_file(tensors, temporary / "tensors.safetensors")
    (temporary / "state.json").write_text(json_text(tree))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: sha256(temporary / name) for name in _FILES},
    }
    (temporary / "manifest.json").write_text(json_text(manifest, indent=2))
    for name in (*_FILES, "manifest.json"):
        flush(temporary / name)
    if path.exists():
        stale = path.with_name(path.name + ".old")
        _discard(stale)
        path.rename(stale)
        temporary.rename(path)
        _discard(stale)
    else:
        temporary.rename(path)


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint after checking every file against the manifest; changes nothing.

    Returns:
        The tree, with tensors in place of arrays.

    Raises:
        CheckpointError: If it is missing, truncated, edited, of another program or of another version.
    """
    manifest = read_json(path / "manifest.json", f"no checkpoint at {path}", most_bytes=MOST_MANIFEST_BYTES)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a sparserl checkpoint")
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format version {manifest.get('version')}; this sparserl reads version {VERSION}"
        )
    files = manifest.get("files")
    for name in _FILES:
        check_file(path / name, files.get(name) if isinstance(files, dict) else None)
    tree = read_json(path / "state.json", f"{path} has no state.json")
    tensors = read_tensors(path / "tensors.safetensors")
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path / 'state.json'} is damaged: it holds no keys and values")
    try:
        state: dict[str, Any] = _join(tree, tensors)
    except _DamagedTree as error:
        raise CheckpointError(f"{path / 'state.json'} is damaged: {error}") from None
    return state


def remove(path: Path) -> None:
    """Deletes a checkpoint; one that is half deleted no longer has a name that counts."""
    going = path.with_name(path.name + ".gone")
    path.rename(going)
    _discard(going)


def tidy(folder: Path) -> None:
    """Cleans up after a crash: finishes deletions, drops half-written checkpoints, puts back one not yet replaced."""
    for old in folder.glob("*.old"):
        if not old.with_suffix("").exists():
            old.rename(old.with_suffix(""))
    for suffix in ("old", "tmp", "gone"):
        for left in folder.glob(f"*.{suffix}"):
            _discard(left)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Arrays of a safetensors file; reading it runs no code.

    Raises:
        CheckpointError: If it is not a whole safetensors file.
    """
    check_regular(path)
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def read_json(path: Path, missing: str, *, most_bytes: int = MOST_STATE_BYTES) -> Any:
    """A JSON file.

    Args:
        path: The file.
        missing: What to say if there is none.
        most_bytes: A longer one is not ours.

    Raises:
        CheckpointError: If there is none, or it is no plain file, too long or not JSON.
    """
    if not os.path.lexists(path):
        raise CheckpointError(missing)
    check_regular(path)
    if path.stat().st_size > most_bytes:
        raise CheckpointError(f"{path} is damaged: it is longer than {most_bytes:,} bytes")
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not JSON") from None


def check_regular(path: Path) -> None:
    """Raises CheckpointError unless there is a plain file, and not a link, a pipe or a device that would not end."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        raise CheckpointError(f"{path} is missing") from None
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a plain file")


def check_file(path: Path, expected: str | None) -> None:
    """Raises CheckpointError unless the file has the SHA-256 that the manifest gives."""
    check_regular(path)
    if expected is None or sha256(path) != expected:
        raise CheckpointError(f"{path} was truncated or edited: its checksum differs from the manifest")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Waits until the file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _split(node: Any, key: str, tensors: dict[str, torch.Tensor], taken_up: set[int]) -> Any:
    if isinstance(node, np.ndarray):
        node = torch.from_numpy(np.require(node, requirements=["C", "W"]))
    if isinstance(node, torch.Tensor):
        while key in tensors:  # {"a": {"b": ...}, "a/b": ...}
            key += "'"
        tensors[key] = _alone(node.detach(), taken_up)
        return {_TENSOR: key}
    if isinstance(node, Mapping):
        if not all(isinstance(name, str) for name in node):
            raise TypeError(f"checkpoint keys must be strings, at {key or 'the root'!r}")
        for taken in (_TENSOR, FLOAT):
            if taken in node:
                raise TypeError(f"a checkpoint keeps the key {taken!r} for itself, at {key or 'the root'!r}")
        return {name: _split(value, f"{key}/{name}", tensors, taken_up) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_split(value, f"{key}/{position}", tensors, taken_up) for position, value in enumerate(node)]
    if isinstance(node, np.generic):
        node = node.item()
    if isinstance(node, float):
        return exactly(node)
    if node is None or isinstance(node, bool | int | str):
        return node
    raise TypeError(f"a checkpoint cannot hold {type(node).__name__}, at {key!r}")


def _alone(tensor: torch.Tensor, taken_up: set[int]) -> torch.Tensor:
    """A tensor in row-major order that shares no memory with those before: itself where it is that, to take no more.

    Args:
        tensor: It.
        taken_up: Addresses of the memory of those before; its own is added.
    """
    storage = tensor.untyped_storage()
    is_whole = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes
    if not is_whole or storage.data_ptr() in taken_up:
        return tensor.clone(memory_format=torch.contiguous_format)
    taken_up.add(storage.data_ptr())
    return tensor


class _DamagedTree(Exception):
    """A tree of JSON that no checkpoint was saved as."""


def _join(node: Any, tensors: Mapping[str, torch.Tensor], depth: int = 0) -> Any:
    if depth > _MOST_LEVELS:
        raise _DamagedTree(f"it is nested more than {_MOST_LEVELS} levels deep")
    if isinstance(node, dict):
        if set(node) == {_TENSOR}:
            return _tensor(node[_TENSOR], tensors)
        if set(node) == {FLOAT}:
            return _number(node)
        return {name: _join(value, tensors, depth + 1) for name, value in node.items()}
    if isinstance(node, list):
        return [_join(value, tensors, depth + 1) for value in node]
    return node


def _tensor(name: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise _DamagedTree(f"there is no array {str(name)[:80]!r}")
    return tensors[name]


def _number(held: Mapping[str, Any]) -> float:
    if held[FLOAT] not in ("nan", "inf", "-inf"):
        raise _DamagedTree(f"{str(held[FLOAT])[:80]!r} is no number")
    return number_of(held)


def _discard(path: Path) -> None:
    """Deletes a file, folder or link; of a link, not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
