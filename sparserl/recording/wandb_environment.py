"""What the environment says to W&B: it wins over our defaults, and loses against a flag or a config file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from sparserl.errors import ConfigError, unknown_name

Mode = Literal["online", "offline", "disabled"]
MODES: Mapping[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
"""Value of WANDB_MODE, old ones among them -> mode."""
PROJECT = "sparserl"
WITHOUT: Mapping[str, Any] = {"mode": "online", "project": PROJECT, "entity": None, "tags": []}
"""What holds, by option, where neither the environment nor the user says anything."""


def mode() -> Mode:
    """Of WANDB_MODE, or of WANDB_DISABLED; online where they say nothing that W&B knows."""
    said = stated_mode()
    return "online" if said is None else said


def stated_mode() -> Mode | None:
    """Of WANDB_MODE, or of WANDB_DISABLED; None if they say nothing that W&B knows."""
    if os.environ.get("WANDB_MODE"):
        return MODES.get(os.environ["WANDB_MODE"].lower())
    disabled = os.environ.get("WANDB_DISABLED", "").lower() not in ("", "0", "false", "no", "off")
    return "disabled" if disabled else None


def check() -> None:
    """Raises ConfigError if the environment names a mode that there is not."""
    named = os.environ.get("WANDB_MODE")
    if named and named.lower() not in MODES:
        raise ConfigError(f"environment: {unknown_name('WANDB_MODE', named, MODES)}")


def project() -> str:
    """Of WANDB_PROJECT."""
    return os.environ.get("WANDB_PROJECT") or PROJECT


def entity() -> str | None:
    """Of WANDB_ENTITY."""
    return os.environ.get("WANDB_ENTITY") or None


def tags() -> tuple[str, ...]:
    """Of WANDB_TAGS, which parts them by commas."""
    return tuple(tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip())


def unless_set(variable: str, value: str) -> str | None:
    """A value of ours, or None, for W&B to read the variable itself, where the environment has it."""
    return None if os.environ.get(variable) else value


def without_environment(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they would be if the environment said nothing: what tells runs apart does not depend on it.

    Args:
        options: The resolved ones, as plain data.
        given: Those that a user gave.
    """
    return {name: WITHOUT[name] if name in WITHOUT and name not in given else options[name] for name in options}
