"""Presets: configs that come with the suite, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparserl import config as yaml_config
from sparserl.agents.table import AGENTS
from sparserl.errors import ConfigError, unknown_name


def presets() -> dict[str, Path]:
    """Of `sparserl train`: name -> file, e.g. `ds_td3/HalfCheetah-v5`."""
    paths = sorted(path for path in yaml_config.PRESETS.glob("*/*.yaml") if path.parent.name in AGENTS)
    return {f"{path.parent.name}/{path.stem}": path for path in paths}


def continual_presets() -> dict[str, Path]:
    """Of `sparserl continual`: name -> file, e.g. `split_mnist_spacenet`."""
    return {path.stem: path for path in sorted(yaml_config.PRESETS.glob("continual/*.yaml"))}


def rl_continual_presets() -> dict[str, Path]:
    """Of `sparserl continual` on environments: name -> file, e.g. `cw10`."""
    return {path.stem: path for path in sorted(yaml_config.PRESETS.glob("continual_rl/*.yaml"))}


def fit_presets() -> dict[str, Path]:
    """Of `sparserl fit`: name -> file, e.g. `lenet300_100`."""
    return {path.stem: path for path in sorted(yaml_config.PRESETS.glob("fit/*.yaml"))}


def load_preset(name: str, known: Mapping[str, Path]) -> dict[str, Any]:
    """What a preset says.

    Args:
        name: The preset.
        known: Those that the command has.

    Raises:
        ConfigError: If it is none of them.
    """
    if name not in known:
        raise ConfigError(unknown_name("preset", name, known))
    return yaml_config.load_yaml(known[name])
