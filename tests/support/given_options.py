"""Options as a user gives them: in a file, or as flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from support.option_kinds import KINDS

from sparserl.cli.running import POSITIONAL, read
from sparserl.config import nested


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of plain data by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def flags(options: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key, value in options.items():
        group, _, name = key.rpartition(".")
        before = f"--{group}." if group else "--"
        if key in POSITIONAL.values():
            words.insert(0, value)
            continue
        option = f"{before}{name}".replace("_", "-")
        if isinstance(value, bool) and isinstance(usual[key], bool):
            words.append(option if value else f"{before}no-{name}".replace("_", "-"))
        else:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return words


def by_file(kind: str, options: Mapping[str, Any], folder: Path, words: list[str] | None = None) -> Any:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(nested(options)))
    return read(KINDS[kind].command, ["--config", str(path), *(words or [])]).config
