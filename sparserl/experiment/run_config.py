"""Of what kind an existing run is, and the config that it was started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sparserl import config as yaml_config
from sparserl.continual.named_objects import is_named_object
from sparserl.continual.strategies import with_own
from sparserl.envs import RLSequence, load_rl_sequence
from sparserl.errors import ConfigError
from sparserl.experiment.continual_config import ContinualConfig, with_topology
from sparserl.experiment.fit_config import FitConfig
from sparserl.experiment.input_files import located
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.rl_continual_config import RLContinualConfig, build_rl_continual_config
from sparserl.experiment.train_config import TrainConfig, build_train_config
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import RunFolder

C = TypeVar("C", bound=RunConfig)

SEQUENCE = "sequence.yaml"
"""In the folder of a run of `sparserl continual` on environments: the tasks, whatever the config called them."""


@dataclass(frozen=True)
class KindOfRun:
    """What runs of a kind have in common.

    Attributes:
        command: Sub-command that trains them.
        keys: Of their configs; no kind before this one in `KINDS_OF_RUNS` has all of them.
        build: Makes a config of plain data.
        what: They are runs of, in words.
    """

    command: str
    keys: frozenset[str]
    build: Callable[[Mapping[str, Any]], RunConfig]
    what: str


def kind_of(data: Mapping[str, Any]) -> Kind:
    """Of what kind a run is, given its config as plain data."""
    return next(kind for kind, spec in KINDS_OF_RUNS.items() if spec.keys <= data.keys())


def kind_in(folder: RunFolder) -> Kind:
    """Of what kind a run is."""
    return kind_of(written_config(folder))


def build_config(data: Mapping[str, Any]) -> RunConfig:
    """The config of which `plain` gives the data; unlike `resolve` it puts nothing beneath.

    Raises:
        ConfigError: If a name, key or value is wrong.
    """
    return KINDS_OF_RUNS[kind_of(data)].build(data)


def recorded_config(folder: RunFolder, kind: Kind | None = None) -> Any:
    """The resolved config that a run was started with.

    Args:
        folder: Of the run.
        kind: That it must be of; any if None.

    Raises:
        ConfigError: If it is of another kind, or one that this version does not know.
    """
    data = written_config(folder)
    own = kind_of(data)
    if kind not in (None, own):
        found, wanted = KINDS_OF_RUNS[own].what, KINDS_OF_RUNS[kind].what
        raise ConfigError(f"{folder.path} is a run of {found}; this takes runs of {wanted}")
    name_modules(filter(is_named_object, [str(data.get("method", ""))]), folder.path, what="method")
    try:
        return KINDS_OF_RUNS[own].build(data).resolved()
    except ConfigError as error:
        raise ConfigError(f"{folder.path}: {error}") from None


def run_config(folder: RunFolder) -> TrainConfig:
    """The resolved config of a run of `sparserl train`; raises as `recorded_config`."""
    config: TrainConfig = recorded_config(folder, "train")
    return config


def written_config(folder: RunFolder) -> dict[str, Any]:
    """What tells a run from others: its config as it was written, without the options that there have been since."""
    return yaml_config.load_yaml(folder.path / "config.yaml")


def located_config(config: C, folder: RunFolder) -> C:
    """The config of a run as it is trained by: with the paths of the files in its folder, which are checked.

    Raises:
        ConfigError: If one is missing or was edited.
    """
    return located(config, folder.path)


def run_sequence(folder: RunFolder) -> RLSequence:
    """The tasks of a run of `sparserl continual` on environments; the modules that these import are named.

    Raises:
        ConfigError: If the file is missing or wrong, or a module lies in the folder.
    """
    sequence = load_rl_sequence(folder.path / SEQUENCE)
    name_modules((task.env for task in sequence.tasks), folder.path)
    return sequence


def continual_config(folder: RunFolder) -> ContinualConfig:
    """The resolved config of a run of `sparserl continual` of a classifier; raises as `recorded_config`."""
    config: ContinualConfig = recorded_config(folder, "continual")
    return config


def rl_continual_config(folder: RunFolder) -> RLContinualConfig:
    """The resolved config of a run of `sparserl continual` on environments; raises as `recorded_config`."""
    config: RLContinualConfig = recorded_config(folder, "continual_rl")
    return config


def fit_config(folder: RunFolder) -> FitConfig:
    """The resolved config of a run of `sparserl fit`; raises as `recorded_config`."""
    config: FitConfig = recorded_config(folder, "fit")
    return config


def _build_classifier_config(data: Mapping[str, Any]) -> ContinualConfig:
    method = str(data.get("method", ContinualConfig.method))
    return yaml_config.build(ContinualConfig, with_own(with_topology(data), method))


def _build_fit_config(data: Mapping[str, Any]) -> FitConfig:
    return yaml_config.build(FitConfig, data)


KINDS_OF_RUNS: dict[Kind, KindOfRun] = {
    "continual_rl": KindOfRun(
        "continual", frozenset({"sequence", "algo"}), build_rl_continual_config, "`sparserl continual` on environments"
    ),
    "continual": KindOfRun("continual", frozenset({"sequence"}), _build_classifier_config, "`sparserl continual`"),
    "fit": KindOfRun("fit", frozenset({"data"}), _build_fit_config, "`sparserl fit`"),
    "train": KindOfRun("train", frozenset(), build_train_config, "`sparserl train`"),
}
"""The first whose keys a config has is that of its run."""
