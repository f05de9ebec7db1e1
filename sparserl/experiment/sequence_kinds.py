"""Sequences of tasks by name or file: whether classifiers or agents learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparserl import config
from sparserl.envs import RL_SEQUENCES
from sparserl.errors import ConfigError

OF_DATA = "data"
"""Key of a file, or of a task in it, whose tasks are of classification; those of environments have none."""


def is_sequence_file(name: str) -> bool:
    """Whether a sequence is named by its file."""
    return Path(name).suffix.lower() in (".yaml", ".yml")


def is_of_environments(sequence: str) -> bool:
    """Whether agents learn a sequence, and not classifiers.

    Raises:
        ConfigError: If it is a file that cannot be read.
    """
    if not is_sequence_file(sequence):
        return sequence in RL_SEQUENCES
    content = config.load_yaml(Path(sequence))
    tasks = content.get("tasks")
    return not any(OF_DATA in one for one in (content, *(tasks if isinstance(tasks, list) else ())) if _has_keys(one))


def _has_keys(value: Any) -> bool:
    return isinstance(value, dict)


def label_of(sequence: str, name: str | None) -> str:
    """What a sequence is called in results: by its name; one from a file by the name that the file gives it.

    Args:
        sequence: Its name or file.
        name: What a config says that a sequence from a file is called; None if it does not.
    """
    return (name or Path(sequence).stem) if is_sequence_file(sequence) else sequence


class OfSequence:
    """A config that names a sequence, or its file."""

    sequence: str
    sequence_name: str | None

    @property
    def from_file(self) -> bool:
        """Whether the sequence comes from a YAML file."""
        return is_sequence_file(self.sequence)

    @property
    def sequence_label(self) -> str:
        """What the sequence is called."""
        return label_of(self.sequence, self.sequence_name)


def check_name(sequence: str, name: str | None) -> None:
    """Raises ConfigError if a sequence that has a name is given another one."""
    if name is None:
        return
    if not is_sequence_file(sequence):
        raise ConfigError(f"--sequence-name {name} is for a sequence from a file; {sequence} has its name")
    if not name.strip():
        raise ConfigError("--sequence-name must not be empty")


def without_name(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data of a config without the name of a sequence from a file, where there is none."""
    return {key: value for key, value in data.items() if key != "sequence_name" or value is not None}


def method_label(method: str) -> str:
    """What a continual method is called in names of runs: a class of one's own without its module."""
    return method.rpartition(":")[2]
