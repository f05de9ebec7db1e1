"""From what a user wishes to the config of a run: over a preset, over the schema's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sparserl import config as yaml_config
from sparserl.continual.named_objects import is_named_object
from sparserl.experiment import continual_config, fit_config, rl_continual_config, train_config
from sparserl.experiment.config_layers import Choice
from sparserl.experiment.input_files import beside
from sparserl.experiment.named_modules import name_modules, run_of
from sparserl.experiment.recorded_run import RunConfig

Kind = Literal["train", "continual", "fit"]
"""Of runs; named as the commands."""


def choose(kind: Kind, data: Mapping[str, Any], preset: str | None = None) -> Choice:
    """What a wish decides before all of it is known, by algorithm, environment, sequence and method.

    Args:
        kind: Of the run.
        data: The wish, or a part of it that has these names.
        preset: To lie beneath; the one that fits the run if None.

    Raises:
        ConfigError: If a name is unknown.
    """
    if kind == "train":
        return train_config.choose(data, preset)
    if kind == "fit":
        return fit_config.choose(data, preset)
    if rl_continual_config.is_about_environments(data, preset):
        return rl_continual_config.choose(data, preset)
    return continual_config.choose(data, preset)


def resolve(kind: Kind, data: Mapping[str, Any], *, preset: str | None = None) -> RunConfig:
    """The config of a run.

    Args:
        kind: "train" for an agent in an environment, "continual" for a sequence of tasks, "fit" for a table of samples.
        data: What differs from preset and defaults, nested as in a config file: `{"agent": {"gamma": 0.98}}`.
        preset: Name of the preset beneath (`sparserl list presets`); the one that fits the run if None.

    Returns:
        The config, which `run` takes.

    Raises:
        SparserlError: In one line, if a name, key or value is wrong, or an option is of another method.

    Example:
        >>> config = resolve("train", {"env": "Pendulum-v1", "total_steps": 2000, "agent": {"learning_starts": 500}})
        >>> config.agent.learning_starts, config.agent.gamma
        (500, 0.99)
    """
    return choose(kind, data, preset).resolve(data)


def read_config(file: Path) -> dict[str, Any]:
    """What a config file says; files that it names beside itself are found.

    Raises:
        ConfigError: If it cannot be read.
    """
    data = beside(yaml_config.load_yaml(file), file)
    name_modules(filter(is_named_object, [str(data.get("method"))]), run_of(file), what="method")
    return data
