"""What must not differ between runs that are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparserl.errors import ConfigError

ENV_PACKAGES = ("gymnasium", "mujoco")
"""Keys of `versions.json`: distributions whose version decides what an env does."""


def notes_on_mixtures(runs: Sequence[tuple[Path, Mapping[str, Any]]], keys: Sequence[str], allow: bool) -> list[str]:
    """Says, one line each, what differs between runs.

    Args:
        runs: Folder of each, and what is known of it; what is unknown differs from nothing.
        keys: What must be the same.
        allow: Whether it may differ all the same.

    Raises:
        ConfigError: If something differs and may not.
    """
    mixtures = dict(_mixtures(runs, keys))
    for filter_, mixture in mixtures.items():
        if not allow:
            raise ConfigError(f"{mixture}; leave one out, by --where {filter_}, or compare them with --allow-mixed")
    return [f"compared all the same: {one}" for one in mixtures.values()]


def _mixtures(runs: Sequence[tuple[Path, Mapping[str, Any]]], keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What keeps runs apart that differ, for `--where`, and how they do."""
    for key in keys:
        known = {path: known[key] for path, known in runs if known.get(key) is not None}
        first = next(iter(known), None)
        other = next((path for path in known if known[path] != known[first]), None) if first else None
        if first is not None and other is not None:
            yield f"{key}={known[first]}", f"{first} has {key} {known[first]}, {other} has {known[other]}"
