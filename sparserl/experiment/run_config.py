"""Of what kind an existing run is, and the config that it was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sparserl import config as yaml_config
from sparserl.envs import RLSequence, load_rl_sequence
from sparserl.errors import ConfigError
from sparserl.experiment.continual_config import ContinualConfig, with_topology
from sparserl.experiment.input_files import located
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.rl_continual_config import RLContinualConfig, build_rl_continual_config
from sparserl.experiment.train_config import TrainConfig, build_train_config
from sparserl.recording.run_folder import RunFolder

C = TypeVar("C", TrainConfig, RLContinualConfig)

SEQUENCE = "sequence.yaml"
"""In the folder of a run of `sparserl continual` on environments: the tasks, whatever the config called them."""


def is_continual(folder: RunFolder) -> bool:
    """Whether a run is one of `sparserl continual`, and not of `sparserl train`."""
    return "sequence" in yaml_config.load_yaml(folder.path / "config.yaml")


def is_of_agents(folder: RunFolder) -> bool:
    """Whether a run is one of `sparserl continual` on environments."""
    return is_continual(folder) and "algo" in yaml_config.load_yaml(folder.path / "config.yaml")


def build_config(data: Mapping[str, Any]) -> RunConfig:
    """The config of which `plain` gives the data; unlike `resolve` it puts nothing beneath.

    Raises:
        ConfigError: If a name, key or value is wrong.
    """
    if "sequence" not in data:
        return build_train_config(data)
    return build_rl_continual_config(data) if "algo" in data else _build_classifier_config(data)


def run_config(folder: RunFolder) -> TrainConfig:
    """The resolved config that a run of `sparserl train` was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if is_continual(folder):
        raise ConfigError(f"{folder.path} is a run of `sparserl continual`; this takes runs of `sparserl train`")
    return build_train_config(yaml_config.load_yaml(folder.path / "config.yaml")).resolved()


def written_config(folder: RunFolder) -> dict[str, Any]:
    """What tells a run from others: its config as it was written, without the options that there have been since."""
    return yaml_config.load_yaml(folder.path / "config.yaml")


def located_config(config: C, folder: RunFolder) -> C:
    """The config of a run as its environments take it: with the paths of the files in its folder, which are checked.

    Raises:
        ConfigError: If one is missing or was edited.
    """
    return replace(config, wrappers=located(config.wrappers, folder.path))


def run_sequence(folder: RunFolder) -> RLSequence:
    """The tasks of a run of `sparserl continual` on environments; the modules that these import are named.

    Raises:
        ConfigError: If the file is missing or wrong, or a module lies in the folder.
    """
    sequence = load_rl_sequence(folder.path / SEQUENCE)
    name_modules((task.env for task in sequence.tasks), folder.path)
    return sequence


def continual_config(folder: RunFolder) -> ContinualConfig:
    """The resolved config that a run of `sparserl continual` was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if not is_continual(folder):
        raise ConfigError(f"{folder.path} is a run of `sparserl train`; this takes runs of `sparserl continual`")
    return _build_classifier_config(yaml_config.load_yaml(folder.path / "config.yaml")).resolved()


def _build_classifier_config(data: Mapping[str, Any]) -> ContinualConfig:
    return yaml_config.build(ContinualConfig, with_topology(data))


def rl_continual_config(folder: RunFolder) -> RLContinualConfig:
    """The resolved config that a run of `sparserl continual` on environments was started with.

    Raises:
        ConfigError: If it is another kind of run.
    """
    if not is_of_agents(folder):
        raise ConfigError(f"{folder.path} is no run of an agent on a sequence of tasks")
    return build_rl_continual_config(yaml_config.load_yaml(folder.path / "config.yaml")).resolved()
